"""One measured number with its name, unit and settings."""

import statistics
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


def episodes_speed(runner, count, steps, repetitions):
    """(Steps per second of episodes side by side, seconds of a first call).

    Args:
        runner: `Episodes`.
        count: of episodes.
        steps: of each.
        repetitions: of which the median is taken.
    """

    def play(position):
        while not runner.finished(position):
            position, _ = runner.advance(position)

    start = runner.begin(range(count))
    (compiling,) = seconds(lambda: runner.advance(start))
    starts = [runner.begin(range(count), i) for i in range(repetitions)]
    played = seconds(lambda: play(starts.pop()), repetitions)
    return count * steps / statistics.median(played), compiling
