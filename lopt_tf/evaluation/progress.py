"""Progress of an experiment: runs done, speed, time left."""

import time


class Progress:
    """A line now and then, after finished pieces of work.

    Args:
        report: a function of one line of text, or None for silence.
        every_s: at least so many seconds between two lines.
    """

    def __init__(self, report=None, every_s=2.0):
        self._report = report or (lambda line: None)
        self._every_s = every_s
        self._began = time.monotonic()
        self._spoke = self._began - every_s
        self._steps = 0
        self._fresh = 0
        self.planned = 0
        self.done = 0

    def plan(self, runs):
        """More runs than were known of."""
        self.planned += runs

    def add(self, name, runs, steps, fresh=True):
        """Some runs are there.

        Args:
            name: of the piece of work.
            runs: how many; 0 for other work, which reports for itself.
            steps: optimizer steps altogether.
            fresh: whether they were done now, and not found.
        """
        self.done += runs
        self.planned = max(self.planned, self.done)
        if not runs:
            # Its time says nothing about that of the runs.
            self._began, self._fresh, self._steps = time.monotonic(), 0, 0
        if not fresh or not runs:
            return
        self._fresh += runs
        self._steps += steps
        now = time.monotonic()
        if now - self._spoke < self._every_s and self.done < self.planned:
            return
        self._spoke = now
        seconds = max(now - self._began, 1e-9)
        left = (self.planned - self.done) * seconds / self._fresh
        self._report(
            f"{name}: {self.done}/{self.planned} runs done, "
            f"{self._steps / seconds:,.0f} steps/s, {left / 60:.1f} min left"
        )

    def say(self, line):
        """Reports something else."""
        self._report(line)
