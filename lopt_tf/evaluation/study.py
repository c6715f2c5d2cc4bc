"""What an experiment works with: finished work, progress, the optimizer."""

import hashlib
import platform
import time

import numpy as np

from lopt_tf.evaluation import comparison, progress, store


class Study:
    """The folder of one experiment and what goes into it.

    Args:
        folder: where everything goes.
        settings: JSON-ready dictionary of what the results depend on.
        learned: the `Contender` to be evaluated, or None.
        data_dir: where TensorFlow Datasets are prepared.
        report: a function of one line of text.
    """

    def __init__(
        self, folder, settings, learned=None, data_dir=None, report=None
    ):
        self.store = store.Store(folder, settings)
        self.progress = progress.Progress(report)
        self.learned = learned
        self.data_dir = data_dir
        # Rows about seconds, for a file of their own.
        self.seconds = []
        # {name: value}, for the report: what settings come down to.
        self.facts = {}

    def piece(self, name, what, make, runs, steps):
        """The arrays of a piece of work, done now or before.

        Args:
            name: a relative path that identifies it.
            what: what it is, for the reader of the progress.
            make: function without arguments that returns {name: array}.
            runs: the number of runs in it.
            steps: the number of optimizer steps in it.
        """
        fresh = not self.store.has(name)

        def timed():
            began = time.perf_counter()
            arrays = make()
            return arrays, {"seconds": time.perf_counter() - began}

        arrays, metadata = self.store.get(name, timed)
        self.seconds.append(
            {"piece": name, "runs": runs, "steps": steps, **metadata}
        )
        self.progress.add(what, runs, steps, fresh)
        return arrays

    def close(self):
        """Lets another process work in the folder."""
        self.store.close()


def load(optimizer):
    """(Contender, fingerprint) of a trained optimizer.

    Args:
        optimizer: a file, the folder of a meta-training, the name of shipped
            weights, or None for the default ones.

    Raises:
        ValueError: if there is none; the message says how to make one.
    """
    import lopt_tf

    made = lopt_tf.LearnedOptimizer.from_pretrained(optimizer)
    source = made.pretrained_name or str(optimizer)
    contender = comparison.Contender(made.rule, made.rule_weights(), source)
    return contender, fingerprint(contender)


def fingerprint(contender):
    """A short text that is the same for the same optimizer and weights."""
    digest = hashlib.sha256(repr(contender.rule.get_config()).encode())
    for name, array in sorted(contender.weights.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array, "float32").tobytes())
    return f"{contender.rule.name} {digest.hexdigest()[:12]}"


def versions():
    """Versions of what the numbers come from."""
    import importlib.metadata

    import lopt_tf

    packages = ("tensorflow", "keras", "numpy", "scikit-learn")
    return {
        "python": platform.python_version(),
        "lopt_tf": lopt_tf.__version__,
        **{name: importlib.metadata.version(name) for name in packages},
    }
