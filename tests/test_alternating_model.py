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


def _batches(arrays):
    options = tf.data.Options()
    # Autotuning can hold up the end of an iterator for seconds.
    options.autotune.enabled = False
    data = tf.data.Dataset.from_tensor_slices(arrays)
    return data.batch(8).with_options(options)


IMAGES, PAIRS = _batches(POINTS), _batches((POINTS, LABELS))


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
    logits = ops.cast(logits, "float32")
    return ops.mean(ops.softplus(logits) - labels * logits)


@keras.saving.register_keras_serializable("tests")
def auxiliary_loss(model, batch, training):
    points, _ = batch
    copies = model.classifier(points, training=training)["copy"]
    return ops.mean(ops.square(ops.cast(copies, "float32") - points))


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
    """Everything that training changes, but what the present fit took."""
    taken = model.schedule_state.taken
    found = _values([v for v in model.variables if v is not taken])
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
    for _epoch in range(2):
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


def test_one_learned_optimizer_lets_variables_rest():
    """State of all variables together moves, that of who rests does not."""
    model = _gan()
    learned = lopt_tf.HierarchicalRNN.from_pretrained(seed=1)
    model.compile(learned, schedule="1:1")
    model.fit(IMAGES, verbose=0)
    sizes = [v.shape.num_elements() for v in learned._trainable_variables]
    first = sum(sizes[: len(model.discriminator.trainable_variables)])
    before = {n: np.array(v) for n, v in learned._state_variables.items()}
    model.take(0, [next(iter(IMAGES))])
    for name, old in before.items():
        new = np.array(learned._state_variables[name])
        if old.shape[-1] == sum(sizes):
            np.testing.assert_array_equal(new[:, first:], old[:, first:])
            assert not np.array_equal(new[:, :first], old[:, :first]), name


def test_callbacks_know_the_learned_optimizers_of_objectives():
    model = _gan()
    first, second = (lopt_tf.LearnedAdam(seed=seed) for seed in (1, 2))
    callback = lopt_tf.callbacks.TrueParameters()
    for optimizer, expected in (
        (first, [first]),
        ({"d": first, "g": first}, [first]),
        ({"d": first, "g": second}, [first, second]),
        ({"d": "sgd", "g": second}, [second]),
    ):
        model.compile(optimizer)
        callback.set_model(model)
        assert callback._learned_optimizers() == expected


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


# Stopping and resuming

_LOOKS = ("log_magnitudes", "average_first", "last_action", "progress")


def _policy_schedule(names=_LOOKS):
    policy = Policy(2, hidden=3, seed=3)
    policy.build([None, len(names)])
    return schedules.PolicySchedule(policy, metadata.Features(names))


class _StopAfter(keras.callbacks.Callback):
    """Ends fit after some steps, as a user who interrupts it."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def _scheduled():
    model = _gan(dropout=0.3)
    schedule = _policy_schedule()
    model.compile(keras.optimizers.Adam(0.02), schedule, measure_every=3)
    return model


def test_a_saved_training_resumes_exactly(tmp_path):
    """Weights, optimizer, policy, metadata, random numbers: all of it."""
    undisturbed, stopped = _scheduled(), _scheduled()
    options = {"steps_per_epoch": 10, "verbose": 0}
    undisturbed.fit(IMAGES.repeat(), epochs=2, **options)
    with pytest.raises(KeyboardInterrupt):
        callbacks = [_StopAfter(10)]
        stopped.fit(IMAGES.repeat(), epochs=2, callbacks=callbacks, **options)
    stopped.save(tmp_path / "stopped.keras")
    resumed = keras.models.load_model(tmp_path / "stopped.keras")
    left = IMAGES.repeat().skip(sum(resumed.batches_taken.values()))
    resumed.fit(left, epochs=2, initial_epoch=1, **options)
    _assert_equal(_state(undisturbed), _state(resumed))
    found = resumed.schedule_state.metadata()
    for name, value in undisturbed.schedule_state.metadata().items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)


def test_backup_and_restore_resumes_exactly(tmp_path):
    """Each objective's data continue where they were."""
    options = {"epochs": 3, "steps_per_epoch": 5, "verbose": 0}
    data = {"d": IMAGES.repeat(), "g": IMAGES.take(3).repeat()}
    undisturbed, interrupted, restored = _scheduled(), _scheduled(), None
    undisturbed.fit(data, **options)

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(KeyboardInterrupt):
        callbacks = [backup(), _StopAfter(12)]
        interrupted.fit(data, callbacks=callbacks, **options)
    restored = _scheduled()
    restored.fit(data, callbacks=[backup()], **options)
    _assert_equal(_state(undisturbed), _state(restored))
    assert sum(restored.batches_taken.values()) == 15


def test_what_cannot_be_saved_says_so(tmp_path):
    def unregistered(model, batch, training):
        return generator_loss(model, batch, training)

    model = _gan()
    generator, discriminator = model.generator, model.discriminator
    model = autoloss.AlternatingModel(
        {
            "d": autoloss.Objective(discriminator_loss, discriminator),
            "g": autoloss.Objective(unregistered, generator),
        },
        generator=generator,
        discriminator=discriminator,
    )
    with pytest.raises(ValueError, match="'g' cannot be saved.*register"):
        model.save(tmp_path / "model.keras")
    model.compile()
    model.save_weights(tmp_path / "model.weights.h5")


def test_a_feedback_rule_looks_at_one_objective_and_is_saved(tmp_path):
    """The generator rests unless its loss is above the level."""
    for level, expected in (
        (-50.0, {"d": 0, "g": 8}),
        (50.0, {"d": 8, "g": 0}),
    ):
        model = _gan()
        # The chance of the first objective is 0 or 1.
        rule = schedules.Feedback([[9.0, level]], "losses", action=1)
        model.compile("sgd", rule)
        model.fit(IMAGES.repeat(), steps_per_epoch=8, verbose=0)
        assert model.batches_taken == expected
    model.save(tmp_path / "gan.keras")
    again = keras.models.load_model(tmp_path / "gan.keras")
    assert (again.schedule.value, again.schedule.action) == ("losses", 1)
    for each in (model, again):
        each.fit(IMAGES.repeat(), steps_per_epoch=8, verbose=0)
    _assert_equal(_state(model), _state(again))
    model.compile("sgd", schedules.Feedback([[9.0, 1.0]], "losses"))
    with pytest.raises(ValueError, match="with action=0 or 1"):
        model.fit(IMAGES.repeat(), steps_per_epoch=8, verbose=0)
    with pytest.raises(ValueError, match="Received: action=2"):
        schedules.Feedback([[9.0, 1.0]], "losses", action=2)


def test_files_keep_parts_of_models(tmp_path):
    model = _two_headed()
    model.compile({"class": "adam", "copy": "sgd"}, schedule="2:1")
    model.fit(PAIRS, verbose=0)
    model.save(tmp_path / "heads.keras")
    again = keras.models.load_model(tmp_path / "heads.keras")
    body = again.classifier.get_layer("body")
    parts = again.objectives["copy"].parts()
    assert parts[0] is body.kernel and parts[1] is body.bias
    assert parts[2] is again.classifier.get_layer("copy")
    for each in (model, again):
        each.fit(PAIRS, verbose=0)
    _assert_equal(_state(model), _state(again))


def test_layers_of_two_models_are_not_saved(tmp_path):
    """Keras would load two of them; weights files know them as one."""

    def sharing():
        shared = keras.layers.Dense(3)
        models = {
            name: keras.Sequential([keras.Input((2,)), shared])
            for name in ("first", "second")
        }
        loss = generator_loss
        objectives = {k: autoloss.Objective(loss, m) for k, m in models.items()}
        return autoloss.AlternatingModel(objectives, **models)

    model, again = sharing(), sharing()
    with pytest.raises(ValueError, match="both 'first' and 'second'"):
        model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    again.load_weights(tmp_path / "model.weights.h5")
    _assert_equal(_values(model.weights)[-2:], _values(again.weights)[-2:])


class _Scaled:
    """A loss that is an object; Keras finds its class by its name."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, model, batch, training):
        return self.factor * auxiliary_loss(model, batch, training)

    def get_config(self):
        return {"factor": self.factor}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


keras.saving.register_keras_serializable("tests")(_Scaled)


def test_a_controller_decides_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        classifier = _two_headed().classifier
        model = autoloss.AlternatingModel(
            {
                "class": autoloss.Objective(class_loss, classifier),
                "copy": autoloss.Objective(auxiliary_loss, classifier),
            },
            classifier=classifier,
        )
        options = autoloss.ControllerOptions(
            features=("last_action", "progress"), hidden=4
        )
        controller = autoloss.ScheduleController.untrained(
            "toy", model.objectives, options
        )
        model.compile("adam", controller)
        data = tf.data.Dataset.from_tensor_slices((POINTS, LABELS)).batch(8)
        model.fit(data, verbose=0)
        layers = controller.policy.network.layers
        assert {layer.compute_dtype for layer in layers} == {"float32"}
    finally:
        keras.config.set_dtype_policy("float32")


def test_nothing_stays_on_the_host():
    """XLA on a GPU cannot reach variables of 32-bit integers."""
    model = _two_headed()
    model.compile(lopt_tf.HierarchicalRNN.from_pretrained(), "1:1")
    for optimizer in {id(x): x for x in model.optimizers.values()}.values():
        for variable in (*model.variables, *optimizer.variables):
            assert variable.dtype != "int32", variable.path


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_model_as_keras_users_have_them(policy, tmp_path):
    """Names, callbacks, optimizers' options, objects as losses, files."""
    keras.config.set_dtype_policy(policy)
    try:
        classifier = _two_headed().classifier
        body, head, copy = map(classifier.get_layer, ("body", "class", "copy"))
        model = autoloss.AlternatingModel(
            {
                "class / main": autoloss.Objective(class_loss, [body, head]),
                "copy it": autoloss.Objective(_Scaled(0.5), [body, copy]),
            },
            classifier=classifier,
        )
        adam = keras.optimizers.Adam(0.5, clipnorm=1.0, use_ema=True)
        model.compile(adam, "2:1", steps_per_execution=3)
        monitored = {"monitor": "val_class / main", "mode": "min"}
        best = tmp_path / "best.keras"
        weights = {}

        def keep(epoch, logs):
            weights[logs["val_class / main"]] = _values(classifier.weights)

        callbacks = [
            keras.callbacks.LambdaCallback(on_epoch_end=keep),
            keras.callbacks.ModelCheckpoint(
                best, save_best_only=True, **monitored
            ),
            keras.callbacks.EarlyStopping(
                patience=2, restore_best_weights=True, **monitored
            ),
            keras.callbacks.ReduceLROnPlateau(patience=1, **monitored),
            keras.callbacks.TensorBoard(tmp_path / "tensorboard"),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.TerminateOnNaN(),
        ]
        model.fit(
            PAIRS,
            epochs=6,
            validation_data=PAIRS,
            callbacks=callbacks,
            verbose=0,
        )
        log = (tmp_path / "log.csv").read_text()
        assert log.startswith("epoch,class / main,copy it,learning_rate")
        loaded = keras.models.load_model(best)
        _assert_equal(weights[min(weights)], _values(loaded.classifier.weights))
        if len(weights) < 6:
            _assert_equal(weights[min(weights)], _values(classifier.weights))
        assert loaded.objectives["copy it"].loss.factor == 0.5
        scaled = isinstance(
            loaded.optimizer, keras.optimizers.LossScaleOptimizer
        )
        assert scaled == (policy == "mixed_float16")
        loaded.fit(PAIRS, verbose=0)
        predicted = loaded.predict(POINTS, verbose=0)
        expected = ops.convert_to_numpy(loaded.classifier(POINTS)["copy"])
        np.testing.assert_allclose(predicted["copy"], expected, atol=2e-3)
    finally:
        keras.config.set_dtype_policy("float32")


def test_what_is_done_otherwise_says_so():
    model = _two_headed()
    for call in (model.choose, lambda: model.take(0, [])):
        with pytest.raises(ValueError, match="call `compile"):
            call()
    model.compile("sgd")
    with pytest.raises(NotImplementedError, match="model.take"):
        model.train_on_batch(POINTS, LABELS)
    with pytest.raises(NotImplementedError, match="Call evaluate"):
        model.test_on_batch(POINTS, LABELS)
    batch = tf.data.Dataset.from_tensors((POINTS, LABELS))
    assert len(model.evaluate(batch, verbose=0)) == 2


# What a schedule looks at


class _Gradients:
    """Counts gradient computations of losses, wherever they run."""

    def __init__(self):
        self.counts = {name: tf.Variable(0) for name in ("class", "copy")}

    def counting(self, name, loss):
        @tf.custom_gradient
        def identity(x):
            def gradient(upstream):
                self.counts[name].assign_add(1)
                return upstream

            return x, gradient

        return lambda *args: identity(loss(*args))

    def found(self):
        return {name: int(v) for name, v in self.counts.items()}


@pytest.mark.parametrize(
    "features, every, expected",
    [
        (("progress",), 1, {"class": 6, "copy": 2}),
        (("average_first",), 1, {"class": 6, "copy": 2}),
        (("log_magnitudes",), 1, {"class": 8, "copy": 8}),
        (("log_magnitudes",), 4, {"class": 6, "copy": 4}),
        (("log_magnitudes",), 0, {"class": 6, "copy": 2}),
    ],
)
def test_gradients_are_computed_for_those_who_look(features, every, expected):
    """Three steps of one loss, then one of the other, twice."""
    counter, model = _Gradients(), _two_headed()
    objectives = {
        name: autoloss.Objective(
            counter.counting(name, each.loss), each.variables
        )
        for name, each in model.objectives.items()
    }
    model = autoloss.AlternatingModel(objectives, classifier=model.classifier)

    class Looking(schedules.Ratio):
        needs = metadata.Features(features).needs

    model.compile("sgd", Looking([[3, 1]]), measure_every=every)
    model.fit(PAIRS, verbose=0)
    assert counter.found() == expected


def test_running_metadata_by_hand():
    model, twin = _two_headed(), _two_headed()

    class Looking(schedules.Ratio):
        needs = metadata.Features(["log_magnitudes", "average_first"]).needs

    model.compile(keras.optimizers.SGD(0.1), Looking([[2, 1]]))
    model.fit(PAIRS.take(5), verbose=0, validation_data=PAIRS)
    losses, magnitudes, averages = [], [], None
    for step, batch in enumerate(PAIRS.take(5)):
        chosen = int(step % 3 == 2)
        found, norms = [], []
        for i, objective in enumerate(twin.objectives.values()):
            variables = [
                v
                for part in objective.parts()
                for v in getattr(part, "trainable_variables", [part])
            ]
            with tf.GradientTape() as tape:
                loss = objective.loss(twin, batch, False)
            gradients = tape.gradient(loss, variables)
            size = sum(int(tf.size(g)) for g in gradients)
            found.append(float(loss))
            norms.append(float(tf.linalg.global_norm(gradients)) / size**0.5)
            if i == chosen:
                step_of = list(zip(variables, gradients))
        for v, g in step_of:
            v.assign(v - 0.1 * g)
        losses, magnitudes = np.array(found), np.array(norms)
        if averages is None:
            averages = losses
        else:
            averages = 0.9 * averages + 0.1 * losses
    state = model.schedule_state.metadata()
    for name, expected in {
        "losses": [losses],
        "gradient_magnitudes": [magnitudes],
        "average_losses": [averages],
        "last_action": [[1, 0]],
        "run_length": [2],
        "progress": [1],
        "train_loss": averages[:1],
        "valid_loss": [model.evaluate(PAIRS, verbose=0)[0]],
        "validated": [True],
        "improvement": [0],
    }.items():
        np.testing.assert_allclose(
            state[name], expected, rtol=1e-4, err_msg=name
        )
    model.fit(PAIRS, verbose=0, validation_data=PAIRS)
    after = model.schedule_state.metadata()
    drop = state["valid_loss"] - after["valid_loss"]
    np.testing.assert_allclose(after["improvement"], drop, rtol=1e-5)
    np.testing.assert_allclose(after["mean_improvement"], np.abs(drop), 1e-5)


def test_a_controller_sees_the_objectives_in_its_own_order(tmp_path):
    """Names translate its actions, and the metadata that it looks at."""
    config = {"num_actions": 2, "hidden": 0, "seed": 1}
    features = ("average_first", "last_action")
    controller = autoloss.ScheduleController(
        "other", ("fit", "penalty"), features, config
    )
    path = tmp_path / "controller.npz"
    controller.save(path)
    model = _two_headed()
    with pytest.raises(ValueError, match="fit, penalty.*class, copy.*actions="):
        model.compile("sgd", path)
    with pytest.raises(ValueError, match="no action 'loss'"):
        controller.schedule(actions={"loss": "class"})
    with pytest.raises(ValueError, match="a name of its own.*copy, copy"):
        controller.schedule(actions={"fit": "copy", "penalty": "copy"})
    renamed = {"fit": "copy", "penalty": "class"}
    model.compile("sgd", controller.schedule(actions=renamed))
    seen = []
    schedule = model.schedule

    def spy(found):
        seen.append({k: np.array(found[k]) for k in ("losses", "last_action")})
        # Always the controller's first action.
        return tf.constant([[20.0, -20.0]])

    schedule.features = lambda found: found
    schedule.policy = _Logits(spy)
    model.compile("sgd", schedule, measure_every=0, run_eagerly=True)
    model.fit(PAIRS.take(3), verbose=0)
    assert model.batches_taken == {"class": 0, "copy": 3}
    np.testing.assert_array_equal(seen[-1]["last_action"], [[1, 0]])
    assert seen[-1]["losses"][0, 1] == 0 < seen[-1]["losses"][0, 0]


class _Logits(Policy):
    """A policy that is a function of metadata."""

    def __init__(self, function):
        super().__init__(2)
        self.function = function

    def distribution(self, features, epsilon=0.0):
        import tensorflow_probability as tfp

        logits = self.function(features)
        return tfp.distributions.Categorical(logits=logits)


# Data and arguments


def test_only_the_chosen_take_data():
    """An objective that is not chosen does not take from its own data."""
    model = _gan(updates=2)
    model.compile("sgd", "1:3")
    streams = {"d": IMAGES.take(2), "g": IMAGES.repeat()}
    model.fit(streams, steps_per_epoch=4, epochs=2, verbose=0)
    assert model.batches_taken == {"d": 2, "g": 12}
    with pytest.raises(ValueError, match="'d' ended after 2 batches"):
        model.fit(streams, steps_per_epoch=12, verbose=0)


def test_bad_schedules_and_optimizers():
    model = _gan()
    one = keras.optimizers.SGD(0.1)
    for arguments, message in (
        ((one, "1;3"), "neither a ratio, such as '1:1' for d, g, nor"),
        ((one, "1:2:3"), "'1:2:3' must have a number for each of"),
        ((one, "0:0"), "not zeros alone"),
        ((one, "missing.npz"), "nor the file of a controller"),
        ((one, 7), "A schedule is a text"),
        ((one, schedules.Ratio([[1, 2], [2, 1]])), "settings of one run"),
        ((one, schedules.Constant([[0.5, 0.5]])), "one objective at a time"),
        ((one, _policy_schedule(("cosine",))), "'gradient_cosine', which no"),
        ((one, schedules.Ratio([[0, 0]])), "one of them positive"),
        ((one, schedules.Ratio([[np.nan, 1]])), "must be 0 or more"),
        ((one, schedules.Coin([[5, 1]])), "must sum to 1"),
        ((one, schedules.Curriculum([[-0.5, 1.5]])), "must be 0 or more"),
        (
            (one, schedules.Feedback([[1, 1]], "moods")),
            "feedback rule needs 'moods', which no",
        ),
        ((one, schedules.Feedback([[1]], "losses", 0)), "slope and a level"),
        ((None, "1:1"), "optimizer=None"),
        (
            (keras.optimizers.SGD(gradient_accumulation_steps=2), "1:1"),
            "must be of one objective alone",
        ),
        (({"d": one},), "has none for 'g'"),
        (({"d": one, "g": one, "e": one},), "an optimizer for 'e'"),
    ):
        with pytest.raises(ValueError, match=message):
            model.compile(*arguments)
    for every in (-1, 1.5):
        with pytest.raises(ValueError, match="`measure_every` must be"):
            model.compile(one, " 1 : 1", measure_every=every)
    model.compile(one, " 1 : 1")


def test_bad_objectives():
    net, other = _net(2, 1, "net"), _net(2, 1, "other")
    good = autoloss.Objective(generator_loss, net)
    for objectives, models, message in (
        ({"a": good}, {"net": net}, "at least two objectives"),
        ({"a": good, "b": net}, {"net": net}, "at least two objectives"),
        ({"a": good, "b": good}, {}, "'a' updates.*none of the models"),
        ({"a": good, "b": good}, {"layers": net}, "called 'layers'"),
        ({"a": good, "b": good}, {"policy": net}, "called 'policy'"),
        ({"a": good, "b": good}, {"batches_taken": net}, "'batches_taken'"),
        ({"a": good, "val_a": good}, {"net": net}, "called 'val_a'"),
        ({"a": good, "b": good}, {"net": 1}, "must be a Keras model or layer"),
        (
            {"a": good, "b": autoloss.Objective(generator_loss, other)},
            {"net": net},
            "'b' updates.*none of the models",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            autoloss.AlternatingModel(objectives, **models)
    with pytest.raises(ValueError, match="must be a function"):
        autoloss.Objective("mse", net)
    with pytest.raises(ValueError, match="integer of at least 1"):
        autoloss.Objective(generator_loss, net, updates=0)
    net.trainable = False
    model = autoloss.AlternatingModel({"a": good, "b": good}, net=net)
    with pytest.raises(ValueError, match="'a' are all frozen"):
        model.compile()


def test_bad_losses():
    model = _two_headed()

    def rows(model, batch, training):
        return model.classifier(batch[0])["class"][:, 0]

    parts = model.classifier.get_layer("copy")
    for loss, message in (
        (rows, "'b' must be a scalar"),
        (lambda model, batch, training: None, "'b' must be a scalar.*None"),
        (lambda model, batch, training: (1.0, 2.0), "'b' must be a scalar"),
        (lambda model, batch, training: tf.constant(1), "type int32"),
        (class_loss, "'b' does not depend on the variables"),
    ):
        bad = autoloss.AlternatingModel(
            {
                "a": model.objectives["class"],
                "b": autoloss.Objective(loss, parts),
            },
            classifier=model.classifier,
        )
        bad.compile("sgd")
        with pytest.raises(ValueError, match=message):
            bad.fit(PAIRS, verbose=0)


def test_batches_of_any_parts():
    def loss(model, batch, training):
        x, y = batch["x"], batch["y"]
        if isinstance(x, tf.SparseTensor):
            x = tf.sparse.to_dense(x)
        if isinstance(x, tf.RaggedTensor):
            x = x.to_tensor()
        x = tf.ensure_shape(x, [None, 2])
        return ops.mean(ops.square(model.net(x) - y))

    net = _net(2, 1, "net")
    model = autoloss.AlternatingModel(
        {name: autoloss.Objective(loss, net) for name in ("a", "b")}, net=net
    )
    model.compile("sgd")
    points, labels = POINTS[:20], LABELS[:20]
    dense = {"x": points, "y": labels}
    plain = tf.data.Dataset.from_tensor_slices(dense).batch(16)
    expected, _ = model.evaluate(plain, verbose=0)
    rows = float(np.mean((np.array(net(points)) - labels) ** 2))
    assert expected == pytest.approx(rows, rel=1e-5)
    sparse = {"x": tf.sparse.from_dense(points), "y": labels}
    ragged = {"x": tf.RaggedTensor.from_tensor(points), "y": labels}
    for data in (
        tf.data.Dataset.from_tensor_slices(sparse).batch(16),
        tf.data.Dataset.from_tensor_slices(ragged).batch(16),
        # The first part has no rows, or is not there.
        plain.map(lambda batch: {"aa": 1.0, **batch}),
        plain.map(lambda batch: {"aa": None, **batch}),
    ):
        found, _ = model.evaluate(data, verbose=0)
        assert found == pytest.approx(expected, rel=1e-5)
        model.fit(data, verbose=0)
        expected, _ = model.evaluate(plain, verbose=0)


def test_replicas_share_batches_of_any_parts():
    def loss(model, batch, training):
        x = tf.sparse.to_dense(batch["x"])
        y = batch["y"].to_tensor()
        difference = model.net(tf.ensure_shape(x, [None, 2])) - y
        return batch["a"] * ops.mean(ops.square(difference))

    parts = {
        "x": tf.sparse.from_dense(POINTS),
        "y": tf.RaggedTensor.from_tensor(LABELS),
    }
    data = tf.data.Dataset.from_tensor_slices(parts).batch(16)
    data = data.map(lambda batch: {"a": 2.0, **batch})
    found = []
    for strategy in (
        tf.distribute.get_strategy(),
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    ):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            net = _net(2, 1, "net")
            model = autoloss.AlternatingModel(
                {name: autoloss.Objective(loss, net) for name in "ab"}, net=net
            )
            model.compile("sgd")
        history = model.fit(data, validation_data=data, verbose=0).history
        found.append([history[n][0] for n in ("a", "val_a", "val_b")])
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_arrays_and_metrics_are_told_what_to_do():
    model = _gan()
    for name in ("loss", "metrics"):
        with pytest.raises(ValueError, match=f"not take '{name}'.*objectives"):
            model.compile("sgd", **{name: "mse"})
    model.compile("sgd")
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="not take arrays.*data set"):
            call(POINTS, LABELS)
        with pytest.raises(ValueError, match="not take 'batch_size'"):
            call(IMAGES, batch_size=3)


def test_bad_data():
    model = _gan(updates=2)
    model.compile("sgd")
    none = IMAGES.take(0)
    for data, options, message in (
        (POINTS, {}, "takes a tf.data.Dataset of batches.*ndarray"),
        (IMAGES, {"batch_size": 3}, "does not take 'batch_size'"),
        (IMAGES, {"steps_per_epoch": 0}, "`steps_per_epoch` must be"),
        (IMAGES, {"steps_per_epoch": -1}, "`steps_per_epoch` must be"),
        (IMAGES, {"steps_per_epoch": 2.5}, "`steps_per_epoch` must be"),
        (IMAGES, {}, "needs `steps_per_epoch`, because an objective takes"),
        ({"d": IMAGES, "g": IMAGES}, {}, "because each objective has"),
        (none, {"steps_per_epoch": 2}, "data set of `fit` is empty"),
        ({"d": IMAGES}, {"steps_per_epoch": 2}, "no data set for.*'g'"),
        (
            {"d": IMAGES, "g": IMAGES, "e": IMAGES},
            {"steps_per_epoch": 2},
            "'e', which is no objective",
        ),
        (
            {"d": IMAGES, "g": none},
            {"steps_per_epoch": 2},
            "of the objective 'g' is empty",
        ),
        (
            {"d": IMAGES, "g": IMAGES.take(3)},
            {"steps_per_epoch": 9},
            "of the objective 'g' ended after 2 batches.*repeat",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(data, verbose=0, **options)
    model = _gan(updates=2)
    model.compile("sgd")
    with pytest.raises(ValueError, match="ended after 7 batches.*'g' needed 2"):
        model.fit(IMAGES, steps_per_epoch=20, verbose=0)
    # The step that wanted more has changed nothing.
    assert model.batches_taken == {"d": 3, "g": 4}
    model = _gan()
    model.compile("sgd")
    unknown = IMAGES.unbatch().batch(8)
    with pytest.raises(ValueError, match="does not tell how many batches"):
        model.fit(unknown, verbose=0)
    with pytest.raises(ValueError, match="`evaluate` is empty"):
        model.fit(IMAGES, validation_data=none, verbose=0)
    model.compile("sgd", _policy_schedule(("gap",)))
    with pytest.raises(ValueError, match="'valid_loss'.*validation_data"):
        model.fit(IMAGES, verbose=0)


# Replicas


def test_two_replicas_are_one_device():
    """The host chooses; gradients and measurements are those of the batch."""
    found = []
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for scope in (tf.distribute.get_strategy(), strategy):
        with scope.scope():
            model = _two_headed()
            optimizer = keras.optimizers.Adam(0.02)
            model.compile(optimizer, _policy_schedule(), measure_every=2)
        model.schedule_state.draw.assign(4)
        history = model.fit(
            PAIRS, epochs=2, verbose=0, validation_data=PAIRS
        ).history
        values = _values(model.classifier.weights)
        values += [x.numpy() for x in model.schedule_state.metadata().values()]
        found.append((values, history))
    np.testing.assert_equal(*(history["share/copy"] for _, history in found))
    for name, values in found[0][1].items():
        np.testing.assert_allclose(values, found[1][1][name], rtol=1e-4)
    for a, b in zip(found[0][0], found[1][0]):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="5 rows cannot be shared by 2"):
        model.fit(PAIRS.unbatch().batch(5), steps_per_epoch=1, verbose=0)
    # A replica that gets no row of the last batch counts for nothing.
    lonely = model.evaluate(PAIRS.unbatch().batch(1).take(1), verbose=0)
    assert np.isfinite(lonely).all()
    with strategy.scope():
        model = _two_headed()
        for name, value in (("steps_per_execution", 4), ("jit_compile", True)):
            with pytest.raises(ValueError, match=f"`{name}` cannot be used"):
                model.compile("sgd", **{name: value})
