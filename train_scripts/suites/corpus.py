"""One pass through problems with two meta-updates each: what compiles."""

import time

import numpy as np

from lopt_tf import metatraining
from lopt_tf.metatraining import trainer as trainer_lib
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import corpus
from train_scripts.suites.rows import row


def measure(names, instance_counts, kind, report):
    """Rows of each number of instances; see `_measure`."""
    for instances in instance_counts:
        yield from _measure(names, instances, kind, report)


def _measure(names, instances, kind, report):
    """Seconds in all, and the share that compilation takes.

    Both meta-updates of a problem are of the same length: what the first
    one takes longer is compilation.

    Args:
        names: as for `problems.corpus.select`.
        instances: side by side.
        kind: the estimator.
        report: a function of one line of text, for progress.

    Raises:
        FloatingPointError: if a weight is not finite at the end.
    """
    problems = corpus.select(names)
    options = metatraining.TrainingOptions(
        meta_updates=2 * len(problems),
        estimator=kind,
        instances=instances,
        parallel_tasks=1,
        curriculum=metatraining.Curriculum(
            starts=1,
            min_partials=2,
            mean_partials=0,
            min_length=20,
            mean_length=0,
        ),
    )
    began = time.perf_counter()
    rule = HierarchicalRNNRule()
    trainer = trainer_lib.Trainer(problems, rule, options)
    seconds = {}
    while trainer.update < options.meta_updates:
        before = time.perf_counter()
        (name,) = [
            key.partition("/")[2]
            for key in trainer.step()
            if key.startswith("meta_loss_of_problem/")
        ]
        seconds.setdefault(name, []).append(time.perf_counter() - before)
        if trainer.update % 20 == 0:
            report(f"meta-update {trainer.update}/{options.meta_updates}")
    total = time.perf_counter() - began
    weights = trainer.trained_weights()
    if not all(np.all(np.isfinite(array)) for array in weights.values()):
        raise FloatingPointError("The pass ended with non-finite weights.")
    # A problem whose instances were all lost at once has one meta-update.
    compilation = sum(
        first - min(rest, default=0.0) for first, *rest in seconds.values()
    )
    prefix = f"corpus/{kind}/instances={instances}"
    settings = {
        "problems": len(problems),
        "meta_updates": trainer.update,
        "skipped_instances": sum(trainer.skipped.values()),
    }
    yield row(f"{prefix}/total", total, "s", False, **settings)
    share = compilation / total
    yield row(f"{prefix}/compilation", share, "share", False, **settings)
