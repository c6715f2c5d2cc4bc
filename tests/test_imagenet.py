"""Trainings of image classifiers by the program `imagenet`."""

import csv
import importlib.util
import json
import pathlib
import shutil

import h5py
import keras
import numpy as np
import pytest
import replicas_run
import tensorflow as tf
import train_images
from image_files import class_folders
from train_images import metrics

import lopt_tf
from lopt_tf import distribution
from lopt_tf.evaluation import (
    image_backups,
    image_callbacks,
    image_settings,
    image_training,
    keras_training,
    plots,
)
from lopt_tf.evaluation.experiments import imagenet as comparison
from lopt_tf.images import models, views
from train_scripts import evaluate, imagenet

pytestmark = pytest.mark.usefixtures("own_signals")
# A small training, and a learned optimizer that is compiled quickly.
SMALL = ["--batch_size=16", "--steps=12", "--log_every=2", "--test_every=6"]


@pytest.fixture
def small_net(monkeypatch):
    """A small network in the place of all."""
    monkeypatch.setattr(models, "build", replicas_run.small_net)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    path = tmp_path_factory.mktemp("rule") / "optimizer.npz"
    lopt_tf.HierarchicalRNN(
        level_sizes=(3, 4, 5), init_lr_range=(1e-3, 1e-2), seed=1
    ).save_pretrained(path)
    return path


def _run(folder, *flags):
    arguments = [*SMALL, f"--output_dir={folder}", *map(str, flags)]
    return imagenet.main(["imagenet", *arguments])


def _backup(folder):
    """The arrays of the newest backup: {name: array}."""
    path = max((folder / "backups").iterdir())
    found = {}
    with h5py.File(path / "latest.weights.h5") as file:
        file.visititems(
            lambda name, x: (
                found.update({name: x[()]})
                if isinstance(x, h5py.Dataset)
                else None
            )
        )
    return found


def test_training_is_resumed_exactly(
    small_net, learned, tmp_path, monkeypatch, capsys
):
    flags = [f"--optimizer={learned}", "--augmentation=shift"]
    flags += ["--steps_per_execution=2"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert _run(whole, *flags) == 0
    assert "test: loss" in capsys.readouterr().out
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(
            "train_scripts.command_line.deferred_stop",
            lambda: lambda: asked.append(1) or len(asked) == 4,
        )
        assert _run(parts, *flags) == 130
    kept = sorted(path.name for path in (parts / "backups").iterdir())
    assert kept == ["step-000000006", "step-000000008"]
    assert len(metrics(parts)) == 5
    assert _run(parts, *flags, "--resume") == 0
    assert "resuming after step 8" in capsys.readouterr().out
    rows = metrics(parts)
    assert rows == metrics(whole)
    splits = [(row["step"], row["split"]) for row in rows]
    tests = [(step, "test") for step in (6, 12)]
    trained = [(step, "train") for step in range(2, 13, 2)]
    assert sorted(splits) == sorted(trained + tests)
    ours, expected = _backup(parts), _backup(whole)
    assert set(ours) == set(expected) and len(ours) > 30
    for name, array in expected.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
    # The end of a training is there, and can be trained on.
    model = keras.saving.load_model(parts / "model.keras")
    assert not model.compiled and model.output_shape == (None, 10)
    assert _run(parts, *flags, "--resume") == 0
    assert metrics(parts) == rows


def test_what_differs_between_optimizers_is_told():
    def run(optimizer, seed=0, **settings):
        row = {"step": 1, "loss": 1.0, "seconds": 1.0, "split": "train"}
        settings |= {"optimizer": optimizer, "seed": seed}
        rows = {"train": [row], "test": [row]}
        return comparison.Run(
            *(pathlib.Path("x"), "net", optimizer, settings, {}, rows)
        )

    same = {"data": [{"content": "a"}], "label_smoothing": 0.0}
    found = comparison._told_apart([run("adam", **same), run("lion", **same)])
    assert [x.optimizer for x in found] == ["adam", "lion"]
    smooth = run("lion", **same | {"label_smoothing": 0.1})
    found = comparison._told_apart([run("adam", **same), smooth])
    assert [x.optimizer for x in found] == [
        "adam, label_smoothing=0.0",
        "lion, label_smoothing=0.1",
    ]
    # Other data are no other seed.
    other = run("adam", 1, **same | {"data": [{"content": "b"}]})
    found = comparison._told_apart([run("adam", **same), other])
    first, second = (x.optimizer for x in found)
    assert first != second and "data=" in first and "data=" in second
    assert comparison._task(found[0])[2:] != comparison._task(found[1])[2:]


def test_rows_come_about_every_hundred_steps():
    with pytest.raises(ValueError, match="no divisor near 100 but 1"):
        image_settings.Settings(steps=100_003).completed()

    for steps, every in ((12, 12), (1000, 100), (202, 101), (1009, 1009)):
        settings = image_settings.Settings(steps=steps).completed()
        assert settings.log_every == every


def test_backups_of_long_stretches_are_not_lost(
    small_net, tmp_path, monkeypatch, capsys
):
    """Rows that take long are backed up, whatever the intervals."""
    monkeypatch.setattr(image_backups, "_LONGEST_S", 0.0)
    folder = tmp_path / "run"
    flags = ["--optimizer=adam", "--learning_rate=0.01"]
    flags += ["--checkpoint_every=12", "--test_every=12"]
    assert _run(folder, *flags) == 0
    kept = sorted(path.name for path in (folder / "backups").iterdir())
    assert kept == ["step-000000010", "step-000000012"]
    # A full disk leaves no half of a backup.
    other = tmp_path / "full"

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(image_backups.folders, "put", full)
        assert _run(other, *flags) == 2
    assert "No space left" in capsys.readouterr().err
    assert not list((other / "backups").iterdir())


def test_a_training_that_diverges_keeps_what_was_before(
    small_net, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    flags = ["--optimizer=adam", "--learning_rate=0.01"]
    plain = image_callbacks.Metrics.on_epoch_end

    def spoiling(self, epoch, logs=None):
        plain(self, epoch, logs)
        if (epoch + 1) * 2 == 8:
            weight = self.model.weights[-1]
            weight.assign(np.full(weight.shape, np.nan))

    with monkeypatch.context() as patch:
        patch.setattr(image_callbacks.Metrics, "on_epoch_end", spoiling)
        assert _run(folder, *flags) == 2
    assert "the training has diverged" in capsys.readouterr().err
    assert not (folder / "model.keras").exists()
    (kept,) = (folder / "backups").iterdir()
    assert kept.name == "step-000000006"
    # How it came to that is there, too: nobody takes it for one that was
    # stopped when all was well.
    assert metrics(folder)[-1]["step"] == 12
    (row,) = comparison.summary([comparison.read(folder)])
    assert row["diverged"] == 1 and row["train_loss"] == np.inf
    assert np.isnan(row["test_top1"]) and "steps_to_adam" not in row
    # What was before can be gone on from.
    assert _run(folder, *flags, "--resume") == 0
    (row,) = comparison.summary([comparison.read(folder)])
    assert row["diverged"] == 0 and row["train_loss"] < np.inf


def test_a_training_that_diverges_before_its_first_backup_begins_anew(
    small_net, tmp_path, monkeypatch
):
    flags = ["--optimizer=adam", "--checkpoint_every=12", "--test_every=12"]
    with monkeypatch.context() as patch:
        patch.setattr(image_backups.Backups, "_save", _never)
        patch.setattr(image_callbacks.Metrics, "on_epoch_begin", _spoil)
        assert _run(tmp_path, *flags) == 2
    found = comparison.read(tmp_path)
    (row,) = comparison.summary([found])
    assert row["diverged"] == 1
    picture = tmp_path / "curves.png"
    plots.plot_trainings(picture, [found], "t", "test", "step", "top1")
    assert picture.exists()
    assert _run(tmp_path, *flags) == 0


def _never(self, epoch, step):
    raise AssertionError("it was backed up")


def _spoil(self, epoch, logs=None):
    self._began, self._is_training = 0.0, True
    weight = self.model.weights[-1]
    weight.assign(np.full(weight.shape, np.nan))


def test_a_training_goes_on_with_its_own_data_alone(
    small_net, tmp_path, capsys
):
    images = tmp_path / "images"
    class_folders(images)
    flags = [tmp_path / "run", "--optimizer=adam", f"--dataset={images}"]
    flags += ["--image_size=16", "--augmentation=none", "--batch_size=4"]
    assert _run(*flags) == 0
    hidden = next((images / "train").iterdir())
    (hidden / ".ipynb_checkpoints").mkdir()
    (hidden / ".ipynb_checkpoints" / "0-checkpoint.jpg").write_bytes(b"")
    (hidden / "._0.jpg").write_bytes(b"of another system")
    (hidden / "gone.jpg").symlink_to(tmp_path / "nowhere")
    assert _run(*flags, "--resume") == 0
    first = min(hidden.glob("*.JPEG"))
    first.rename(first.with_name(f"another_{first.name}"))
    assert _run(*flags, "--resume") == 2
    assert "data" in capsys.readouterr().err
    for path in hidden.glob("[!.]*"):
        path.unlink()
    assert _run(tmp_path / "other", *flags[1:]) == 2
    assert f"no images in {hidden}" in capsys.readouterr().err


def _check_kept(folder, capsys, flags):
    """A damaged backup does not push out the sound one before it."""
    first, last = sorted((folder / "backups").iterdir())
    later = last.with_name("step-000000010")
    last.rename(later)
    (later / "latest.weights.h5").write_bytes(b"damaged")
    assert _run(*flags, "--resume") == 0
    assert "step-000000010 is damaged" in capsys.readouterr().out
    kept = sorted(path.name for path in (folder / "backups").iterdir())
    assert kept == [first.name, "step-000000012"]


def test_settings_bind_a_folder(small_net, tmp_path, learned, capsys):
    folder = tmp_path / "run"
    flags = [folder, "--optimizer=adam_cosine", "--learning_rate=0.01"]
    assert _run(*flags, "--resume") == 2
    assert "no training in" in capsys.readouterr().err
    assert not folder.exists()
    assert _run(*flags) == 0
    assert _run(*flags) == 2
    assert "Resume it" in capsys.readouterr().err
    for more in ("--seed=1", f"--optimizer={learned}", "--batch_size=8"):
        assert _run(*flags, "--resume", more) == 2
        assert "other settings" in capsys.readouterr().err
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["replicas"] == 1 and facts["parameters"] > 400
    # Two slots, and the step's number.
    trained = facts["parameters"] - 2 * 4
    assert facts["optimizer_bytes"] >= 8 * trained
    # The one before takes the place of one that is damaged by a bit.
    rows = metrics(folder)
    path = folder / "backups" / "step-000000012" / "latest.weights.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert _run(*flags, "--resume") == 0
    said = capsys.readouterr().out
    assert "step-000000012 is damaged; resuming from step-000000006" in said
    assert "resuming after step 6" in said and metrics(folder) == rows
    assert path.read_bytes() != bytes(content)
    _check_kept(folder, capsys, flags)
    for backup in (folder / "backups").iterdir():
        (backup / "training_metadata.json").write_text('{"epoch": 2}')
    assert _run(*flags, "--resume") == 2
    assert "damaged" in capsys.readouterr().err
    # Without backups the results are still there.
    shutil.rmtree(folder / "backups")
    before = (folder / "metrics.csv").read_bytes()
    assert _run(*flags) == 2
    assert "(metrics.csv, model.keras)" in capsys.readouterr().err
    assert (folder / "metrics.csv").read_bytes() == before
    other = tmp_path / "evaluation"
    other.mkdir()
    (other / "settings.json").write_text('{"preset": "quick"}')
    assert _run(other, *flags[1:]) == 2
    assert "already holds results (settings.json)" in capsys.readouterr().err
    # A training that was stopped before its first backup has none.
    kept = json.loads((folder / "settings.json").read_text())
    (other / "settings.json").write_text(json.dumps(kept))
    assert _run(other, *flags[1:]) == 0


def test_a_test_sees_each_image_once(small_net, tmp_path):
    """However many batches run at a time: 450 images are 29 batches of 16."""
    flags = ["--optimizer=adam", "--steps=10", "--log_every=5"]
    found = []
    for count in (1, 5):
        folder = tmp_path / str(count)
        more = ["--test_every=10", f"--steps_per_execution={count}"]
        assert _run(folder, *flags, *more) == 0
        found.append(metrics(folder)[-1])
    assert found[0]["split"] == "test"
    for name in ("loss", "top1", "top5"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-5)


def test_a_training_goes_on_from_a_trained_network(small_net, tmp_path, capsys):
    flags = ["--optimizer=adam", "--learning_rate=0.03"]
    assert _run(tmp_path / "first", *flags) == 0
    trained = tmp_path / "first" / "model.keras"
    more = [*flags, f"--start_from={trained}"]
    assert _run(tmp_path / "second", *more) == 0
    # A backup has weights of its own.
    away = trained.rename(tmp_path / "away.keras")
    assert _run(tmp_path / "second", *more, "--resume") == 0
    away.rename(trained)
    # One that was not finished has none.
    (tmp_path / "third" / "backups" / "step-000000002.tmp").mkdir(parents=True)
    for name in ("settings.json", "metrics.csv"):
        shutil.copy(tmp_path / "second" / name, tmp_path / "third" / name)
    assert _run(tmp_path / "third", *more, "--resume") == 0
    assert metrics(tmp_path / "third") == metrics(tmp_path / "second")
    first, second = (
        next(row["loss"] for row in metrics(tmp_path / name))
        for name in ("first", "second")
    )
    assert second < 0.9 * first
    expected = keras.saving.load_model(trained).get_weights()
    same, fewer = (models.build("", 8, classes) for classes in (10, 5))
    head = fewer.get_weights()[-2]
    for model in (same, fewer):
        models.take_weights(model, trained)
    again = models.build("", 8, 10)
    models.take_weights(again, trained.parent)
    np.testing.assert_array_equal(again.get_weights()[0], expected[0])
    for one, two in zip(same.get_weights(), expected):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(fewer.get_weights()[:-2], expected):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(fewer.get_weights()[-2], head)
    capsys.readouterr()
    for name, content, message in (
        ("missing.keras", None, "no network"),
        ("damaged.keras", trained.read_bytes()[:-40], "is damaged"),
        ("empty.keras", keras.Sequential([keras.Input([8])]), "not a "),
        ("other.keras", models.resnet20_v2(8, 10), "not a "),
    ):
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif content:
            content.save(tmp_path / name)
        start = f"--start_from={tmp_path / name}"
        assert _run(tmp_path / "bad", *flags, start) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
        assert not (tmp_path / "bad" / "backups").exists()


def test_curves_of_several_runs(small_net, learned, tmp_path, capsys):
    runs = []
    chosen = (learned, 0), ("adam", 0), ("adam", 1), ("momentum_cosine", 0)
    for optimizer, seed in chosen:
        runs.append(tmp_path / f"run{len(runs)}")
        flags = [f"--optimizer={optimizer}", f"--seed={seed}"]
        assert _run(runs[-1], *flags) == 0
    out = tmp_path / "out"
    arguments = ["--experiment=imagenet", f"--output_dir={out}"]
    listed = f"--runs={','.join(map(str, runs))}"
    assert evaluate.main(["evaluate", *arguments, listed]) == 0
    with open(out / "summary.csv", newline="") as file:
        rows = {row["optimizer"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["learned", "adam", "momentum_cosine"]
    assert [row["seeds"] for row in rows.values()] == ["1", "2", "1"]
    losses = [
        [r["loss"] for r in metrics(run) if r["split"] == "train"]
        for run in runs
    ]
    mean = np.mean([own[-1] for own in losses[1:3]])
    assert float(rows["adam"]["train_loss"]) == pytest.approx(mean)
    tests = [r["top1"] for r in metrics(runs[3]) if r["split"] == "test"]
    assert float(rows["momentum_cosine"]["test_top1"]) == tests[-1]
    assert float(rows["momentum_cosine"]["best_top1"]) == max(tests)
    # Adam reaches the loss of its last row at that row, or before.
    reached = [2 + 2 * np.argmax(np.array(x) <= x[-1]) for x in losses[1:3]]
    assert float(rows["adam"]["steps_to_adam"]) == np.median(reached)
    assert rows["momentum_cosine"]["steps_to_adam"]
    assert {row["last_step"] for row in rows.values()} == {"12"}
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 4 and "Test accuracy" in page
    with open(out / "timings.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(runs)
    faster = tmp_path / "faster"
    shutil.copytree(runs[1], faster)
    settings = json.loads((faster / "settings.json").read_text())
    settings["learning_rate"] = 0.03
    (faster / "settings.json").write_text(json.dumps(settings))
    listed = f"--runs={','.join(map(str, [*runs, faster]))}"
    again = [arguments[0], f"--output_dir={tmp_path / 'rates'}", listed]
    assert evaluate.main(["evaluate", *again]) == 0
    with open(tmp_path / "rates" / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # Beside the best Adam of the same seed.
    assert all(row["steps_to_adam"] for row in rows)
    assert {row["optimizer"]: row["seeds"] for row in rows} == {
        "learned": "1",
        "adam, learning_rate=None": "2",
        "adam, learning_rate=0.03": "1",
        "momentum_cosine": "1",
    }
    capsys.readouterr()
    for value, message in (
        ([], "Name the folders"),
        ([f"--runs={runs[0]},{runs[0]}"], "hold the same training"),
        ([listed, "--data_dir=somewhere"], "`data_dir` has no effect"),
        (["--runs=" + str(tmp_path)], "not the folder of a training"),
        ([listed, "--optimizer=adam"], "takes no --optimizer"),
    ):
        other = [arguments[0], f"--output_dir={tmp_path / 'other'}", *value]
        assert evaluate.main(["evaluate", *other]) == 2
        assert message in capsys.readouterr().err


def test_mixed_precision(small_net, learned, tmp_path):
    flags = [f"--optimizer={learned}", "--dtype_policy=mixed_float16"]
    assert _run(tmp_path / "run", *flags, "--label_smoothing=0.1") == 0
    assert _run(tmp_path / "plain", flags[0], "--label_smoothing=0.1") == 0
    ours, plain = metrics(tmp_path / "run"), metrics(tmp_path / "plain")
    for mine, other in zip(ours, plain):
        assert mine["loss"] == pytest.approx(other["loss"], rel=0.1)
    # The loss is scaled by Keras' optimizer around ours.
    assert any("inner_optimizer" in x for x in _backup(tmp_path / "run"))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--model=guess"], "resnet20_v2|inception_v3"),
        (["--model=inception_v3", "--image_size=32"], "at least 75x75"),
        (["--image_size=2"], "at least 4 pixels"),
        (["--dataset=cifar10", "--data_dir=no"], "tfds build cifar10"),
        (["--dataset=imagenet2012", "--data_dir=no"], "give manual_dir"),
        (["--optimizer=nothing"], "no pretrained weights"),
        (["--optimizer=sgd"], "Usual optimizers: adam, momentum, rmsprop"),
        (["--optimizer=nowhere.npz"], "no file nowhere.npz"),
        (["--strategy=parameter_server"], "use multi_worker"),
        (["--strategy=multi_worker"], "TF_CONFIG must describe"),
        (["--strategy=tpu", "--tpu=nowhere"], "There is no TPU nowhere"),
        (["--tpu=here"], "without --strategy=tpu"),
        (["--strategy=mirrored", "--batch_size=15"], "by 2 replicas"),
        (["--strategy=mirrored", "--jit_compile"], "leave `jit_compile` out"),
        (["--batch_size=5000"], "more than the 1347 images"),
        (["--steps=11"], "`steps` must be a multiple of log_every"),
        (["--test_every=5"], "`test_every` must be a multiple"),
        (["--steps_per_execution=4"], "a divisor of log_every"),
        (["--learning_rate=0"], "`learning_rate` must be positive"),
        (["--decay_share=0"], "`decay_share` must be positive"),
        (["--label_smoothing=2"], "`label_smoothing` must be at least 0"),
        (["--steps=0"], "`steps` must be at least 1"),
        (["--seed=-1"], "`seed` must be at least 0"),
        (["--output_dir="], "--output_dir must be given"),
    ],
)
def test_mistakes(flags, message, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    folder = tmp_path / "run"
    assert _run(folder, *flags) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error
    assert not folder.exists()


def test_damaged_images(small_net, tmp_path, capsys):
    folder = tmp_path / "pictures"
    class_folders(folder, images=6)
    (damaged,) = (folder / "train" / "class_1").glob("3.*")
    damaged.write_bytes(damaged.read_bytes()[:300])
    flags = [f"--dataset={folder}", "--image_size=8", "--optimizer=adam"]
    assert _run(tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err
    assert f"An image of {folder} is damaged, {damaged}: " in error
    assert error.count("\n") == 1
    # One to test on.
    damaged.unlink()
    damaged = folder / "validation" / "class_2" / "5.JPEG"
    damaged.write_bytes(damaged.read_bytes()[:300])
    assert _run(tmp_path / "other", *flags) == 2
    assert f"is damaged, {damaged}: " in capsys.readouterr().err


def test_other_errors_are_not_the_images():
    """Paths of our own files in TensorFlow's message tell of no image."""
    message = 'Detected at\n  File "lopt_tf/images/pipeline.py"\nNo such device'
    error = tf.errors.InvalidArgumentError(None, None, message)
    with pytest.raises(tf.errors.InvalidArgumentError):
        with image_training._undecoded_reported("digits", str):
            raise error


def test_the_program_knows_every_choice():
    def choices(flag):
        return imagenet.FLAGS[flag].parser.enum_values

    assert choices("model") == list(models.MODELS)
    assert choices("strategy") == list(distribution.STRATEGIES)
    assert choices("augmentation") == list(views.AUGMENTATIONS)
    assert choices("dtype_policy") == list(image_settings.DTYPE_POLICIES)
    fields = image_settings.Settings.__dataclass_fields__
    assert {*imagenet._NAMES, *imagenet._SETTINGS, "dtype_policy"} == set(
        fields
    )


def test_optimizers_by_name():
    make = keras_training.optimizer_by_name
    cosine = make("momentum_cosine", 0.1, 10)
    assert cosine.momentum == 0.9
    assert float(cosine.learning_rate) == pytest.approx(0.1)
    cosine.iterations.assign(5)
    assert float(cosine.learning_rate) == pytest.approx(0.05)
    assert float(make("adam", 0.3).learning_rate) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="needs the number of steps"):
        make("adam_cosine")
    late = make("adam", None, 100, 0.5)
    for step, expected in ((0, 1e-3), (50, 1e-3), (75, 5e-4), (100, 0)):
        late.iterations.assign(step)
        found = float(late.learning_rate)
        assert found == pytest.approx(expected, abs=1e-9)
    learned = make(None, None, 100, 0.25)
    assert float(learned.learning_rate) == 1
    learned.iterations.assign(100)
    assert float(learned.learning_rate) == 0
    # The same draw, with a decay or without.
    seeds = []
    for share in (None, 0.25):
        keras.utils.set_random_seed(3)
        seeds.append(make(None, None, 100, share).seed)
    assert seeds[0] == seeds[1]
    with pytest.raises(ValueError, match="no effect with adam_cosine"):
        make("adam_cosine", 0.1, 100, 0.5)


# What a TPU needs.


def test_the_train_step_has_static_shapes_and_no_host_calls(learned):
    policy = "mixed_bfloat16"
    settings = image_settings.Settings(
        optimizer=str(learned), dtype_policy=policy
    )
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    model = models.with_precise_logits(replicas_run.small_net("", 8, 10))
    keras.config.set_dtype_policy(before)
    image_training.compile_model(model, settings, jit_compile=True)
    model.optimizer.build(model.trainable_variables)
    step = tf.function(lambda x, y: model.train_step((x, y)), jit_compile=True)
    batch = tf.zeros((4, 8, 8, 3)), tf.one_hot([1, 2, 3, 4], 10)
    # Metrics make their variables in the first step.
    step(*batch)
    hlo = step.experimental_get_compiler_ir(*batch)(stage="hlo")
    assert "convolution(" in hlo and "tanh(" in hlo
    for word in ("<=", "infeed", "outfeed", "host", "send(", "recv("):
        assert word not in hlo, word


# In processes of their own.


def _check(found):
    assert found["weights"] < 1e-5 and found["loss"] < 1e-5, found
    assert found["moved"] > 0


def test_two_replicas_are_one_device(small_net, learned):
    _check(replicas_run.differences(2, str(learned)))


@pytest.mark.slow
def test_two_machines_are_one(tmp_path, learned, small_net):
    """That one is lost, and both resume: `train_images.py`."""
    flags = [*SMALL, f"--optimizer={learned}"]
    folder, alone = tmp_path / "shared", tmp_path / "alone"
    for worker in train_images.cluster(folder, *flags):
        train_images.finish(worker)
    assert imagenet.main(["", *flags, f"--output_dir={alone}"]) == 0
    assert len(metrics(folder)) == len(metrics(alone)) == 8
    assert train_images.largest_difference(folder, alone) < 1e-5


@pytest.mark.slow
def test_jax(tmp_path, learned, small_net):
    """The same program on Keras' JAX backend, on one device and on two."""
    flags = [*SMALL, f"--optimizer={learned}", "--augmentation=inception"]
    two_devices = "--xla_force_host_platform_device_count=2"
    _run_on("jax", "jax_run.py", tmp_path, *flags, XLA_FLAGS=two_devices)
    for name, replicas in (("alone", 1), ("shared", 2)):
        facts = json.loads((tmp_path / name / "facts.json").read_text())
        assert facts["replicas"] == replicas
    _check_as_on_tensorflow(tmp_path, ("alone", "shared"), *flags)


@pytest.mark.slow
def test_torch(tmp_path, learned, small_net):
    """The same program on Keras' PyTorch backend."""
    flags = [*SMALL, f"--optimizer={learned}", "--augmentation=inception"]
    folder = f"--output_dir={tmp_path}/alone"
    _run_on("torch", "small_imagenet.py", *flags, folder)
    _check_as_on_tensorflow(tmp_path, ("alone",), *flags)


def _run_on(backend, program, *arguments, **environment):
    """Runs one of the tests' programs on another backend of Keras."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    train_images.finish(
        train_images.start(
            [pathlib.Path(__file__).with_name(program), *arguments],
            KERAS_BACKEND=backend,
            **environment,
        )
    )


def _check_as_on_tensorflow(folder, names, *flags):
    """Trains there, too, and compares the metrics of the named folders."""
    assert _run(folder / "tensorflow", *flags) == 0
    expected = metrics(folder / "tensorflow")
    for name in names:
        found = metrics(folder / name)
        assert len(found) == len(expected)
        for ours, other in zip(found, expected):
            assert ours["loss"] == pytest.approx(other["loss"], abs=1e-3), name


@pytest.mark.parametrize("count", [15, 19, 25, 100])
def test_adam_reaches_its_own_loss_at_its_end(count):
    """Whatever its rows, and as noisy as minibatches are."""
    falling = 10 / np.arange(1, count + 1)

    def run(optimizer, losses, size):
        train = [
            {"step": size * (i + 1), "loss": loss, "seconds": i}
            for i, loss in enumerate(losses)
        ]
        test = [
            {
                "step": size * count,
                **dict.fromkeys(image_callbacks.METRICS, 0.5),
            }
        ]
        return comparison.Run(
            pathlib.Path("x"),
            *("net", optimizer),
            {"optimizer": optimizer, "seed": 0, "learning_rate": 1.0},
            {},
            {"train": train, "test": test},
        )

    runs = [run("adam", falling, 20), run("twin", falling, 20)]
    noise = np.random.default_rng(0).uniform(0.5, 1.5, 20 * count)
    runs.append(run("noisy", np.repeat(falling, 20) * noise, 1))
    found = {
        r["optimizer"]: r["steps_to_adam"] for r in comparison.summary(runs)
    }
    assert found["adam"] == found["twin"] == 20 * count
    # Its single steps fall below half of that.
    assert found["noisy"] > 16 * count
