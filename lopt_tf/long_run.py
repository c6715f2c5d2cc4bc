"""The shell of a long run: folder, checkpoints, scalars, progress, resume."""

import json
import pathlib
import time
import types

import numpy as np
import tensorflow as tf

from lopt_tf import checkpointing, checks, compilation, folders

_SPEAK_EVERY_S = 10.0
# What parts of a trainer raise that are given what they did not save.
_MISFITS = (
    *(KeyError, IndexError, TypeError, ValueError, AttributeError),
    tf.errors.InvalidArgumentError,
)


class Trainer:
    """What a `LongRun` runs: a state, and the step that changes it.

    Attributes:
        what: the kind of run, for errors. Defaults to "a training".
        unit: plural noun of what `work` counts. Defaults to "steps".
        say: function of one line of text, for what `status` does not tell.
            Silent until a `LongRun` sets it.
        pause: a function of one line of text, for steps that take minutes:
            within them it may be called wherever `snapshot` returns what the
            step can go on from. If a checkpoint is due, it saves that, says
            the line, and returns True. Until a `LongRun` sets it, nothing.
    """

    what = "a training"
    unit = "steps"

    @property
    def step_number(self):
        """The number of steps done."""
        raise NotImplementedError

    @property
    def num_steps(self):
        """The number of steps after which the run ends."""
        raise NotImplementedError

    def step(self):
        """One step: {name: scalar}, with None for what is not known.

        It happens whole or not at all: if it raises anything, an interrupt
        too, the state is as it was before. So the state may be saved then.
        """
        raise NotImplementedError

    def measure(self):
        """Scalars of what is due after the steps done, such as a validation.

        It is called after each step and when a run resumes, since an
        interrupt may have come before it; {} if there is nothing to do.
        """
        return {}

    def snapshot(self):
        """({name: array}, JSON-ready dictionary) to resume from exactly.

        Several workers call it together.
        """
        raise NotImplementedError

    def restore(self, arrays, metadata):
        """Resumes from a snapshot; its settings have been compared."""
        raise NotImplementedError

    def settings(self):
        """What a resumed run must share: {part: {name: value}}."""
        raise NotImplementedError

    def default_settings(self):
        """What an older checkpoint means where it has no value."""
        return {}

    def completed(self, saved):
        """A checkpoint's settings, with what older ones lack: as `settings`.

        An option that is newer than the checkpoint was at its default.
        """
        return _filled(saved, self.default_settings())

    def products(self):
        """{file name: function that writes it, given its path}.

        A file must be written whole or not at all.
        """
        return {}

    def describe(self):
        """Lines to begin with: what runs, on what."""
        return []

    def status(self, rows):
        """The text of a line of progress.

        Args:
            rows: what `step` returned since the line before; at least one.
        """
        raise NotImplementedError

    def work(self):
        """How much was done, to tell the speed: a number of `unit`."""
        return self.step_number

    def scalar_step(self):
        """Where TensorBoard shows the scalars of the present step."""
        return self.step_number

    def num_compilations(self):
        """Programs compiled so far; only its changes matter."""
        return 0

    def say(self, line):
        """Reports a line of text; see the class."""

    def pause(self, line):
        """Saves if it is time to, in the middle of a step; see the class."""
        return False


# Stands for the replicas of a program that runs in one process.
_ALONE = types.SimpleNamespace(num_workers=1, is_chief=True, agree=list)


def check_begins(what, kind, output_dir, resume):
    """Raises CheckpointError at once where a `LongRun` could not begin.

    Args:
        what: see `Trainer.what`.
        kind, output_dir: see `LongRun`.
        resume: see `LongRun.run`.
    """
    if not output_dir:
        return
    folder = pathlib.Path(output_dir)
    checkpoints = checkpointing.Checkpoints(folder / "checkpoints", kind)
    if not resume:
        checkpoints.check_unused(folder, what)
    elif not checkpoints.paths():
        # It says that there is none.
        checkpoints.load_latest()


class LongRun:
    """Runs a trainer in a folder, from which it can resume at any time.

    The folder gets "checkpoints", "tensorboard" and the trainer's products.
    One process (of a cluster: the chief) works in it at a time. A run that
    ends before its first step leaves nothing in it.

    Whatever ends a run, the state is whole, because a step is. So it is
    saved, after failures too: one step more than a checkpoint is never worse
    than the checkpoint. Files are replaced whole, the checkpoint last; if
    saving fails or is interrupted, the checkpoint before stays.

    Args:
        trainer: a `Trainer`.
        kind: what the checkpoints are; see `checkpointing.save`.
        output_dir: the folder; None writes nothing.
        report: a function of one line of text; None is silent.
        every_s: seconds between checkpoints.
        stop: a function that tells whether to save and stop after the
            present step. Several workers stop together.
        replicas: has `num_workers`, `is_chief` and `agree`, if the program
            runs in several processes.
    """

    def __init__(
        self,
        trainer,
        kind,
        output_dir=None,
        report=None,
        every_s=60.0,
        stop=None,
        replicas=None,
    ):
        self._trainer = trainer
        self._replicas = replicas or _ALONE
        checks.in_range("checkpoint_every_s", every_s, 0.0, 1e9)
        self._every_s = every_s
        self._stop = stop or (lambda: False)
        self._folder = pathlib.Path(output_dir) if output_dir else None
        self._checkpoints = checkpointing.Checkpoints(
            self._folder and self._folder / "checkpoints", kind
        )
        # All workers take part in a snapshot, one of them writes.
        self._writes = bool(self._folder) and self._replicas.is_chief
        self._scalars = None
        if report and self._replicas.is_chief:
            trainer.say = report
        if self._folder and self._replicas.num_workers == 1:
            trainer.pause = self._pause

    def run(self, resume=False):
        """Runs to the end, and saves.

        Args:
            resume: resume from the folder's newest checkpoint.

        Raises:
            CheckpointError: if there is nothing to resume, all checkpoints
                are damaged, the newest whole one is of other settings, or
                (without `resume`) the folder already holds checkpoints.
            ValueError: if another process works in the folder, it cannot be
                written to, or `resume` lacks one.
            KeyboardInterrupt: if interrupted or after `stop`; what was done
                is saved.
        """
        if resume and not self._folder:
            raise ValueError("`resume` needs `output_dir`.")
        with folders.claimed(self._folder if self._writes else None):
            if resume:
                self._restore()
            else:
                self._checkpoints.check_unused(self._folder, self._trainer.what)
            if self._writes:
                self._check_products()
            for line in self._trainer.describe():
                self._trainer.say(line)
            self._run()

    def _check_products(self):
        """Checks now that the folder can take what will be saved later."""
        wanted = dict.fromkeys(self._trainer.products(), False)
        wanted |= {"checkpoints": True, "tensorboard": True}
        for name, is_folder in wanted.items():
            path = self._folder / name
            if path.exists() and path.is_dir() != is_folder:
                raise ValueError(
                    f"{path} is in the way of a file or folder of that name. "
                    "Move it, or name another folder."
                )

    def _restore(self):
        arrays, metadata = self._checkpoints.load_latest(self._trainer.say)
        try:
            given = _json_ready(self._trainer.settings())
            saved = _json_ready(self._trainer.completed(metadata["settings"]))
            checkpointing.check_settings(saved, given)
            self._trainer.restore(arrays, metadata)
            self._check_agreement()
        except checkpointing.CheckpointError:
            raise
        except _MISFITS as error:
            # Whole, but not what this trainer saves.
            raise checkpointing.CheckpointError(
                f"The checkpoint in {self._checkpoints.folder} does not fit "
                f"({type(error).__name__}: {_first_line(error)}). It was left "
                "as it is: start anew in another folder."
            ) from error

    def _check_agreement(self):
        """Raises CheckpointError if workers would go on from other steps."""
        if self._replicas.num_workers == 1:
            return
        own = self._trainer.step_number
        chief = self._replicas.of_chief(own)
        if own != chief:
            raise checkpointing.CheckpointError(
                f"This worker found step {own} in {self._folder}, the first "
                f"one step {chief}: all must see one folder."
            )

    def _run(self):
        trainer = self._trainer
        progress = _Progress(trainer)
        self._saved_step = trainer.step_number
        self._saved_at = time.monotonic()
        stopped = False
        try:
            held = trainer.measure(), trainer.scalar_step()
            while trainer.step_number < trainer.num_steps and not stopped:
                row = trainer.step()
                progress.add(row)
                # A run that ends before its first step leaves no event file.
                self._log(*held)
                held = {}, None
                self._log(row)
                self._log(trainer.measure())
                stopped = self._save_or_stop()
            self._log(*held)
            self._save()
        except BaseException as error:
            self._save_after(error)
            raise
        finally:
            progress.say()
        if stopped:
            raise KeyboardInterrupt

    def _pause(self, line):
        if time.monotonic() - self._saved_at <= self._every_s:
            return False
        self._save()
        self._trainer.say(line)
        return True

    def _log(self, values, step=None):
        known = {name: x for name, x in values.items() if x is not None}
        if not (known and self._writes):
            return
        if self._scalars is None:
            folder = str(self._folder / "tensorboard")
            self._scalars = tf.summary.create_file_writer(folder)
        if step is None:
            step = self._trainer.scalar_step()
        with self._scalars.as_default(step=step):
            for name, value in known.items():
                tf.summary.scalar(name, value)

    def _save_or_stop(self):
        """Saves if it is time to; whether to stop. All workers agree."""
        late = time.monotonic() - self._saved_at > self._every_s
        save, stop = self._replicas.agree([late, self._stop()])
        if save and not stop:
            self._save()
        return stop

    def _save(self):
        if not self._folder:
            return
        trainer = self._trainer
        arrays, metadata = trainer.snapshot()
        if self._writes:
            for name, write in trainer.products().items():
                write(self._folder / name)
            # Last: a run that resumes from it finds what belongs to it.
            settings = _json_ready(trainer.settings())
            self._checkpoints.save(
                trainer.step_number, arrays, {**metadata, "settings": settings}
            )
            if self._scalars is not None:
                self._scalars.flush()
        self._saved_step = trainer.step_number
        self._saved_at = time.monotonic()

    def _save_after(self, error):
        """Saves what was done before an interrupt or a failure."""
        has_news = self._trainer.step_number != self._saved_step
        if isinstance(error, compilation.NoRoomError):
            # A new process will resume, from the start if need be.
            has_news |= not self._checkpoints.paths()
        # A snapshot of several workers needs all of them.
        if self._replicas.num_workers > 1 or not has_news:
            return
        try:
            self._save()
        except Exception as failure:
            error.add_note(f"Saving failed, too: {failure}")


class _Progress:
    """A line every few seconds: what is done, how fast, how long yet.

    The first step and others that compile programs are left out of the
    speed, as soon as there are steps that do not.
    """

    def __init__(self, trainer):
        self._trainer = trainer
        self._rows = []
        # Steps, work and seconds.
        self._all = self._without_compilation = np.zeros(3)
        self._spoke = time.monotonic()
        self._mark()

    def _mark(self):
        self._time = time.monotonic()
        self._work = self._trainer.work()
        self._compilations = self._trainer.num_compilations()

    def add(self, row):
        """Notes a step, and says a line if it is time to."""
        work, began, compilations = self._work, self._time, self._compilations
        self._mark()
        pace = np.array([1, self._work - work, self._time - began])
        if self._all.any() and self._compilations == compilations:
            self._without_compilation = self._without_compilation + pace
        self._all = self._all + pace
        self._rows.append(row)
        if self._time - self._spoke > _SPEAK_EVERY_S:
            self.say()

    def say(self):
        """Says what was not said yet."""
        if not self._rows:
            return
        trainer, rows = self._trainer, self._rows
        self._rows, self._spoke = [], time.monotonic()
        usual = self._without_compilation
        steps, work, seconds = usual if usual.any() else self._all
        left = trainer.num_steps - trainer.step_number
        trainer.say(
            f"{trainer.status(rows)}  {work / max(seconds, 1e-9):,.0f} "
            f"{trainer.unit}/s  {left * seconds / steps / 60:.1f} min left"
        )


def _filled(saved, defaults):
    """A dictionary, and those within it, with what they lack of others."""
    filled = {**defaults, **saved}
    for name in {*saved} & {*defaults}:
        if isinstance(saved[name], dict) and isinstance(defaults[name], dict):
            filled[name] = _filled(saved[name], defaults[name])
    return filled


def _first_line(error):
    return next(iter(str(error).splitlines()), "")


def _json_ready(settings):
    """Settings as a checkpoint holds them."""
    return json.loads(json.dumps(settings, default=checks.plain))
