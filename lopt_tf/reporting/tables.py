"""Rows of dictionaries as CSV files and as plain text."""

import csv
import os
import pathlib


def write_csv(path, rows):
    """Writes dictionaries as a CSV file, whole or not at all.

    Args:
        path: the file.
        rows: list of dictionaries; the first ones' columns come first.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def format_table(rows):
    """Rows as a plain text table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_format(row.get(name, "")) for name in columns] for row in rows]
    widths = [
        max(len(line[i]) for line in [columns, *cells])
        for i in range(len(columns))
    ]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths))
        for line in [columns, ["-" * width for width in widths], *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def _format(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)
