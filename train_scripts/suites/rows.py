"""One measured number with its name, unit and settings."""

import time


def row(name, value, unit, higher_is_better, **settings):
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "higher_is_better": higher_is_better,
        "settings": settings,
    }


def seconds(function, calls=1):
    """How long each of several calls takes."""
    taken = []
    for _ in range(calls):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return taken
