"""The meta-training loop: problems in, trained weights out, any time."""

import pathlib
import time

import numpy as np
import tensorflow as tf

from lopt_tf import checkpointing, distribution, scalars
from lopt_tf.metatraining import options as options_lib
from lopt_tf.metatraining import parameter_server, validation
from lopt_tf.optimizers import pretrained

KIND = "lopt_tf.metatraining"


def train(
    problems,
    rule,
    options=None,
    *,
    weights=None,
    output_dir=None,
    resume=False,
    checkpoint_every_s=60.0,
    report=None,
    strategy=None,
    validate=None,
    eval_every=0,
    stop=None,
):
    """Meta-trains an update rule (paper, section 4).

    Args:
        problems: {name: Problem}, for instance from `problems.corpus.select`.
        rule: an `UpdateRule`.
        options: `TrainingOptions`; the defaults if None.
        weights: meta-parameters to start from; drawn by the seed if None.
        output_dir: where checkpoints, TensorBoard scalars and the trained
            optimizer (`optimizer.npz`) go; None writes nothing. Several
            workers need one folder that all of them see.
        resume: go on from the newest checkpoint in `output_dir`.
        checkpoint_every_s: seconds between checkpoints.
        report: a function of one line of text, called every few seconds.
        strategy: a `tf.distribute.Strategy`. Its replicas share each
            problem's instances, and the meta-gradient is averaged; the
            workers of a `ParameterServerStrategy` each have a problem of
            their own. The current one if None.
        validate: a `Validation` on held-out problems.
        eval_every: meta-updates between validations; the weights with the
            best mean so far are kept in `best.npz`. 0 validates never.
        stop: a function that tells whether to save and stop after the
            present meta-update. Several workers stop together.

    Returns:
        The trained meta-parameters, {name: NumPy array [out, in]}.

    Raises:
        CheckpointError: if there is nothing to resume, the checkpoint is
            damaged or of other settings, or (without `resume`) `output_dir`
            already holds checkpoints.
        NoRoomError: if the process cannot hold the compiled programs of one
            more problem; everything is saved, to be resumed in a new one.
        FloatingPointError: after 100 meta-gradients without a finite one.
        WorkerLostError: if another worker does not answer any more; what
            the last checkpoint holds is not lost.
        KeyboardInterrupt: after `stop`, with everything saved.
    """
    options = options or options_lib.TrainingOptions()
    if eval_every and validate is None:
        raise ValueError("`eval_every` needs `validate`, a `Validation`.")
    if resume and not output_dir:
        raise ValueError("`resume` needs `output_dir`.")
    replicas = distribution.Replicas(strategy)
    trainer = parameter_server.new_trainer(
        problems, rule, options, weights, replicas
    )
    files = _Files(trainer, output_dir)
    note = None
    if resume:
        note = files.restore()
    else:
        files.check_unused()
    progress = _Progress(trainer, report if replicas.is_chief else None)
    if note:
        progress.say(note)
    schedule = _Schedule(replicas, checkpoint_every_s, stop)
    stopped = False
    watched = trainer.watch(report or (lambda line: None))
    with distribution.lost_workers_reported(), watched:
        try:
            # An interrupt may have come just before a validation.
            files.validate_if_due(validate, eval_every, progress)
            while trainer.update < options.meta_updates and not stopped:
                outcome = trainer.step()
                progress.add(*outcome)
                files.log(*outcome)
                files.validate_if_due(validate, eval_every, progress)
                save, stopped = schedule.after_step()
                if save:
                    files.save()
        except BaseException:
            # Stopped or failed: what was learned is kept. But a snapshot of
            # several workers needs all of them.
            if replicas.num_workers == 1:
                files.save()
            raise
        else:
            files.save()
        finally:
            progress.close()
    if stopped:
        raise KeyboardInterrupt
    return trainer.trained_weights()


class _Schedule:
    """When to save and to stop: the same for all workers."""

    def __init__(self, replicas, checkpoint_every_s, stop):
        self._replicas = replicas
        self._every_s = checkpoint_every_s
        self._stop = stop or (lambda: False)
        self._saved = time.monotonic()

    def after_step(self):
        """(whether to save, whether to stop)."""
        late = time.monotonic() - self._saved > self._every_s
        save, stop = self._replicas.agree([late, self._stop()])
        if save:
            self._saved = time.monotonic()
        return save, stop


class _Files:
    """What a training leaves in its output folder."""

    def __init__(self, trainer, output_dir):
        self.trainer = trainer
        self.folder = pathlib.Path(output_dir) if output_dir else None
        self.checkpoints = checkpointing.Checkpoints(
            self.folder and self.folder / "checkpoints", KIND
        )
        self.best = validation.Best()
        writes = self.folder and trainer.replicas.is_chief
        self._scalars = scalars.Scalars(
            self.folder / "tensorboard" if writes else None
        )

    def check_unused(self):
        self.checkpoints.check_unused(self.folder, "a meta-training")

    def restore(self):
        arrays, metadata = self.checkpoints.load_latest()
        self.trainer.restore(arrays, metadata)
        self.best.restore(metadata["best"])
        return self.trainer.length_note(metadata)

    def save(self):
        if not self.folder:
            return
        # All workers take part in the snapshot, one of them writes.
        arrays, metadata = self.trainer.snapshot()
        metadata["best"] = self.best.state()
        if not self.trainer.replicas.is_chief:
            return
        self.checkpoints.save(self.trainer.update, arrays, metadata)
        self._save_optimizer("optimizer.npz")
        self._scalars.flush()

    def _save_optimizer(self, name):
        pretrained.save(
            self.folder / name,
            self.trainer.rule,
            self.trainer.trained_weights(),
        )

    def validate_if_due(self, validate, every, progress):
        """Validates after each `every` meta-updates, and keeps the best."""
        trainer = self.trainer
        due = every and trainer.update and trainer.update % every == 0
        if not due or self.best.validated == trainer.update:
            return
        if trainer.replicas.is_chief:
            self._validate(validate, progress)
        self.best.validated = trainer.update

    def _validate(self, validate, progress):
        trainer = self.trainer
        losses = validate(trainer.rule, trainer.trained_weights())
        mean = float(np.mean(list(losses.values())))
        is_best = mean < self.best.loss
        if is_best:
            if self.folder:
                self._save_optimizer("best.npz")
            self.best.loss = mean
        values = {f"validation/{name}": x for name, x in losses.items()}
        self._scalars.write(trainer.update, {**values, "validation/all": mean})
        progress.say_validation(mean, is_best)

    def log(self, name, estimate):
        trainer, set_name = self.trainer, name.partition(".")[0]
        norm = tf.linalg.global_norm([estimate.gradient])
        self._scalars.write(
            trainer.update,
            {
                "meta_loss/all": estimate.meta_loss,
                f"meta_loss/{set_name}": estimate.meta_loss,
                f"meta_loss_of_problem/{name}": estimate.meta_loss,
                "meta_gradient/norm": norm,
                "meta_gradient/skipped_instances": estimate.skipped,
                "inner/lost_instances": estimate.lost,
                "inner/steps": trainer.inner_steps,
            },
        )


class _Progress:
    """One line every few seconds: what is done, how fast, how long yet."""

    def __init__(self, trainer, report, every_s=10.0):
        self._trainer = trainer
        self._report = report or (lambda line: None)
        self._every_s = every_s
        self._began = self._spoke = time.monotonic()
        self._first_update = trainer.update
        self._first_inner = trainer.inner_steps
        self._losses = []
        self._known_skipped = dict(trainer.skipped)
        self._report(trainer.describe())

    def add(self, name, estimate):
        self._losses.append(estimate.meta_loss)
        if time.monotonic() - self._spoke > self._every_s:
            self._say()

    def say(self, line):
        self._report(line)

    def close(self):
        if self._losses:
            self._say()

    def say_validation(self, mean, is_best):
        best = " (best so far)" if is_best else ""
        self._report(
            f"validation after meta-update {self._trainer.update}: "
            f"{mean:.4f}{best}"
        )

    def _say(self):
        self._spoke = time.monotonic()
        trainer, total = self._trainer, self._trainer.options.meta_updates
        seconds = self._spoke - self._began
        updates = trainer.update - self._first_update
        left = (total - trainer.update) * seconds / max(updates, 1)
        speed = (trainer.inner_steps - self._first_inner) / seconds
        self._report(
            f"meta-update {trainer.update}/{total}  "
            f"meta-loss {np.mean(self._losses):.3f}  "
            f"{speed:,.0f} inner steps/s  "
            f"{left / 60:.1f} min left"
        )
        self._losses = []
        self._say_skipped()

    def _say_skipped(self):
        now = self._trainer.skipped
        new = {
            name: count - self._known_skipped.get(name, 0)
            for name, count in now.items()
            if count > self._known_skipped.get(name, 0)
        }
        if new:
            listed = ", ".join(f"{name}: {n}" for name, n in new.items())
            self._report(
                "skipped instances (blown up, or without a finite "
                f"meta-gradient): {listed}"
            )
        self._known_skipped = dict(now)
