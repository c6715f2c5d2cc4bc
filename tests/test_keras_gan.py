"""The task "gan" on Keras networks: both forms, data sets, errors, program."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from lopt_tf.autoloss import (
    bench,
    compiled_episodes,
    episodes,
    model_episodes,
    schedules,
    tasks,
)
from lopt_tf.autoloss.controller import ScheduleController
from problems import alternating
from problems.alternating import (
    gan_losses,
    gan_nets,
    gan_settings,
    gan_update,
    image_data,
    keras_gan,
    keras_gan_nets,
    scores,
)
from problems.alternating import judge as judge_lib
from train_scripts import autoloss

TINY = {"width": 3, "z_dim": 5, "batch_size": 8, "score_images": 30}
SHORT = {**TINY, "period": 4, "max_steps": 8}


def _prepare_mnist(folder, count=60):
    """Writes a prepared MNIST of few images, each with one bright row."""
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    splits = {}
    for split, size in (("train", count), ("test", count // 2)):
        images = rng.integers(0, 100, (size, 28, 28, 1), dtype="uint8")
        labels = np.arange(size) % 10
        images[np.arange(size), 5 + labels] = 255
        splits[split] = tf.data.Dataset.from_tensor_slices(
            {"image": images, "label": labels}
        )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="mnist",
        version="3.0.1",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        ),
        split_datasets=splits,
        data_dir=folder,
    )


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    _prepare_mnist(folder)
    return alternating.KerasGan(
        dataset="mnist",
        data_dir=str(folder),
        block=2,
        initial="he",
        **SHORT,
    )


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """Results of fewer images, which are quicker."""
    few = {"valid": 200, "test": 300}
    monkeypatch.setattr(gan_settings, "RESULT_IMAGES", few)


# Both forms

_TRANSPOSED = keras.layers.Conv2DTranspose


def _layers(network):
    return [layer for layer in network.layers if layer.trainable_variables]


def _as_keras(network, arrays):
    """Arrays of the compiled form in the shapes of a Keras network's."""
    arrays = iter([np.asarray(array) for array in arrays])
    found = []
    for layer in _layers(network):
        if isinstance(layer, keras_gan_nets.BatchScale):
            # The compiled form has the offset first.
            offset = found.pop()
            found += [next(arrays), offset]
            continue
        kernel, bias = next(arrays), next(arrays)
        if kernel.ndim == 3:
            kernel = kernel.reshape(4, 4, *kernel.shape[1:])
        if isinstance(layer, _TRANSPOSED):
            kernel = kernel.transpose(0, 1, 3, 2)
        found += [kernel, bias]
    return found


def _put(network, arrays):
    for variable, array in zip(
        network.trainable_variables, _as_keras(network, arrays)
    ):
        # A bias for each channel stands for one at each place.
        variable.assign(np.resize(array, variable.shape))


def _put_both(model, nets, params):
    for name, network in model.models.items():
        if name != "averages":
            shapes = getattr(nets, f"{name}_shapes")
            _put(network, gan_nets._split(tf.constant(params[name]), shapes))


@pytest.mark.parametrize(
    "batch_norm, loss, activation",
    [(False, "non_saturating", "leaky_relu"), (True, "wgan_gp", "tanh")],
)
def test_both_forms_have_the_same_losses_and_gradients(
    batch_norm, loss, activation, monkeypatch
):
    settings = {"batch_norm": batch_norm, "activation": activation}
    task = alternating.KerasGan(loss=loss, **settings, **TINY)
    nets = gan_nets.Nets(8, 5, 3, **settings)
    rng = np.random.default_rng(0)
    params = {
        name: vector + rng.normal(size=vector.shape).astype("f4") / 9
        for name, vector in zip(("generator", "discriminator"), nets.initial(0))
    }
    model = task.build()
    _put_both(model, nets, params)
    real, z = task.batch(None, 1, 2)
    # The places of the penalty are drawn otherwise.
    share = rng.uniform(size=[8, 1]).astype("f4")
    monkeypatch.setattr(
        keras.random,
        "uniform",
        lambda shape, seed: tf.reshape(share, shape),
    )
    pair = gan_losses.LOSSES[loss]
    with tf.GradientTape(persistent=True) as tape:
        values = {name: tf.constant(vector) for name, vector in params.items()}
        tape.watch(values)
        flat = tf.reshape(real, [8, 64])
        expected = {
            "discriminator": pair.discriminator(
                nets, values, flat, z, lambda shape: tf.reshape(share, shape)
            )[0],
            "generator": pair.generator(nets, values, tf.constant(z))[0],
        }
        found = {
            "discriminator": task.discriminator_loss(model, (real, z), True),
            "generator": task.generator_loss(model, (real, z), True),
        }
    for name in task.actions:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)
        network, shapes = getattr(model, name), getattr(nets, f"{name}_shapes")
        slopes = tape.gradient(expected[name], values[name])
        slopes = _as_keras(network, gan_nets._split(slopes, shapes))
        own = tape.gradient(found[name], network.trainable_variables)
        for one, two in zip(own, slopes):
            # Of a bias at each place, the sum over places.
            one = np.reshape(one, [-1, *two.shape]).sum(0)
            np.testing.assert_allclose(one, two, rtol=2e-3, atol=2e-5)


class Looking(schedules.Ratio):
    """A ratio that wants gradients to be measured."""

    needs = {"the test": ("gradient_magnitudes",)}


def test_both_forms_train_alike():
    """Weights, averages and magnitudes after the same updates."""
    # Without it the first layer has a bias for each place, not each channel.
    settings = {**SHORT, "batch_norm": True}
    compiled = alternating.Gan(**settings)
    state, _ = compiled.reset([7])
    first = {name: p[0].numpy() for name, p in state["params"].items()}

    @tf.function(jit_compile=True)
    def draws(number):
        rows = tf.random.stateless_uniform(
            [8],
            tf.stack([7, 2 * number + 1]),
            0,
            len(compiled.images.train),
            tf.int32,
            alg="threefry",
        )
        return rows, gan_update.normal([8, 5], 7, 2 * number)

    class Same(alternating.KerasGan):
        def start(self, model, setting, seed):
            super().start(model, setting, seed)
            _put_both(model, compiled.nets, first)

        def batch(self, setting, seed, number):
            rows, z = draws(tf.constant(number))
            return self.images.train[rows.numpy()], z.numpy()

    ratio = Looking([(2, 1)])
    one = compiled_episodes.episodes_of(compiled, ratio, 8)
    two = compiled_episodes.episodes_of(Same(**settings), ratio, 8)
    ends = [each.advance(each.begin([7]))[0] for each in (one, two)]
    state, model = ends[0].state, two.model
    for name in compiled.actions:
        shapes = getattr(compiled.nets, f"{name}_shapes")
        network = getattr(model, name)
        expected = _as_keras(
            network, gan_nets._split(state["params"][name][0], shapes)
        )
        for variable, array in zip(network.trainable_variables, expected):
            np.testing.assert_allclose(variable, array, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        model.averages.values, state["averages"][0], rtol=1e-3
    )
    np.testing.assert_allclose(
        model.schedule_state.magnitudes, state["magnitudes"], rtol=1e-3
    )
    rates = [float(o.learning_rate) for o in model.optimizers.values()]
    np.testing.assert_allclose(rates, state["rates"][0])


def test_networks_have_the_published_shapes():
    for shape, expected in (
        ((28, 28, 1), [(7, 128), (14, 64), (28, 1)]),
        ((32, 32, 3), [(4, 256), (8, 128), (16, 64), (32, 3)]),
    ):
        made = keras_gan_nets.generator(shape, 128, 64, 5, True)
        sizes = [
            tuple(layer.output.shape[2:])
            for layer in made.layers
            if isinstance(layer, (keras.layers.Reshape, _TRANSPOSED))
        ]
        assert sizes == expected
        judge = keras_gan_nets.discriminator(shape, 64, 5, "leaky_relu")
        kernels = [layer.kernel.shape for layer in _layers(judge)]
        channels = [shape[2]] + [64 * 2**i for i in range(len(expected) - 1)]
        assert kernels[:-1] == [
            (5, 5, *pair) for pair in zip(channels, channels[1:])
        ]
        for initial, kernel in (("normal", 0.02), ("he", None)):
            keras_gan_nets.begin(made, [1, 2], initial)
            layer = _layers(made)[0]
            wanted = kernel or np.sqrt(2 / 128)
            assert np.std(layer.kernel) == pytest.approx(wanted, rel=0.05)
            layer = _layers(made)[2]
            wanted = kernel or np.sqrt(2 / (25 / 4 * layer.kernel.shape[-1]))
            assert np.std(layer.kernel) == pytest.approx(wanted, rel=0.05)
    assert [keras_gan_nets.depth(n) for n in (8, 16, 64)] == [2, 2, 4]
    with pytest.raises(ValueError, match="30 pixels.*halved 3 times"):
        keras_gan_nets.depth(30)


def test_averages_start_at_the_first_value():
    averages = keras_gan_nets.Averages()
    averages.take(tf.constant([1.0, 2.0, 9.0]), of_generator=True)
    averages.take(tf.constant([2.0, 2.0, 5.0]), of_generator=False)
    np.testing.assert_allclose(averages.values, [1.1, 2.0, 5.0])
    averages.take(tf.constant([1.1, 3.0, 9.0]), of_generator=True)
    np.testing.assert_allclose(averages.values, [1.1, 2.1, 5.0], rtol=1e-6)


# Episodes


def _from_digits():
    """A controller as a training on digits leaves it, but for its weights."""
    recipe = tasks.TASKS["gan"].recipe
    config = {"num_actions": 2, "hidden": 0, "seed": 1}
    return ScheduleController(
        "gan", ("discriminator", "generator"), recipe.features, config
    )


def test_a_controller_of_digits_plays_mnist(mnist, tmp_path):
    mnist.keep_beside(tmp_path)
    assert mnist.images.train.dtype == np.uint8
    played = compiled_episodes.episodes_of(mnist, _from_digits().schedule(), 3)
    position, first = played.advance(played.begin([1, 2]))
    assert [path.name for path in tmp_path.iterdir()] == [
        "mnist_classifier.keras"
    ]
    # Before the first action: nothing is measured, the score is 1.
    names = list(tasks.TASKS["gan"].recipe.features)
    seen = dict(zip(names, first.features[0, 0]))
    assert seen["centred_generator_loss"] == pytest.approx(-2.6)
    assert seen["centred_score"] == -2
    later = dict(zip(names, first.features[2, 0]))
    assert later["centred_generator_loss"] > -2
    assert later["centred_log_ratio"] != 1.2
    # It resumes exactly, in the middle of an episode.
    again = played.load(*played.save(position))
    ends = []
    for number, each in enumerate((position, again)):
        while not played.finished(each):
            each, records = played.advance(each)
            # To look at what is made changes nothing.
            assert number or played.samples(each, 1).shape[:2] == (2, 1)
        ends.append((*records, played.result(each, "test")))
        details = played.details(each, "test")
        ends[-1] += tuple(details.values())
    for one, two in zip(*ends):
        np.testing.assert_array_equal(one, two)
    assert set(details) >= {
        *("mean score", "last score", "reaches 5", "updates to 5"),
        *("Frechet distance", "coverage"),
    }
    (curve, other) = played.curves(each)
    # A block of the generator's counts as so many updates.
    assert len(curve) == 2 and 4 <= curve[0][0] <= 8
    scored = [score for _, score in curve]
    assert details["mean score"][0] == pytest.approx(np.mean(scored))
    assert details["last score"][0] == pytest.approx(scored[-1])
    assert np.isnan(details["updates to 5"]).all()
    assert played.samples(each, 3).shape == (2, 3, 28, 28)
    # The untrained generator is not kept, whatever its score.
    for episode, found in zip(each.state, (curve, other)):
        assert episode.best == max(score for _, score in found) >= 0.99
    # Not the score that was the best of the curve.
    assert played.result(each, "valid")[0] not in np.float32(scored)
    assert mnist.groups([1]) and played.model.averages.values.shape == [3]


def test_scores_are_made_in_parts(mnist, monkeypatch):
    model = mnist.build()
    model.restart(3, 8)
    mnist.start(model, None, 3)
    assert mnist.result(model, "test") == mnist.result(model, "test")
    whole = mnist.samples_of(model, 60)
    monkeypatch.setattr(keras_gan, "_AT_ONCE", 25)
    np.testing.assert_allclose(mnist.samples_of(model, 60), whole, atol=1e-6)


@pytest.mark.slow
def test_digits_on_keras_networks_learn():
    """1:1 reaches what the compiled form does, 5.4 +- 0.6 after 1,000."""
    task = alternating.KerasGan(
        balance=1.0, learning_rate=1e-3, max_steps=900, period=450
    )
    played = compiled_episodes.episodes_of(task, schedules.Ratio([(1, 1)]))
    position, _ = episodes.play(played, [1])
    assert played.details(position)["last score"][0] > 4


# Scores


def test_coverage_against_a_loop():
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=[40, 3]), rng.normal(0.5, 1, size=[30, 3])
    count = 0
    for i, x in enumerate(real):
        own = sorted(np.linalg.norm(np.delete(real, i, 0) - x, axis=1))
        count += min(np.linalg.norm(made - x, axis=1)) <= own[4]
    found = scores.coverage(made, real)
    assert 0 < found < 1 and found == pytest.approx(count / 40)
    assert scores.coverage(real, real) == 1
    assert scores.coverage(made + 50, real) == 0
    with pytest.raises(ValueError, match="7 real images"):
        scores.coverage(made, real[:6])


def test_noise_covers_nothing():
    rows = judge_lib.sanity_rows(judge_lib.digits_judge(), image_data.digits())
    found = {row["images"]: row["coverage"] for row in rows}
    assert found["real"] == 1 and found["held out"] > 0.6
    for name in ("noise", "pixels shuffled"):
        assert found[name] < 0.05, found
    assert found["one class"] < 0.15


# Data


def _write_images(folder, size=8, count=6, channels=1, of=("a", "b")):
    rng = np.random.default_rng(0)
    for name in of:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, [size, size, channels], dtype="uint8")
            data = tf.io.encode_png(pixels)
            if i % 2 and channels == 3:
                data = tf.io.encode_jpeg(pixels, quality=100)
            kind = "jpg" if i % 2 and channels == 3 else "png"
            tf.io.write_file(str(folder / name / f"{i}.{kind}"), data)
    return folder


def test_folders_of_images_are_read(tmp_path):
    folder = _write_images(tmp_path / "gray")
    images = image_data.read(str(folder))
    assert images.train.shape == (9, 8, 8, 1) and len(images.held_out) == 3
    assert images.train.dtype == np.uint8
    labels = [*images.train_labels, *images.held_out_labels]
    assert sorted(labels) == 6 * [0] + 6 * [1]
    first = np.concatenate([images.train, images.held_out])[:, 0, 0, 0]
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 255, [8, 8, 1], dtype="uint8") for _ in range(12)]
    assert sorted(first) == sorted(x[0, 0, 0] for x in drawn)
    colours = _write_images(tmp_path / "colours", 40, 12, 3, ["only"])
    images = image_data.read(str(colours), image_size=16)
    assert images.train.shape == (9, 16, 16, 3)
    assert images.train_labels is None
    scaled = image_data.scaled(np.uint8([[0, 255]]))
    np.testing.assert_allclose(scaled, [[-1, 1]])


def test_files_of_images_are_read(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, [20, 8, 8, 3], dtype="uint8")
    labels = np.arange(20)[:, None] % 3
    whole = {"x_train": pixels, "x_test": pixels[:10]}
    whole |= {"y_train": labels, "y_test": labels[:10]}
    np.savez(tmp_path / "cifar10.npz", **whole)
    images = image_data.read("cifar10", str(tmp_path))
    assert images.held_out.shape == (10, 8, 8, 3)
    np.testing.assert_array_equal(images.train_labels, labels[:, 0])
    np.savez(tmp_path / "mine.npz", images=pixels / 255, labels=labels)
    images = image_data.read(str(tmp_path / "mine.npz"))
    assert images.train.dtype == np.float32
    np.testing.assert_allclose(images.train, pixels[:16] / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(images.held_out_labels, labels[16:, 0])


def _classifier(path, shape, scale):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input(shape), layers.Flatten()]
        + [layers.Dense(6, "relu"), layers.Dense(4, "relu")]
    )
    model.save(path)
    return model


def test_colours_are_judged_in_their_range(tmp_path):
    model = _classifier(tmp_path / "c.h5", [16, 16, 3], 255)
    folder = _write_images(tmp_path / "colours", 16, 12, 3)
    task = tasks.TASKS["gan"].task(
        dataset=str(folder),
        classifier_path=str(tmp_path / "c.h5"),
        classifier_range=[0.0, 255.0],
        batch_norm=False,
        **SHORT,
    )
    assert isinstance(task, alternating.KerasGan)
    pixels = task.images.train
    found, _ = task.judge.told(pixels)
    expected = tf.nn.softmax(model(np.float32(pixels)))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    played = compiled_episodes.episodes_of(task, schedules.Ratio([(1, 1)]))
    position, _ = episodes.play(played, [1])
    assert np.isfinite(played.result(position, "test")).all()
    assert played.samples(position, 2).shape == (1, 2, 16, 16, 3)
    assert task.sanity_rows()[-1]["images"] == "one class"


def test_a_task_tells_files_with_other_contents_apart(tmp_path):
    folder = _write_images(tmp_path / "images", 16, 12, 3)
    path = tmp_path / "c.keras"
    model = _classifier(path, [16, 16, 3], 255)

    def digest():
        return (
            tasks.TASKS["gan"]
            .task(dataset=str(folder), classifier_path=str(path))
            .data_digest
        )

    found = [digest()]
    assert digest() == found[0]
    (folder / "a" / "0.png").write_bytes((folder / "b" / "0.png").read_bytes())
    found.append(digest())
    model.set_weights([2 * x for x in model.get_weights()])
    model.save(path)
    found.append(digest())
    assert len({*found}) == 3


def test_a_classifier_must_be_one_that_scores_can_be_made_of(tmp_path):
    images = np.random.default_rng(0).uniform(-1, 1, [20, 8, 8, 1])
    images = np.float32(images)

    def judged(*last, outputs="logits"):
        keras.utils.set_random_seed(0)
        layers = [keras.Input([8, 8, 1]), keras.layers.Flatten(), *last]
        made = judge_lib.Judge(keras.Sequential(layers), outputs=outputs)
        made.check_fits(images)

    dense = keras.layers.Dense
    judged(dense(5, "relu"), dense(3))
    sigmoids = dense(5, "relu"), dense(3, "sigmoid")
    for outputs in ("logits", "probabilities"):
        with pytest.raises(ValueError, match="a sigmoid for each class"):
            judged(*sigmoids, outputs=outputs)
    with pytest.raises(ValueError, match="two classes at least"):
        judged(dense(5), dense(1, "sigmoid"))
    with pytest.raises(ValueError, match="two classes at least"):
        judged(keras.layers.Reshape([8, 8]), dense(3))
    with pytest.raises(ValueError, match="are not finite"):
        judged(dense(5), dense(3, bias_initializer=_nan))
    wide = keras.Sequential([keras.Input([8, 8, 1]), keras.layers.Flatten()])
    wide.add(dense(5000))
    wide.add(dense(3))
    wide = judge_lib.Judge(wide)
    wide.check_fits(images)
    with pytest.raises(ValueError, match="5,000 numbers.*classifier_layer"):
        judge_lib.sanity_rows(wide, image_data.Images(images, images))
    for name in ("classifier_path", "classifier_layer"):
        with pytest.raises(ValueError, match=f"`{name}` must be a text"):
            tasks.TASKS["gan"].task(**{name: 2024})


def _nan(shape, dtype=None):
    return np.full(shape, np.nan, "float32")


def test_what_has_diverged_has_no_score_and_is_not_kept():
    """It counts as 0: a mean over starts would leave out what is NaN."""
    task = tasks.TASKS["gan"].task(**SHORT)
    state, _ = task.reset([1, 2])
    first = state["params"]["generator"]
    # The second of two.
    spoilt = first * tf.constant([[1.0], [np.nan]])
    state["params"] = {**state["params"], "generator": spoilt}
    step = tf.function(task.step, jit_compile=True)
    for _ in range(task.max_steps):
        state, _ = step(state, tf.one_hot([0, 0], 2))
    details = task.details(state, "test")
    assert details["mean score"][1] == details["last score"][1] == 0.0
    assert details["last score"][0] > 1.0
    _, told = step(state, tf.one_hot([0, 0], 2))
    assert told["score"][1] == 1.0
    np.testing.assert_array_equal(state["best_params"][1], first[1])
    assert np.isfinite(task.result(state, "test")).all()
    task = tasks.TASKS["gan"].task(form="keras", **SHORT)
    played = compiled_episodes.episodes_of(task, schedules.Ratio([(1, 0)]))
    position = played.begin([1])
    values = [np.nan * x for x in played.model.generator.get_weights()]
    played.model.generator.set_weights(values)
    (episode,) = position.state
    spoilt = [
        tf.identity(v.value) for v in model_episodes._variables(played.model)
    ]
    position = position._replace(state=[episode._replace(values=spoilt)])
    while not played.finished(position):
        position, _ = played.advance(position)
    assert played.details(position, "test")["mean score"] == 0.0
    assert position.state[0].best == 0.0
    assert played.result(position, "test") > 1.0


def test_the_form_follows_the_data_set(mnist):
    entry = tasks.TASKS["gan"]
    assert isinstance(entry.task(**TINY), alternating.Gan)
    task = entry.task(form="keras")
    assert isinstance(task, alternating.KerasGan)
    assert (task.width, task.kernel, task.initial) == (8, 4, "he")
    published = tasks.TASKS["published_gan"]
    task = published.task(dataset="mnist", data_dir=mnist.data_dir)
    assert (task.width, task.z_dim, task.batch_size) == (64, 128, 128)
    assert (task.block, task.kernel, task.balance) == (4, 5, 1.0)
    assert task.learning_rate == 2e-4 and not task.batch_norm
    assert published.task(**task.get_config()).get_config() == (
        task.get_config()
    )
    with pytest.raises(ValueError, match="Unknown form 'both'.*keras"):
        entry.task(form="both")
    with pytest.raises(ValueError, match="`block` must be a positive"):
        entry.task(form="keras", block=0)
    with pytest.raises(ValueError, match="Unknown initial 'ones'"):
        entry.task(form="keras", initial="ones")


def test_mistakes_are_one_line(tmp_path, capfd):
    good = _classifier(tmp_path / "good.keras", [8, 8, 1], 1)
    good.save(tmp_path / "good.h5")
    _classifier(tmp_path / "colour.keras", [8, 8, 3], 1)
    for name in ("keras", "h5"):
        whole = (tmp_path / f"good.{name}").read_bytes()
        (tmp_path / f"bad.{name}").write_bytes(whole[: len(whole) // 2])
    folder = _write_images(tmp_path / "gray")
    colours = _write_images(tmp_path / "colours", 8, 6, 3)
    few = _write_images(tmp_path / "few", count=2)
    uneven = _write_images(tmp_path / "uneven")
    _write_images(uneven, 12, 1, of=["c"])
    broken = _write_images(tmp_path / "broken")
    (broken / "a" / "0.png").write_bytes(b"\x89PNG, or not")
    odd = _write_images(tmp_path / "odd", 10)
    wrong = {
        "bright": np.full([12, 8, 8], 255.0),
        "narrow": np.zeros([12, 8, 4]),
        "four": np.zeros([12, 8, 8, 4], "uint8"),
        "large": np.zeros([12, 32, 32], "uint8"),
    }
    np.savez(tmp_path / "keras.npz", x_train=wrong["four"])
    for name, array in wrong.items():
        np.savez(tmp_path / f"{name}.npz", images=array)
    own = f"--set=classifier_path={tmp_path}/good.keras"
    cases = [
        (["mnist", f"--data_dir={tmp_path}"], "tfds build mnist"),
        (["mnist"], "not prepared"),
        (["cifar10", f"--data_dir={tmp_path}", own], "tfds build cifar10"),
        (["digits", f"--data_dir={tmp_path}", "--set=form=keras"], "no effect"),
        ([folder, own, f"--data_dir={tmp_path}"], "`data_dir` has no effect"),
        (["digits", "--set=form=keras", "--set=image_size=8"], "no effect"),
        ([tmp_path / "gone", own], "There is no data set"),
        ([folder], "need a classifier"),
        ([few, own], "at least 10 images"),
        ([uneven, own], "image_size"),
        ([broken, own], "0.png is no image, or damaged"),
        ([odd, own], "cannot be halved 2 times"),
        ([colours, own], "of 1 channels; these have 3"),
        ([tmp_path / "bright.npz", own], "values in 0..1, or be bytes"),
        ([tmp_path / "narrow.npz", own], r"Received: (12, 8, 4, 1)"),
        ([tmp_path / "four.npz", own, "--set=form=keras"], "1 or 3 channels"),
        ([tmp_path / "large.npz", own], "up to 28. Received: (12, 32, 32)"),
        ([tmp_path / "keras.npz", own], "Others are for form='keras'"),
        (["digits", "--set=dataset=mnist"], "dataset is given twice"),
        ([folder, own.replace("good", "bad")], "is damaged"),
        ([folder, f"--set=classifier_path={tmp_path}/bad.h5"], "is damaged"),
        ([folder, own.replace("good", "none")], "There is no classifier"),
    ]
    for (dataset, *more), message in cases:
        arguments = ["--task=gan", "--mode=baseline", f"--dataset={dataset}"]
        arguments += [f"--output_dir={tmp_path}/run", "--compile_cache="]
        assert autoloss.main(["autoloss", *arguments, *more]) == 2
        lines = capfd.readouterr().err.strip().splitlines()
        lines = [line for line in lines if line.startswith("error: ")]
        assert len(lines) == 1 and message in lines[0], (lines, message)


# Program


def test_a_transfer_leaves_out_what_has_no_data(tmp_path):
    said = []
    runs = bench.Bench(tmp_path, 1, 1, False, said.append)
    entry = dataclasses.replace(tasks.TASKS["gan"], transfer={})
    with pytest.raises(ValueError, match="no task with data"):
        runs.transfer(entry, _from_digits(), data={"data_dir": str(tmp_path)})
    assert len(said) == 1
    assert "dataset=mnist" in said[0] and "tfds build mnist" in said[0]
    regression = tasks.TASKS["regression"]
    with pytest.raises(ValueError, match="data_dir has no effect"):
        runs.transfer(regression, _from_digits(), data={"data_dir": "x"})


@pytest.mark.slow
def test_the_program_plays_mnist(tmp_path):
    _prepare_mnist(tmp_path / "data")
    _from_digits().save(tmp_path / "digits.npz")
    common = ["--task=gan", "--dataset=mnist", "--compile_cache="]
    common += [f"--data_dir={tmp_path}/data", f"--output_dir={tmp_path}/run"]
    common += [f"--set={name}={value}" for name, value in SHORT.items()]
    test = ["--mode=test", f"--controller={tmp_path}/digits.npz"]
    test += ["--starts=2", "--tuning_starts=1", "--nofine"]
    test += ["--baselines=1:1,best ratio"]
    assert autoloss.main(["autoloss", *common, *test]) == 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"curves.csv", "curves.png", "samples.png", "scores.csv"}
    summary = (tmp_path / "run" / "test_summary.csv").read_text()
    assert {line.split(",")[0] for line in summary.splitlines()[1:]} == {
        *("controller", "1:1", "best ratio")
    }
    test[-1] = "--baselines=2:3"
    assert autoloss.main(["autoloss", *common, *test]) == 2
