"""Optimizers that an experiment meta-trains itself."""

import dataclasses

import numpy as np

from lopt_tf import checkpointing, metatraining
from lopt_tf.evaluation import comparison
from lopt_tf.metatraining import loop, presets
from lopt_tf.optimizers import pretrained
from problems import corpus


def options(meta_updates, **changes):
    """`TrainingOptions` of a short meta-training; see `presets.SHORT`."""
    return dataclasses.replace(
        presets.SHORT, meta_updates=meta_updates, **changes
    )


def train(study, label, rule, settings, problems, validate=None):
    """Meta-trains a rule, or goes on where it was stopped: a `Contender`.

    Args:
        study: the `Study` that remembers it.
        label: what to call it.
        rule: the `UpdateRule`.
        settings: `TrainingOptions`.
        problems: as for `problems.corpus.select`.
        validate: a `metatraining.Validation`; the weights that did best at
            one of about 20 validations are taken. None takes the last ones.
    """
    folder = study.store.path(f"training/{label}")

    def say(line):
        study.progress.say(f"{label}: {line}")

    def make():
        try:
            metatraining.train(
                corpus.select(problems, study.data_dir),
                rule,
                settings,
                output_dir=folder,
                resume=any((folder / "checkpoints").glob("checkpoint-*.npz")),
                report=say,
                validate=validate,
                eval_every=max(1, settings.meta_updates // 20)
                if validate
                else 0,
            )
        except FloatingPointError as error:
            # That a variant cannot be trained is a result, too: it is tested
            # with the weights from before it blew up.
            say(f"given up ({error})")
        return _best(folder, rule, settings)

    weights = study.piece(
        f"training/{label}", f"meta-training {label}", make, 0, 0
    )
    return comparison.Contender(rule, weights)


def progress_made(study, label, rule, settings, measure=None):
    """What a `train` came to: a row.

    Args:
        study, label, rule, settings: those of `train`.
        measure: a `metatraining.Validation` for the mean meta-losses before,
            at the best weights and after; None for none of them.
    """
    folder = study.store.path(f"training/{label}")
    checkpoints = checkpointing.Checkpoints(folder / "checkpoints", loop.KIND)

    def losses():
        moments = {
            "before": rule.init_weights(settings.seed),
            "best": _best(folder, rule, settings),
            "after": pretrained.load(folder / "optimizer.npz")[2],
        }
        return {
            f"meta_loss_{moment}": np.mean(
                list(measure(rule, weights).values())
            )
            for moment, weights in moments.items()
        }

    def make():
        _, metadata = checkpoints.load_latest()
        achieved = losses() if measure else {}
        return {"meta_updates": metadata["update"], **achieved}

    row = study.piece(
        f"training/{label}-progress", f"progress of {label}", make, 0, 0
    )
    return {"optimizer": label, **{n: x.item() for n, x in row.items()}}


def _best(folder, rule, settings):
    """The weights that did best, the last ones if none were validated.

    A training that failed at once has none: those of its start count.
    """
    for name in ("best.npz", "optimizer.npz"):
        if (folder / name).exists():
            return pretrained.load(folder / name)[2]
    return rule.init_weights(settings.seed)
