"""The data of an `AlternatingModel`: one data set, or one per objective."""

import tensorflow as tf

from lopt_tf import checks

_HOW = "tf.data.Dataset.from_tensor_slices(arrays).batch(32)"


def check(data, names, what="fit"):
    """Checks data for objectives; ValueError says what to give instead."""
    fits = {name for name in _each(data) if isinstance(data[name], _DATASET)}
    if isinstance(data, _DATASET):
        if not int(data.cardinality()):
            raise ValueError(f"The data set of `{what}` is empty.")
        return
    if not isinstance(data, dict) or not data or len(fits) < len(data):
        raise ValueError(
            f"`{what}` takes a tf.data.Dataset of batches, such as {_HOW}, or "
            f"one for each objective: {{{names[0]!r}: ..., ...}}. Received: "
            f"{type(data).__name__}"
        )
    missing = [name for name in names if name not in data]
    unknown = [name for name in data if name not in names]
    if missing or unknown:
        problem = (
            f"has no data set for the objective {missing[0]!r}"
            if missing
            else f"has a data set for {unknown[0]!r}, which is no objective"
        )
        raise ValueError(
            f"`{what}` {problem}. The objectives are {', '.join(names)}."
        )
    for name in names:
        if not int(data[name].cardinality()):
            raise ValueError(
                f"The data set of the objective {name!r} is empty."
            )


_DATASET = tf.data.Dataset


def _each(data):
    return data if isinstance(data, dict) else ()


def specs(data, names):
    """{name: the type of its batches}."""
    if isinstance(data, dict):
        return {name: data[name].element_spec for name in names}
    return dict.fromkeys(names, data.element_spec)


def for_evaluation(data, names):
    """A data set of {name: batch}: a pass over the data, or the shortest."""
    check(data, names, "evaluate")
    if isinstance(data, dict):
        return _DATASET.zip({name: data[name] for name in names})
    # Those `map` takes apart, but not named ones.
    is_tuple = type(data.element_spec) is tuple

    def shared(*batch):
        return dict.fromkeys(names, batch if is_tuple else batch[0])

    return data.map(shared)


class Streams:
    """Iterators over the data of one `fit`.

    With `steps_per_epoch` a stream continues from epoch to epoch. Without it,
    the data must be one set of a known number of batches, of which each step
    takes one: an epoch is a pass, as in any `fit`.

    Args:
        data: a data set, or {name: data set}; see `check`.
        objectives: {name: Objective}.
        steps_per_epoch: an integer or None.

    Attributes:
        shared: whether all objectives have the same data.
        steps: of an epoch.
        iterators: the present ones, a list: one, or one for each objective.
    """

    def __init__(self, data, objectives, steps_per_epoch):
        self.names = list(objectives)
        check(data, self.names)
        self.data = data
        self.shared = not isinstance(data, dict)
        self.updates = [each.updates for each in objectives.values()]
        self.restarts = steps_per_epoch is None
        if self.restarts:
            self.steps = self._pass_length()
        else:
            checks.in_range("steps_per_epoch", steps_per_epoch, 1, 10**12)
            self.steps = int(steps_per_epoch)
        self.iterators = None

    def _pass_length(self):
        if not self.shared or max(self.updates) > 1:
            why = (
                "each objective has a data set of its own"
                if not self.shared
                else "an objective takes several batches in a step"
            )
            raise ValueError(
                f"`fit` needs `steps_per_epoch`, because {why}. Let the data "
                "sets repeat: dataset.repeat()."
            )
        length = int(self.data.cardinality())
        if length < 0:
            raise ValueError(
                "`fit` needs `steps_per_epoch`, because the data set does not "
                "tell how many batches it has, or never ends."
            )
        return length

    def ticks(self):
        """A data set with an element for each step of an epoch, for Keras."""
        options = tf.data.Options()
        # Its thread can hold up the end of an iterator for seconds.
        options.autotune.enabled = False
        return _DATASET.range(self.steps).with_options(options)

    def begin_epoch(self, taken):
        """Makes iterators if need be.

        Args:
            taken: batches that each objective took before, a NumPy array: a
                training that was restored leaves them out.
        """
        if self.restarts:
            self.iterators = [self._iterator(self.data, 0)]
        elif self.iterators is None and self.shared:
            self.iterators = [self._iterator(self.data, int(taken.sum()))]
        elif self.iterators is None:
            self.iterators = [
                self._iterator(self.data[name], int(count))
                for name, count in zip(self.names, taken)
            ]

    def _iterator(self, data, taken):
        if taken:
            data = data.skip(taken)
        return iter(data)

    def ended(self, action, taken):
        """The error for data that ended when an action wanted more.

        Args:
            action: the place of its objective.
            taken: batches that each objective took, a NumPy array.
        """
        name, wanted = self.names[action], self.updates[action]
        which = "" if self.shared else f" of the objective {name!r}"
        count = int(taken.sum() if self.shared else taken[action])
        if not count and wanted == 1:
            return ValueError(f"The data set{which} is empty.")
        return ValueError(
            f"The data set{which} ended after {count} batches, {name!r} needed "
            f"{wanted} more. Let it repeat: dataset.repeat(), or fit fewer "
            "steps."
        )
