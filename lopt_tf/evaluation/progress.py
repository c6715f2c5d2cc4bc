"""Progress of an experiment: runs done, speed, time left."""

import time

# At least so many between two lines.
_SECONDS = 2.0


class Progress:
    """A line now and then, after finished pieces of work.

    Args:
        report: a function of one line of text, or None for silence.

    Attributes:
        say: that function.
    """

    def __init__(self, report=None):
        self.say = report or (lambda line: None)
        self._began = time.monotonic()
        self._spoke = self._began - _SECONDS
        self._steps = self._fresh = 0
        self._planned = self._done = 0

    def plan(self, runs):
        """More runs than were known of."""
        self._planned += runs

    def add(self, name, runs, steps, fresh=True):
        """Some runs are there.

        Args:
            name: of the piece of work.
            runs: how many; 0 for other work, which reports for itself.
            steps: optimizer steps altogether.
            fresh: whether they were done now, and not found.
        """
        self._done += runs
        self._planned = max(self._planned, self._done)
        if not runs:
            # Its time says nothing about that of the runs.
            self._began, self._fresh, self._steps = time.monotonic(), 0, 0
        if not fresh or not runs:
            return
        self._fresh += runs
        self._steps += steps
        now = time.monotonic()
        if now - self._spoke < _SECONDS and self._done < self._planned:
            return
        self._spoke = now
        seconds = max(now - self._began, 1e-9)
        left = (self._planned - self._done) * seconds / self._fresh
        self.say(
            f"{name}: {self._done}/{self._planned} runs done, "
            f"{self._steps / seconds:,.0f} steps/s, {left / 60:.1f} min left"
        )
