"""Scheduled losses of Keras models: training, data, files, replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import lopt_tf
from lopt_tf import autoloss
from lopt_tf.autoloss import metadata, schedules
from lopt_tf.autoloss.policy import Policy

# A user's GAN and a classifier with an auxiliary head: ordinary Keras.

POINTS = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
LABELS = (POINTS[:, :1] > POINTS[:, 1:]).astype("float32")
IMAGES = tf.data.Dataset.from_tensor_slices(POINTS).batch(8)
PAIRS = tf.data.Dataset.from_tensor_slices((POINTS, LABELS)).batch(8)


def _net(inputs, outputs, name, dropout=0.0):
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            keras.layers.Dense(4, "tanh"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(outputs),
        ],
        name=name,
    )


def _fakes(model, batch, training):
    shape = (ops.shape(batch)[0], 3)
    noise = keras.random.normal(shape, seed=model.seed_generator)
    return model.generator(noise, training=training)


@keras.saving.register_keras_serializable("tests")
def discriminator_loss(model, batch, training):
    real = model.discriminator(batch, training=training)
    fakes = _fakes(model, batch, training)
    fake = model.discriminator(fakes, training=training)
    return ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))


@keras.saving.register_keras_serializable("tests")
def generator_loss(model, batch, training):
    fakes = _fakes(model, batch, training)
    return ops.mean(ops.softplus(-model.discriminator(fakes)))


def _gan(updates=1, dropout=0.0):
    keras.utils.set_random_seed(1)
    generator = _net(3, 2, "g")
    discriminator = _net(2, 1, "d", dropout)
    return autoloss.AlternatingModel(
        {
            "d": autoloss.Objective(discriminator_loss, discriminator),
            "g": autoloss.Objective(generator_loss, generator, updates),
        },
        generator=generator,
        discriminator=discriminator,
    )


@keras.saving.register_keras_serializable("tests")
def class_loss(model, batch, training):
    points, labels = batch
    logits = model.classifier(points, training=training)["class"]
    return ops.mean(ops.softplus(logits) - labels * logits)


@keras.saving.register_keras_serializable("tests")
def auxiliary_loss(model, batch, training):
    points, _ = batch
    copies = model.classifier(points, training=training)["copy"]
    return ops.mean(ops.square(copies - points))


def _two_headed():
    """One body, two heads; each loss updates the body and its head."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((2,))
    body = keras.layers.Dense(4, "tanh", name="body")
    head = keras.layers.Dense(1, name="class")
    copy = keras.layers.Dense(2, name="copy")
    hidden = body(inputs)
    outputs = {"class": head(hidden), "copy": copy(hidden)}
    classifier = keras.Model(inputs, outputs)
    return autoloss.AlternatingModel(
        {
            "class": autoloss.Objective(class_loss, [body, head]),
            "copy": autoloss.Objective(
                auxiliary_loss, [body.kernel, body.bias, copy]
            ),
        },
        classifier=classifier,
    )


def _values(variables):
    return [np.array(v.value) for v in variables]


def _assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)


def _state(model):
    """Everything that training changes."""
    found = _values(model.variables)
    for optimizer in model.optimizers.values():
        found += _values(optimizer.variables)
    return found


# Training


def test_a_schedule_trains_a_gan_as_a_loop_by_hand():
    model = _gan()
    model.compile(keras.optimizers.SGD(0.1), schedule="1:3")
    twin = _gan()
    history = model.fit(IMAGES, epochs=2, verbose=0).history
    losses = {"d": [], "g": []}
    for epoch in range(2):
        for step, batch in enumerate(IMAGES):
            name = "d" if step % 4 == 0 else "g"
            objective = twin.objectives[name]
            with tf.GradientTape() as tape:
                loss = objective.loss(twin, batch, True)
            variables = objective.variables.trainable_variables
            for v, g in zip(variables, tape.gradient(loss, variables)):
                v.assign(v - 0.1 * g)
            losses[name].append(float(loss))
    for a, b in zip(_values(model.weights), _values(twin.weights)):
        if a.dtype == "float32" and a.ndim == 2 and a.shape[0] > 1:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for name, each in losses.items():
        means = np.mean(np.reshape(each, [2, -1]), axis=1)
        np.testing.assert_allclose(history[name], means, rtol=1e-5)
    assert history["share/d"] == [0.25] * 2
    assert history["share/g"] == [0.75] * 2


def test_an_auxiliary_head_shares_the_body():
    model = _two_headed()
    model.compile({"class": "adam", "copy": "sgd"}, schedule="2:1")
    history = model.fit(
        PAIRS, epochs=3, verbose=0, validation_data=PAIRS
    ).history
    assert history["val_class"][-1] < history["val_class"][0]
    assert history["val_copy"][-1] < history["val_copy"][0]
    assert model.evaluate(PAIRS, verbose=0) == pytest.approx(
        [history["val_class"][-1], history["val_copy"][-1]]
    )
    # A whole data set at once has the same mean.
    whole = next(iter(PAIRS.unbatch().batch(64)))
    found = model.evaluate(PAIRS.unbatch().batch(24), verbose=0)
    expected = [f(model, whole, False) for f in (class_loss, auxiliary_loss)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # A model of one model is called as that one.
    np.testing.assert_array_equal(
        model(POINTS)["class"], model.classifier(POINTS)["class"]
    )


def test_updates_of_an_objective_take_a_batch_each():
    model, twin = _gan(updates=3), _gan()
    model.compile(keras.optimizers.SGD(0.1), schedule="0:1")
    twin.compile(keras.optimizers.SGD(0.1), schedule="0:1")
    model.fit(IMAGES.repeat(), steps_per_epoch=4, verbose=0)
    twin.fit(IMAGES.repeat(), steps_per_epoch=12, verbose=0)
    assert model.batches_taken == twin.batches_taken == {"d": 0, "g": 12}
    _assert_equal(
        _values(model.generator.weights), _values(twin.generator.weights)
    )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_several_steps_in_a_call_are_the_same_steps(jit_compile):
    found = []
    for steps in (1, 3):
        model = _gan(dropout=0.5)
        model.compile(
            keras.optimizers.Adam(0.01),
            schedule=schedules.Coin([[0.5, 0.5]]),
            steps_per_execution=steps,
            jit_compile=jit_compile,
        )
        history = model.fit(IMAGES, epochs=2, verbose=0).history
        found.append((_state(model), history))
    np.testing.assert_equal(found[0][1], found[1][1])
    _assert_equal(found[0][0], found[1][0])


def test_eager_steps_are_the_compiled_ones():
    found = []
    for eagerly in (False, True):
        model = _gan()
        model.compile(keras.optimizers.SGD(0.1), "1:2", run_eagerly=eagerly)
        model.fit(IMAGES, verbose=0)
        found.append(_values(model.generator.weights))
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# Optimizers


def test_who_rests_keeps_variables_and_optimizer():
    """Bit for bit, with one optimizer for all as with one for each."""
    for optimizer in (
        keras.optimizers.Adam(0.01),
        {"d": keras.optimizers.Adam(0.01), "g": keras.optimizers.Adam(0.01)},
    ):
        model = _gan()
        model.compile(optimizer, schedule="1:1")
        model.fit(IMAGES, verbose=0)
        resting = model.discriminator.trainable_variables
        own = _resting(model.optimizers["d"], resting)
        before = _values(resting), _values(own)
        generator = _values(model.generator.weights)
        model.take(1, [next(iter(IMAGES))])
        _assert_equal(before[0], _values(resting))
        _assert_equal(before[1], _values(own))
        assert not np.array_equal(
            generator[0], _values(model.generator.weights)[0]
        )


def _resting(optimizer, variables):
    """An optimizer's state of some variables."""
    places = [optimizer._get_variable_index(v) for v in variables]
    return [
        moments[i]
        for moments in (optimizer._momentums, optimizer._velocities)
        for i in places
    ]


def test_learned_optimizer_in_a_scheduled_gan(tmp_path):
    """It trains the generator, rests bit for bit, and resumes exactly."""
    model = _gan()
    learned = lopt_tf.HierarchicalRNN.from_pretrained(seed=1)
    model.compile({"d": "adam", "g": learned}, schedule="1:1")
    model.fit(IMAGES, verbose=0)
    before = _values(learned.variables)
    model.take(0, [next(iter(IMAGES))])
    _assert_equal(before, _values(learned.variables))
    model.save(tmp_path / "gan.keras")
    again = keras.models.load_model(tmp_path / "gan.keras")
    assert isinstance(again.optimizers["g"], lopt_tf.HierarchicalRNN)
    for each in (model, again):
        each.fit(IMAGES, verbose=0)
    _assert_equal(_state(model), _state(again))
    assert int(learned.iterations) == 8


def test_optimizers_are_finished_at_the_end_of_fit():
    for optimizer in (
        keras.optimizers.SGD(0.1, use_ema=True),
        {
            "d": keras.optimizers.SGD(0.1, use_ema=True),
            "g": keras.optimizers.SGD(0.1, use_ema=True),
        },
    ):
        model = _gan()
        model.compile(optimizer)
        model.fit(IMAGES, verbose=0)
        optimizer = model.optimizers["g"]
        averages = optimizer._model_variables_moving_average
        first = model.generator.trainable_variables[0]
        place = optimizer._get_variable_index(first)
        np.testing.assert_array_equal(first, averages[place])
