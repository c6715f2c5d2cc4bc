"""Optimizers that an experiment meta-trains itself."""

import dataclasses

import numpy as np

from lopt_tf import checkpointing, metatraining
from lopt_tf.metatraining import loop, presets
from lopt_tf.optimizers import pretrained
from problems import corpus


def options(meta_updates, **changes):
    """`TrainingOptions` of a short meta-training; see `presets.SHORT`."""
    return dataclasses.replace(
        presets.SHORT, meta_updates=meta_updates, **changes
    )


def train(folder, label, rule, settings, problems, validate=None):
    """Meta-trains a rule, or resumes that: a `TrainedRule`.

    Args:
        folder: the `ExperimentFolder` that remembers it.
        label: what to call it.
        rule: the `UpdateRule`.
        settings: `TrainingOptions`.
        problems: as for `problems.corpus.select`.
        validate: a `metatraining.Validation`; the weights that did best at
            one of about 20 validations are taken. None takes the last ones.
    """
    piece = f"training/{label}"
    if not folder.has(piece):
        # Before: a meta-training that is stopped leaves files, too.
        folder.write_settings()
        output_dir = folder.part(piece)
        checkpoints = (output_dir / "checkpoints").glob("checkpoint-*.npz")

        every = max(1, settings.meta_updates // 20)

        def say(line):
            folder.progress.say(f"{label}: {line}")

        try:
            metatraining.train(
                corpus.select(problems, folder.data_dir),
                rule,
                settings,
                output_dir=output_dir,
                resume=any(checkpoints),
                report=say,
                validate=validate,
                eval_every=every if validate else 0,
            )
        except FloatingPointError as error:
            # That a variant cannot be trained is a result, too: it is tested
            # with the weights from before it blew up.
            say(f"given up ({error})")
        folder.keep(piece, _best(output_dir, rule, settings))
    return pretrained.TrainedRule(rule, folder.load(piece))


def progress_made(folder, label, rule, settings, measure=None):
    """What a `train` came to: a row.

    Args:
        folder, label, rule, settings: those of `train`.
        measure: a `metatraining.Validation` for the mean meta-losses before,
            at the best weights and after; None for none of them.
    """
    piece = f"training/{label}-progress"
    if not folder.has(piece):
        output_dir = folder.part(f"training/{label}")
        checkpoints = checkpointing.Checkpoints(
            output_dir / "checkpoints", loop.KIND
        )
        row = {"meta_updates": 0}
        moments = dict.fromkeys(
            ("before", "best", "after"), rule.init_weights(settings.seed)
        )
        # One that blew up at once has none.
        if checkpoints.paths():
            _, metadata = checkpoints.load_latest()
            row = {"meta_updates": metadata["update"]}
            moments["best"] = _best(output_dir, rule, settings)
            moments["after"] = _weights(output_dir / "optimizer.npz")
        for moment, weights in moments.items() if measure else ():
            losses = measure(rule, weights).values()
            row[f"meta_loss_{moment}"] = np.mean(list(losses))
        folder.keep(piece, row)
    row = folder.load(piece)
    return {"optimizer": label, **{n: x.item() for n, x in row.items()}}


def _best(folder, rule, settings):
    """The weights that did best, the last ones if none were validated.

    A training that failed at once has none: those of its start count.
    """
    for name in ("best.npz", "optimizer.npz"):
        if (folder / name).exists():
            return _weights(folder / name)
    return rule.init_weights(settings.seed)


def _weights(file):
    # Not `pretrained.load_rule`: it knows no rules of an experiment's own.
    return checkpointing.load(file, pretrained.KIND)[0]
