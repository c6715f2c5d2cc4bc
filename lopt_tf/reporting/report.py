"""report.html: one page with everything, which opens without a network."""

import base64
import dataclasses
import html
import pathlib

from lopt_tf import folders
from lopt_tf.reporting import tables

_STYLE = """
:root { --ink: #1f2933; --soft: #616e7c; --line: #e4e7eb; --tint: #f5f7fa;
  --learned: #c0392b; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--tint);
  font: 15px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
header { border-left: 6px solid var(--learned); padding-left: 1rem;
  margin-bottom: 1.5rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .35rem; }
h2 { font-size: 1.15rem; margin: 0 0 .5rem; }
p { margin: 0 0 .75rem; max-width: 75ch; }
.soft { color: var(--soft); font-size: .9rem; }
section { background: #fff; border: 1px solid var(--line);
  border-radius: 10px; padding: 1.1rem 1.25rem; margin: 0 0 1.1rem; }
.wide { overflow-x: auto; }
.long { max-height: 32rem; overflow: auto; }
table { border-collapse: collapse; font-size: .86rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { position: sticky; top: 0; background: #fff; color: var(--soft);
  font-weight: 600; }
td.number, th.number { text-align: right; }
tr.learned td { background: #fdf3f1; }
td.marked { color: var(--learned); font-weight: 700; }
td.text { white-space: normal; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
dl.key { display: flex; flex-wrap: wrap; gap: .75rem; margin: 0 0 1.1rem; }
dl.key div { background: #fff; border: 1px solid var(--line);
  border-radius: 10px; padding: .6rem 1rem; }
dl.key dt { color: var(--soft); font-size: .8rem; }
dl.key dd { margin: 0; font-size: 1.3rem; font-weight: 650; }
h3 { font-size: .95rem; margin: .75rem 0 .25rem; }
dl.columns { margin: 0 0 .75rem; max-width: 75ch; font-size: .9rem; }
dl.columns dd { margin: 0 0 .25rem 1.5rem; color: var(--soft); }
"""
# Columns whose True is worth a second look.
_MARKED = ("at_edge", "rates_at_edge", "diverged", "ever_diverged")
_LONG = 40


@dataclasses.dataclass
class Table:
    """Rows for a CSV file and the report.

    Attributes:
        stem: the file's name without ".csv".
        title: its headline in the report.
        rows: list of dictionaries.
        note: a sentence or two about it.
        columns: {column: what it means}, for columns that need it.
    """

    stem: str
    title: str
    rows: list
    note: str = ""
    columns: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Plot:
    """A PNG file.

    Attributes:
        stem: the file's name without ".png".
        title: its headline in the report.
        draw: function of the path that writes it.
        note: a sentence or two about it.
    """

    stem: str
    title: str
    draw: object
    note: str = ""


@dataclasses.dataclass
class About:
    """What a report says beside the results.

    Attributes:
        title: the headline.
        question: what the experiment asks, in one or two sentences.
        settings: {name: value}, versions and seeds among them.
        command: the command line.
        key_figures: {name: text} of the most important results.
    """

    title: str
    question: str
    settings: dict
    command: str = ""
    key_figures: dict = dataclasses.field(default_factory=dict)


def write(folder, all_tables, plots, about):
    """Writes the CSV files, the PNG files and report.html.

    The page begins with the first table, then come all plots.
    """
    folder = pathlib.Path(folder)
    for table in all_tables:
        tables.write_csv(folder / f"{table.stem}.csv", table.rows)
    for plot in plots:
        plot.draw(folder / f"{plot.stem}.png")
    first, *others = all_tables
    parts = [_cards(about.key_figures), _table_section(first)]
    parts += [_plot_section(plot, folder) for plot in plots]
    parts += [_table_section(table) for table in others]
    parts.append(_settings_section(about))
    title = html.escape(about.title)
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n"
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header>\n<h1>{title}</h1>\n"
        f"<p>{html.escape(about.question)}</p>\n</header>\n"
        f"{''.join(parts)}</main>\n</body>\n</html>\n"
    )
    folders.write_text(folder / "report.html", page)


def _cards(figures):
    """Figures, large."""
    items = [f"<div>{_definition(*pair)}</div>" for pair in figures.items()]
    return f'<dl class="key">{"".join(items)}</dl>\n' * bool(items)


def _definition(name, text):
    return f"<dt>{_name(name)}</dt><dd>{html.escape(text)}</dd>"


def _name(name):
    return html.escape(name.replace("_", " "))


def _note(text):
    return f'<p class="soft">{html.escape(text)}</p>' * bool(text)


def _columns(table):
    """What the columns mean, as a list of definitions."""
    present = tables.columns(table.rows)
    items = "".join(
        _definition(name, meaning)
        for name, meaning in table.columns.items()
        if name in present
    )
    return f'<h3>Columns</h3><dl class="columns">{items}</dl>\n' * bool(items)


def _table_section(table):
    kind = "wide long" if len(table.rows) > _LONG else "wide"
    return (
        f"<section>\n<h2>{html.escape(table.title)}</h2>\n"
        f"{_note(table.note)}\n"
        f'<div class="{kind}">{_table(table.rows)}</div>\n'
        f"{_columns(table)}{_note(f'{table.stem}.csv')}\n</section>\n"
    )


def _table(rows):
    columns = tables.columns(rows)
    # The class of a column's cells.
    classes = {
        name: "number" * all(_is_number(r[name]) for r in rows if name in r)
        for name in columns
    }
    head = "".join(
        f"<th{_class(classes[name])}>{_name(name)}</th>" for name in columns
    )
    body = "".join(_row(row, classes) for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(row, classes):
    cells = []
    for name, kind in classes.items():
        value = row.get(name, "")
        if name in _MARKED and value not in ("", 0, False):
            kind = f"{kind} marked".strip()
        cells.append(f"<td{_class(kind)}>{_cell(value)}</td>")
    kind = "learned" * (row.get("optimizer") == "learned")
    return f"<tr{_class(kind)}>{''.join(cells)}</tr>\n"


def _class(name):
    return f' class="{name}"' * bool(name)


def _cell(value):
    return html.escape(tables.format_value(value))


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plot_section(plot, folder):
    data = (folder / f"{plot.stem}.png").read_bytes()
    image = base64.b64encode(data).decode()
    title = html.escape(plot.title)
    return (
        f"<section>\n<h2>{title}</h2>\n{_note(plot.note)}\n"
        f'<img alt="{title}" src="data:image/png;base64,{image}">\n'
        "</section>\n"
    )


def _settings_section(about):
    rows = "".join(
        f'<tr><th>{_name(name)}</th><td class="text">{_cell(value)}</td></tr>\n'
        for name, value in about.settings.items()
    )
    command = f"<p><code>{html.escape(about.command)}</code></p>"
    command *= bool(about.command)
    return (
        "<section>\n<h2>Settings, seeds and versions</h2>\n"
        f"{command}<table>{rows}</table>\n"
        '<p class="soft">The same command gives the same CSV files; seconds '
        "are in timings.csv alone.</p>\n</section>\n"
    )
