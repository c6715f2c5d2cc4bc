"""Tables that programs have written."""

import csv


def read_rows(path):
    """The rows of a CSV file, each a dictionary of texts."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
