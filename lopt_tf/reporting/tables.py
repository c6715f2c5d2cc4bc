"""Rows of dictionaries as CSV files and as plain text."""

import csv
import io
import math

from lopt_tf import folders


def write_csv(path, rows, names=None):
    """Writes dictionaries as a CSV file, whole or not at all.

    Args:
        path: of the file.
        rows: dictionaries; with `names` any iterable of them.
        names: of the columns. Defaults to those of all rows.
    """
    with folders.whole(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        names = columns(rows) if names is None else names
        writer = csv.DictWriter(text, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
        text.detach()


def columns(rows):
    """The names of all columns; the first rows' ones come first."""
    return list(dict.fromkeys(name for row in rows for name in row))


def format_table(rows):
    """Rows as a plain text table."""
    names = columns(rows)
    cells = [[format_value(row.get(n, "")) for n in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths))
        for line in [names, ["-" * width for width in widths], *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def format_value(value):
    """A cell of a table as text; numbers with four digits."""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return "∞" if math.isinf(value) else f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {format_value(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(format_value, value))
    return "none" if value is None else str(value)
