"""Rows of dictionaries as CSV files and as plain text."""

import csv
import math
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
    cells = [
        [format_value(row.get(name, "")) for name in columns] for row in rows
    ]
    widths = [
        max(len(line[i]) for line in [columns, *cells])
        for i in range(len(columns))
    ]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths))
        for line in [columns, ["-" * width for width in widths], *cells]
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
