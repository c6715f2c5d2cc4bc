"""A picture of what episodes make, kept up to date while they are played."""

import time

from lopt_tf.autoloss import plots

# The most rows of the picture.
_ROWS = 8
_EVERY_S = 30.0


class SamplePicture:
    """Draws images of episodes now and then, and when they have finished.

    A row for each start, or for one start of each of the task's groups. Tasks
    that make nothing to look at get no picture.

    Args:
        path: of the picture, a PNG file that is replaced.
        starts: seeds of the episodes.

    Attributes:
        columns: images of each.
        drawn: whether there is a picture.
    """

    columns = 16

    def __init__(self, path, starts):
        self.path = path
        self.starts = starts
        self.drawn = False
        self._next = 0.0

    def __call__(self, played, position):
        """Draws it if it is time.

        Args:
            played: `Episodes`.
            position: a `Position` of them.
        """
        if time.monotonic() < self._next and not played.finished(position):
            return
        images = played.samples(position, self.columns)
        if images is not None:
            self.draw(played.task, images)
        self._next = time.monotonic() + _EVERY_S

    def draw(self, task, images):
        """Draws images in -1..1 of all starts [E, columns, ...]."""
        labels = task.groups(self.starts)
        if labels is None or len(set(labels)) == 1:
            labels = [str(start) for start in self.starts]
        first = {x: place for place, x in reversed([*enumerate(labels)])}
        places = sorted(first.values())[:_ROWS]
        chosen = [labels[place] for place in places]
        plots.plot_samples(self.path, images[places], chosen)
        self.drawn = True
