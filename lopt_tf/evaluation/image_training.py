"""Trains an image classifier through Keras' `fit`, in a folder.

The folder gets settings.json, facts.json, metrics.csv, backups, TensorBoard's
files and, at the end, model.keras. Batches are functions of (seed, step), and
backups hold the whole state, so that a resumed training is the undisturbed one.
"""

import contextlib
import dataclasses
import json
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

from lopt_tf import callbacks, checkpointing, distribution, folders
from lopt_tf.evaluation import (
    experiment,
    image_backups,
    image_callbacks,
    image_devices,
    keras_training,
)
from lopt_tf.images import models, pipeline
from lopt_tf.metatraining import replicas
from lopt_tf.optimizers import pretrained

# How the message of an image begins that cannot be decoded.
_UNDECODED = ("jpeg", "png", "image", "decode")
# Batches that `tf.data` may have read ahead.
_READ_AHEAD = 64


def train(
    settings,
    output_dir,
    *,
    strategy=None,
    data_dir=None,
    manual_dir=None,
    resume=False,
    steps_per_execution=1,
    jit_compile="auto",
    report=None,
    stop=None,
):
    """Trains, or resumes a training; returns the rows of metrics.csv.

    The rows are {"step", "seconds", "split", "loss", "top1", "top5"}: the
    cross-entropy, without label smoothing, and shares of images whose class is
    the likeliest or among the five likeliest ones.

    Args:
        settings: an `image_settings.Settings`.
        output_dir: the folder.
        strategy: a `tf.distribute.Strategy` to train in. Defaults to `None`:
            one device.
        data_dir, manual_dir: as in `sources.open_splits`.
        resume: resume from the newest backup. Defaults to `False`.
        steps_per_execution: as in `keras.Model.compile`; a divisor of
            `settings.log_every`. Defaults to `1`.
        jit_compile: as there. Defaults to `"auto"`.
        report: a function of one line of text. Defaults to `None`: silent.
        stop: a function that tells whether to save and stop at the next row.
            Defaults to `None`: never.

    Raises:
        ValueError: for settings or data that cannot be, if the folder holds
            another training, or there is nothing to resume.
        FloatingPointError: if a weight is not finite any more; the last
            backups are from before.
        WorkerLostError: if another worker does not answer any more.
        KeyboardInterrupt: after `stop`; what was done is saved.
    """
    settings = settings.completed()
    group = replicas.Replicas(strategy)
    _check_steps(settings, group, steps_per_execution, jit_compile)
    *splits, settings = settings.open(data_dir, manual_dir)
    root = pathlib.Path(output_dir)
    with contextlib.ExitStack() as stack:
        if group.is_chief:
            stack.enter_context(folders.claimed(root))
        else:
            report = None
        stack.enter_context(distribution.lost_workers_reported())
        run = _Run(
            settings, splits, root, strategy, group, report or (lambda x: None)
        )
        run.check_folder(resume)
        run.prepare(steps_per_execution, jit_compile, stop)
        with _undecoded_reported(settings.dataset, run.undecoded):
            return run.fit()


class _Run:
    """A training in its folder: what `train` does, one after the other."""

    def __init__(self, settings, splits, root, strategy, group, report):
        self._settings = settings
        self._splits = splits
        self._root = root
        self._backup_folder = root / "backups"
        self._strategy = strategy
        self._group = group
        self._report = report

    def check_folder(self, resume):
        """Compares the folder's settings with these, to resume."""
        path = self._root / "settings.json"
        has_begun = any(self._backup_folder.glob("step-*"))
        if resume and not has_begun:
            raise ValueError(
                f"There is no training in {self._root} to resume. Start "
                "without resuming, or name another folder."
            )
        if not resume:
            self._check_free(path, has_begun)
            return
        try:
            saved = json.loads(path.read_text())
            given = json.loads(json.dumps(self._binding()))
            checkpointing.check_settings({"run": saved}, {"run": given})
        except (OSError, json.JSONDecodeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error}).") from error

    def _check_free(self, path, has_begun):
        """Raises ValueError if earlier results would be lost."""
        if has_begun:
            raise ValueError(
                f"{self._root} already holds a training. Resume it, or name "
                "another folder."
            )
        kept = [self._root / name for name in ("metrics.csv", "model.keras")]
        if _has_diverged(self._root):
            # Before its first backup: there is nothing to go on from.
            kept.pop(0)
        # Of a training that was stopped before its first backup, there is
        # nothing to lose; another program's settings are other results.
        kept += [] if _is_training(path) else [path]
        if found := [file.name for file in kept if file.exists()]:
            raise ValueError(
                f"{self._root} already holds results ({', '.join(found)}). "
                "Name another folder."
            )

    def _binding(self):
        """What a resumed training must share; of files, what they hold."""
        found = dataclasses.asdict(self._settings)
        found["data"] = [split.identity() for split in self._splits]
        # Backups of before have seen a part of an epoch in another order.
        found["order_of_epochs"] = 2
        name = self._settings.optimizer
        if str(name).removesuffix("_cosine") not in keras_training.KERAS:
            trained = pretrained.load_rule(name)
            found["optimizer"] = trained.name or "learned"
            found["weights"] = experiment.fingerprint(trained)
        return found

    def prepare(self, steps_per_execution, jit_compile, stop):
        """Makes the batches, the compiled model and the callbacks."""
        settings, splits = self._settings, self._splits
        start = image_backups.newest(
            self._backup_folder, self._report, self._group
        )
        augmentation = settings.augmentation or splits[0].augmentation
        self._batches, self._tests = (
            pipeline.Batches(
                source,
                settings.batch_size,
                settings.image_size,
                settings.seed,
                augmentation,
            )
            for source in splits
        )
        keras.utils.set_random_seed(settings.seed)
        with self._scope(), _dtype_policy(settings.dtype_policy):
            model = models.build(
                settings.model, settings.image_size, splits[0].num_classes
            )
            if settings.start_from and start is None:
                models.take_weights(model, settings.start_from)
            make = keras.Model
            if self._group.num_workers > 1:
                make = image_devices.MultiWorkerModel
            self._model = models.with_precise_logits(model, make)
            compile_model(
                self._model, settings, steps_per_execution, jit_compile
            )
        self._make_callbacks(start, stop or (lambda: False))

    def _scope(self):
        if self._strategy is None:
            return contextlib.nullcontext()
        return self._strategy.scope()

    def _make_callbacks(self, start, stop):
        self._metrics = image_callbacks.Metrics(self._settings, self._report)
        self._backups = image_backups.Backups(
            self._backup_folder,
            start,
            self._metrics,
            self._settings,
            self._group,
            stop,
        )
        self._callbacks = [
            # First, for what is tested and saved.
            callbacks.TrueParameters(),
            self._metrics,
            self._backups,
        ]
        if self._group.is_chief:
            board = keras.callbacks.TensorBoard(
                str(self._root / "tensorboard"), write_graph=False
            )
            self._callbacks.append(board)

    def fit(self):
        """Trains to the end: the rows."""
        settings, every = self._settings, self._settings.log_every
        at_once = self._model.steps_per_execution
        first = self._backups.first_step()
        self._metrics.begin(self._root / "metrics.csv", first)
        training = self._batches.training(first, self._strategy)
        self._describe(first)
        epochs = settings.steps // every
        with self._divergence_noted():
            self._model.fit(
                training,
                steps_per_epoch=every,
                epochs=epochs,
                validation_data=self._tests.test(self._strategy, at_once),
                validation_steps=self._tests.test_steps(at_once),
                validation_freq=[
                    epoch
                    for epoch in range(1, epochs + 1)
                    if epoch * every % settings.test_every == 0
                    or epoch == epochs
                ],
                callbacks=self._callbacks,
                shuffle=False,
                verbose=0,
            )
        if self._backups.was_stopped:
            raise KeyboardInterrupt
        self._save_model()
        return self._metrics.rows

    def undecoded(self):
        """The name of the image which a training has stopped at, or ""."""
        self._report("looking for the image that cannot be decoded")
        first = self._backups.first_step()
        if self._metrics.rows:
            first = max(row["step"] for row in self._metrics.rows)
        # Since the last row, and what was read ahead.
        steps = 2 * self._settings.log_every + _READ_AHEAD
        found = self._batches.undecoded(first, steps)
        return found or self._tests.undecoded_in_tests()

    def _describe(self, first):
        """Writes and says what is trained, and what it takes."""
        # The optimizer's variables tell its memory.
        optimizer = self._model.optimizer
        with self._scope():
            optimizer.build(self._model.trainable_variables)
        self._facts = facts = {
            "parameters": self._model.count_params(),
            "tensors": len(self._model.trainable_variables),
            "optimizer_bytes": nbytes(optimizer.variables),
            "replicas": image_devices.count(self._group),
            "backend": keras.backend.backend(),
            "devices": _devices(),
            "versions": experiment.versions(),
        }
        self._write("settings", self._binding())
        self._write("facts", facts)
        self._report(
            f"{self._settings.model}: {facts['parameters']:,} parameters in "
            f"{facts['tensors']} tensors; {self._batches.size:,} images; "
            f"the optimizer takes {facts['optimizer_bytes'] / 1e6:,.1f} MB; "
            f"{facts['replicas']} replicas"
        )
        if first:
            self._report(f"resuming after step {first}")

    def _write(self, name, content):
        """Writes a file for all workers."""
        if self._group.is_chief:
            text = json.dumps(content, indent=1) + "\n"
            folders.write_text(self._root / f"{name}.json", text)

    @contextlib.contextmanager
    def _divergence_noted(self):
        """Has facts.json tell of a training that diverged."""
        try:
            yield
        except FloatingPointError:
            self._write("facts", {**self._facts, "diverged": True})
            raise

    def _save_model(self):
        """Writes the network, without its optimizer."""
        model = keras.Model(self._model.inputs, self._model.outputs)
        if self._group.is_chief:
            unfinished = self._root / "unfinished.keras"
            model.save(unfinished)
            folders.put(unfinished, self._root / "model.keras")
            return
        with tempfile.TemporaryDirectory() as folder:
            model.save(f"{folder}/model.keras")


def compile_model(model, settings, steps_per_execution=1, jit_compile="auto"):
    """Compiles a classifier with one-hot labels as `train` does."""
    # PyTorch finds no five likeliest ones of fewer classes.
    likeliest = min(5, model.output_shape[-1])
    model.compile(
        optimizer=keras_training.optimizer_by_name(
            settings.optimizer,
            settings.learning_rate,
            settings.steps,
            settings.decay_share,
        ),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=settings.label_smoothing
        ),
        weighted_metrics=[
            keras.metrics.CategoricalCrossentropy(
                "cross_entropy", from_logits=True
            ),
            keras.metrics.CategoricalAccuracy("top1"),
            keras.metrics.TopKCategoricalAccuracy(likeliest, "top5"),
        ],
        steps_per_execution=steps_per_execution,
        jit_compile=jit_compile,
    )


def nbytes(variables):
    """The bytes that variables take on one device."""
    return sum(
        int(np.prod(v.shape)) * tf.as_dtype(v.dtype).size for v in variables
    )


def _has_diverged(folder):
    """Whether facts.json says that the training there did."""
    return _content(folder / "facts.json").get("diverged") is True


def _is_training(path):
    """Whether a settings.json is one of ours."""
    return {"model", "checkpoint_every"} <= {*_content(path)}


def _content(path):
    """The dictionary in a JSON file; {} if there is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_steps(settings, group, steps_per_execution, jit_compile):
    """Raises ValueError for steps that Keras cannot take."""
    count = image_devices.count(group)
    if settings.batch_size % count:
        raise ValueError(
            f"A batch of {settings.batch_size} cannot be shared by "
            f"{count} replicas: choose a multiple."
        )
    if settings.log_every % steps_per_execution:
        raise ValueError(
            "`steps_per_execution` must be a divisor of log_every. Received: "
            f"steps_per_execution={steps_per_execution}, "
            f"log_every={settings.log_every}"
        )
    if jit_compile is True and group.count > 1:
        raise ValueError(
            "Keras' steps cannot be compiled with XLA on several replicas: "
            "leave `jit_compile` out. (The learned step is compiled anyway.)"
        )


def _devices():
    """{type: number} of the devices that TensorFlow or JAX computes on."""
    if keras.backend.backend() == "jax":
        import jax

        return {jax.default_backend(): jax.device_count()}
    kinds = [d.device_type for d in tf.config.list_logical_devices()]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


@contextlib.contextmanager
def _dtype_policy(name):
    """A context in which Keras' layers are made with that policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _undecoded_reported(dataset, find):
    """Turns the error of a damaged image into a clear one.

    `find` is a function that returns its name, or "".
    """
    try:
        yield
    except (tf.errors.NotFoundError, tf.errors.PermissionDeniedError) as error:
        message = " ".join(error.message.split())
        if "ReadFile" not in message:
            raise
        raise ValueError(
            f"An image of {dataset} cannot be read: {message[:300]}"
        ) from error
    except (tf.errors.InvalidArgumentError, tf.errors.UnknownError) as error:
        # Without the names of our own files, some of which tell of images.
        lines = [line.strip() for line in str(error).splitlines()]
        lines = [line for line in lines if not line.startswith("File ")]
        message = " ".join(" ".join(lines).split())
        if not any(word in message.lower() for word in _UNDECODED):
            raise
        name = find() or "its name is not known"
        raise ValueError(
            f"An image of {dataset} is damaged, {name}: {message[:300]}"
        ) from error
