"""The Keras optimizer: everything a Keras optimizer does."""

import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import lopt_tf
from lopt_tf import callbacks
from lopt_tf.optimizers import (
    keras_optimizers,
    learned_optimizer,
    pretrained,
)
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _data(rows=64, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(rows, 6)).astype("float32")
    return images, (images[:, 0] > 0).astype("int32")


def _model(seed=0, layers=None):
    keras.utils.set_random_seed(seed)
    layers = layers or [
        keras.layers.Dense(5, activation="tanh"),
        keras.layers.Dense(2),
    ]
    return keras.Sequential([keras.layers.Input((6,)), *layers])


def _optimizer(**kwargs):
    """Random weights, with learning rates at which something happens."""
    kwargs.setdefault("init_lr_range", (1e-3, 1e-2))
    return lopt_tf.HierarchicalRNN(seed=3, **kwargs)


def _fit(model, optimizer, epochs=2, data=None, **kwargs):
    model.compile(optimizer=optimizer, loss=LOSS, **kwargs)
    data = data or _data()
    history = model.fit(
        *data, epochs=epochs, batch_size=16, shuffle=False, verbose=0
    )
    return history.history["loss"]


def _variables(shapes=((4, 3), (5,), ()), seed=0):
    rng = np.random.default_rng(seed)
    return [
        keras.Variable(rng.normal(size=s).astype("float32")) for s in shapes
    ]


def _gradients(variables, seed=1, scale=1.0):
    rng = np.random.default_rng(seed)
    return [
        tf.constant(scale * rng.normal(size=v.shape), "float32")
        for v in variables
    ]


def _values(variables):
    return [np.array(v) for v in variables]


def _state(optimizer):
    return _values(optimizer.variables)


def _assert_equal(ours, expected, **kwargs):
    for a, b in zip(ours, expected, strict=True):
        if kwargs:
            np.testing.assert_allclose(a, b, **kwargs)
        else:
            np.testing.assert_array_equal(a, b)


def _expected(optimizer, params, gradients, learning_rate=1.0):
    """The rule's own result for a fresh optimizer."""
    rule, weights = optimizer.rule, optimizer.rule_weights()
    rng = np.random.default_rng([optimizer.seed, 1])
    uniforms, tensor_uniforms = [], []
    for p in params:
        uniforms.append(rng.random(p.shape, "float32"))
        tensor_uniforms.append(rng.random((1,) * p.ndim, "float32"))
    log_lrs = rule.draw_log_learning_rates(uniforms, tensor_uniforms)
    state = rule.init_state(weights, params, log_lrs)
    for gradient in gradients:
        params, state = rule.step(
            weights, state, params, gradient, learning_rate
        )
    return [np.array(p) for p in params]


# The update.


@pytest.mark.parametrize("use_parameter_scale", [False, True])
def test_steps_are_the_rule(use_parameter_scale):
    variables = _variables()
    variables[0].assign(10 * variables[0])
    before = _values(variables)
    optimizer = _optimizer(use_parameter_scale=use_parameter_scale)
    gradients = [_gradients(variables, seed) for seed in range(3)]
    for gradient in gradients:
        optimizer.apply(gradient, variables)
    expected = _expected(optimizer, before, gradients)
    _assert_equal(_values(variables), expected, rtol=1e-5, atol=1e-7)
    assert int(optimizer.iterations) == 3
    moved = [np.abs(a - b).max() for a, b in zip(_values(variables), before)]
    assert min(moved) > 1e-5


@pytest.mark.parametrize(
    "rate",
    [
        0.5,
        2,
        keras.optimizers.schedules.PiecewiseConstantDecay([0], [2.0, 0.0]),
    ],
)
def test_learning_rate_multiplies_the_step(rate):
    variables = _variables()
    before = _values(variables)
    optimizer = _optimizer(learning_rate=rate)
    gradients = _gradients(variables)
    optimizer.apply(gradients, variables)
    factor = 2.0 if not isinstance(rate, float | int) else rate
    expected = _expected(optimizer, before, [gradients], factor)
    _assert_equal(_values(variables), expected, rtol=1e-5, atol=1e-7)
    if not isinstance(rate, float | int):
        after = _values(variables)
        optimizer.apply(gradients, variables)
        _assert_equal(_values(variables), after)


def test_weight_decay():
    plain, decayed = _variables(), _variables()
    gradients = _gradients(plain)
    before = _values(plain)
    _optimizer().apply(gradients, plain)
    optimizer = _optimizer(weight_decay=0.1, learning_rate=0.5)
    half = _variables()
    _optimizer(learning_rate=0.5).apply(gradients, half)
    optimizer.apply(gradients, decayed)
    expected = [h - 0.05 * b for h, b in zip(_values(half), before)]
    _assert_equal(_values(decayed), expected, rtol=1e-5, atol=1e-6)


def test_weight_decay_with_attention_decays_the_truth():
    variables = _variables()
    before = _values(variables)
    plain = _optimizer(use_attention=True)
    plain.apply(_gradients(variables), variables)
    variables = _variables()
    optimizer = _optimizer(use_attention=True, weight_decay=0.1)
    optimizer.apply(_gradients(variables), variables)
    expected = [
        np.array(t) - 0.1 * b for t, b in zip(plain.true_parameters(), before)
    ]
    true = [np.array(t) for t in optimizer.true_parameters()]
    _assert_equal(true, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "clipping",
    [{"clipvalue": 0.1}, {"clipnorm": 0.1}, {"global_clipnorm": 0.1}],
)
def test_clipping(clipping):
    variables = _variables()
    before = _values(variables)
    optimizer = _optimizer(**clipping)
    gradients = _gradients(variables, scale=10.0)
    optimizer.apply(gradients, variables)
    arrays = [g.numpy() for g in gradients]
    norms = [np.linalg.norm(a) for a in arrays]
    if "clipvalue" in clipping:
        clipped = [np.clip(a, -0.1, 0.1) for a in arrays]
    elif "clipnorm" in clipping:
        clipped = [a * min(1, 0.1 / n) for a, n in zip(arrays, norms)]
    else:
        clipped = [a * 0.1 / np.linalg.norm(norms) for a in arrays]
    # One step hardly depends on the scale; the momentum does.
    state = optimizer._state_variables
    flat = np.concatenate([c.ravel() for c in clipped])
    np.testing.assert_allclose(
        np.array(state["gradient_averages"])[0], flat, rtol=1e-5
    )
    expected = _expected(optimizer, before, [clipped])
    _assert_equal(_values(variables), expected, rtol=1e-4, atol=1e-6)


def test_gradient_accumulation_is_the_mean():
    variables = _variables()
    before = _values(variables)
    optimizer = _optimizer(gradient_accumulation_steps=2)
    first, second = _gradients(variables, 1), _gradients(variables, 2)
    optimizer.apply(first, variables)
    _assert_equal(_values(variables), before)
    optimizer.apply(second, variables)
    mean = [(a + b) / 2 for a, b in zip(first, second)]
    expected = _expected(optimizer, before, [mean])
    _assert_equal(_values(variables), expected, rtol=1e-5, atol=1e-7)


def test_loss_scale_is_taken_out():
    variables = _variables()
    before = _values(variables)
    optimizer = _optimizer(loss_scale_factor=8.0)
    gradients = _gradients(variables)
    optimizer.apply([8.0 * g for g in gradients], variables)
    expected = _expected(optimizer, before, [gradients])
    _assert_equal(_values(variables), expected, rtol=1e-5, atol=1e-7)
    assert float(optimizer.scale_loss(2.0)) == 16.0


@pytest.mark.parametrize("attention", [False, True])
def test_moving_average(attention):
    variables = _variables()
    optimizer = _optimizer(
        use_ema=True, ema_momentum=0.5, use_attention=attention
    )
    averages = None
    for seed in range(3):
        optimizer.apply(_gradients(variables, seed), variables)
        now = [np.array(t) for t in optimizer.true_parameters()]
        averages = (
            now
            if averages is None
            else [(a + n) / 2 for a, n in zip(averages, now)]
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.finalize_variable_values(variables)
    _assert_equal(_values(variables), averages, rtol=1e-5, atol=1e-6)


def test_moving_average_in_fit():
    """Attention's true parameters are known inside of a graph, too."""
    model = _model()
    optimizer = _optimizer(use_ema=True, ema_momentum=0.0, use_attention=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _fit(model, optimizer)
    true = [np.array(t) for t in optimizer.true_parameters()]
    _assert_equal(_values(model.trainable_variables), true, atol=1e-6)


def test_restarted_iterations_leave_attention_alone():
    variables, optimizer = _variables(), _optimizer(use_attention=True)
    for seed in range(3):
        optimizer.apply(_gradients(variables, seed), variables)
    true = [np.array(t) for t in optimizer.true_parameters()]
    optimizer.iterations.assign(0)
    _assert_equal(optimizer.true_parameters(), true)


# What networks bring along.


@pytest.mark.parametrize(
    "policy", ["mixed_float16", "mixed_bfloat16", "float16"]
)
def test_low_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        losses = _fit(_model(), _optimizer(), epochs=4)
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0]


def test_compiled_train_step_agrees():
    plain = _fit(_model(), _optimizer(), jit_compile=False)
    compiled = _fit(_model(), _optimizer(), jit_compile=True)
    np.testing.assert_allclose(plain, compiled, rtol=1e-5)


def test_eager_train_step_agrees():
    plain = _fit(_model(), _optimizer())
    eager = _fit(_model(), _optimizer(), run_eagerly=True)
    np.testing.assert_allclose(plain, eager, rtol=1e-5)


def test_frozen_layers():
    model = _model()
    model.layers[0].trainable = False
    frozen = _values(model.layers[0].weights)
    losses = _fit(model, _optimizer())
    assert losses[-1] < losses[0]
    _assert_equal(_values(model.layers[0].weights), frozen)
    # Unfrozen and compiled again, everything is trained.
    model.layers[0].trainable = True
    _fit(model, _optimizer())
    assert np.any(_values(model.layers[0].weights)[0] != frozen[0])


@pytest.mark.parametrize("attention", [False, True])
def test_variable_without_gradient_stays(attention):
    variables = _variables()
    optimizer = _optimizer(use_attention=attention)
    gradients = _gradients(variables)
    optimizer.apply(gradients, variables)
    true = [np.array(t) for t in optimizer.true_parameters()]
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([gradients[0], None, gradients[2]], variables)
    after = [np.array(t) for t in optimizer.true_parameters()]
    np.testing.assert_array_equal(after[1], true[1])
    assert np.any(after[0] != true[0])


def test_the_first_variable_may_rest_from_the_start():
    """The two points of attention are told apart by any tensor that moved."""
    variables = _variables()
    optimizer = _optimizer(use_attention=True)
    optimizer.build(variables)
    gradients = _gradients(variables)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        for _ in range(2):
            optimizer.apply([None, *gradients[1:]], variables)
    attended = [np.array(v) for v in variables]
    true = [np.array(t) for t in optimizer.true_parameters()]
    assert np.any(true[1] != attended[1]) and np.all(true[0] == attended[0])
    optimizer.hold_true_parameters()
    np.testing.assert_array_equal(variables[1], true[1])
    optimizer.hold_attended_parameters()
    np.testing.assert_array_equal(variables[1], attended[1])


@pytest.mark.parametrize("attention", [False, True])
def test_no_variable_stays_on_the_host(attention):
    """XLA on a GPU cannot reach variables of 32-bit integers."""
    for optimizer in (
        _optimizer(use_attention=attention, use_ema=True),
        lopt_tf.LearnedAdam(),
    ):
        optimizer.build(_variables())
        types = {v.path: v.dtype for v in optimizer.variables}
        assert "int32" not in types.values(), types


def test_embedding():
    rng = np.random.default_rng(0)
    words = rng.integers(20, size=(64, 4))
    labels = (words.sum(1) > 38).astype("int32")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((4,), dtype="int32"),
            keras.layers.Embedding(20, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    losses = _fit(model, _optimizer(), epochs=5, data=(words, labels))
    assert losses[-1] < losses[0]


def test_sparse_gradients_with_repeated_rows_are_summed():
    dense, sparse = _variables(((5, 2),)), _variables(((5, 2),))
    slices = tf.IndexedSlices(
        tf.constant([[1.0, 2.0], [3.0, 4.0]]),
        tf.constant([2, 2]),
        tf.constant([5, 2]),
    )
    _optimizer(clipvalue=5.0).apply([slices], sparse)
    total = np.zeros((5, 2), "float32")
    total[2] = [4, 5]
    _optimizer().apply([tf.constant(total)], dense)
    _assert_equal(_values(sparse), _values(dense), rtol=1e-6)


def test_default_weights_in_a_compiled_loop_that_builds_the_model():
    model = keras.Sequential([keras.layers.Dense(2)])
    optimizer = lopt_tf.HierarchicalRNN.from_pretrained()
    assert optimizer.rule.step_unit == "role"
    images, labels = _data()

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(LOSS(labels, model(images)))
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables))
        return loss

    losses = [float(step()) for _ in range(30)]
    assert losses[-1] < losses[0]


def _scales(optimizer):
    (scale,) = [
        v for v in optimizer.variables if v.path.endswith("parameter_scale")
    ]
    return np.array(scale).ravel()


def test_parameter_scale_is_that_of_the_first_step(tmp_path):
    """Not of the values that a model had when the optimizer was built."""
    model = _model()
    optimizer = _optimizer(use_parameter_scale=True)
    model.compile(optimizer=optimizer, loss=LOSS)
    optimizer.build(model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, 10.0))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(*_data(), epochs=1, batch_size=16, verbose=0)
        np.testing.assert_allclose(_scales(each.optimizer), 10, rtol=1e-6)
    # Once known, it is kept, through files as well.
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, 50.0))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(*_data(), epochs=1, batch_size=16, verbose=0)
        np.testing.assert_allclose(_scales(each.optimizer), 10, rtol=1e-6)


def test_settings_newer_than_the_file_are_at_their_defaults():
    load = lopt_tf.HierarchicalRNN.from_pretrained
    name = "hierarchical_rnn_bounded"
    assert not load(name, use_parameter_scale=False).rule.use_parameter_scale
    # And those that suit the same weights may be given.
    assert load(name, use_parameter_scale=True).rule.use_parameter_scale
    assert load(name).rule.min_log_lr == -33
    with pytest.raises(ValueError, match="use_lr_shortcut=True, which"):
        load(name, use_lr_shortcut=False)


def test_custom_loop():
    model, optimizer = _model(), _optimizer()
    images, labels = _data()

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = LOSS(labels, model(images))
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(grads, model.trainable_variables)
        return loss

    optimizer.build(model.trainable_variables)
    losses = [float(step()) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert int(optimizer.iterations) == 20


@pytest.mark.parametrize("attention, averages", [(True, False), (False, True)])
def test_mirrored_strategy_is_one_device(attention, averages):
    def train(strategy):
        with strategy.scope():
            model = _model()
            optimizer = _optimizer(
                use_attention=attention, use_ema=averages, ema_momentum=0.5
            )
            losses = _fit(model, optimizer)
        return losses, _values(model.trainable_variables), optimizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, single, _ = train(tf.distribute.get_strategy())
        two, mirrored, optimizer = train(
            tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        )
    np.testing.assert_allclose(one, two, rtol=1e-4)
    _assert_equal(mirrored, single, rtol=1e-3, atol=1e-5)
    for variable in optimizer._state_variables.values():
        first, second = variable.value.values
        np.testing.assert_array_equal(first, second)


# Steps that must not be taken.


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "config",
    [{}, {"clipvalue": 1.0}, {"weight_decay": 0.1}, {"use_attention": True}],
)
def test_bad_gradients_are_skipped(bad, config):
    variables = _variables()
    optimizer = _optimizer(**config)
    gradients = _gradients(variables)
    optimizer.apply(gradients, variables)
    before, state = _values(variables), _state(optimizer)
    spoiled = [gradients[0], gradients[1] * bad, gradients[2]]
    optimizer.apply(spoiled, variables)
    assert optimizer.skipped_steps == 1
    _assert_equal(_values(variables), before)
    for variable, old in zip(optimizer.variables, state):
        if "skipped" not in variable.name:
            np.testing.assert_array_equal(np.array(variable), old)
    optimizer.apply(gradients, variables)
    assert int(optimizer.iterations) == 2
    assert np.any(_values(variables)[0] != before[0])


def test_bad_gradients_in_an_accumulated_step():
    variables = _variables()
    optimizer = _optimizer(gradient_accumulation_steps=2)
    before = _values(variables)
    gradients = _gradients(variables)
    optimizer.apply([g * np.nan for g in gradients], variables)
    optimizer.apply(gradients, variables)
    assert optimizer.skipped_steps == 1
    _assert_equal(_values(variables), before)
    optimizer.apply(gradients, variables)
    optimizer.apply(gradients, variables)
    expected = _expected(optimizer, before, [gradients])
    _assert_equal(_values(variables), expected, rtol=1e-5, atol=1e-7)
    assert int(optimizer.iterations) == 1


def test_bad_gradients_in_fit():
    images, labels = _data()
    images[20] = np.nan
    model, optimizer = _model(), _optimizer()
    _fit(model, optimizer, epochs=3, data=(images, labels))
    # One of four batches holds the bad row.
    assert optimizer.skipped_steps == 3
    assert int(optimizer.iterations) == 9
    assert np.all(
        np.isfinite(np.concatenate([w.ravel() for w in model.get_weights()]))
    )


# Attention.


def test_fit_ends_with_the_true_parameters():
    model, optimizer = _model(), _optimizer(use_attention=True)
    with pytest.warns(UserWarning, match="TrueParameters"):
        _fit(model, optimizer)
    true = [np.array(t) for t in optimizer.true_parameters()]
    _assert_equal(_values(model.trainable_variables), true)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*TrueParameters.*")
        model.fit(*_data(), verbose=0)
    again = [np.array(t) for t in optimizer.true_parameters()]
    assert np.any(again[0] != true[0])
    _assert_equal(_values(model.trainable_variables), again)


def test_attention_begins_where_the_weights_are_at_the_first_step():
    def step(early):
        variables, optimizer = _variables(), _optimizer(use_attention=True)
        if early:
            for variable in variables:
                variable.assign(variable + 1)
            optimizer.build(variables)
            for variable in variables:
                variable.assign(variable - 1)
            # A look before the first step must not bring the old ones back.
            before = _values(variables)
            optimizer.hold_true_parameters()
            _assert_equal(_values(variables), before)
            _assert_equal(optimizer.true_parameters(), before)
        gradients = _gradients(variables)
        broken = [gradient * np.nan for gradient in gradients]
        for values in (broken, gradients, gradients):
            optimizer.apply(values, variables)
        assert optimizer.skipped_steps == 1
        return [np.array(t) for t in optimizer.true_parameters()]

    for late, early in zip(step(False), step(True)):
        np.testing.assert_allclose(late, early, atol=1e-6)


def test_validation_sees_the_true_parameters(tmp_path):
    class Spy(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            optimizer = self.model.optimizer
            true = [np.array(t) for t in optimizer.true_parameters()]
            _assert_equal(_values(self.model.trainable_variables), true)

    model, optimizer = _model(), _optimizer(use_attention=True)
    model.compile(optimizer=optimizer, loss=LOSS)
    path = str(tmp_path / "weights{epoch}.weights.h5")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*TrueParameters.*")
        model.fit(
            *_data(),
            validation_data=_data(seed=1),
            epochs=2,
            verbose=0,
            callbacks=[
                callbacks.TrueParameters(),
                Spy(),
                keras.callbacks.ModelCheckpoint(path, save_weights_only=True),
            ],
        )
    expected = _values(model.trainable_variables)
    model.load_weights(path.format(epoch=2))
    _assert_equal(_values(model.trainable_variables), expected)


@pytest.mark.parametrize("kind", ["several", "own"])
def test_true_parameters_wherever_a_model_keeps_its_optimizer(kind):
    learned = _optimizer(use_attention=True)

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.net = _model()

        def compile(self, optimizer):
            super().compile(loss=LOSS)
            self.mine = [optimizer]

        def call(self, inputs):
            return self.net(inputs)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x))
            gradients = tape.gradient(loss, self.net.trainable_variables)
            self.mine[0].apply(gradients, self.net.trainable_variables)
            return {"loss": loss}

    if kind == "own":
        model = Own()
        model.compile(learned)
    else:
        model = _model()
        kinds = keras.optimizers.OptimizerMap(learned)
        model.compile(keras.optimizers.MultiOptimizer(kinds), loss=LOSS)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*TrueParameters.*")
        used = [callbacks.TrueParameters()]
        model.fit(*_data(), epochs=2, verbose=0, callbacks=used)
    true = [np.array(t) for t in learned.true_parameters()]
    _assert_equal(_values(model.trainable_variables), true)


# Files.


def test_weights_of_a_checkpoint_of_tensorflow_are_noticed(tmp_path):
    def variable():
        return keras.Variable(np.ones(3, "float32"))

    rule = HierarchicalRNNRule(level_sizes=(3, 3, 3))
    path, gone = tmp_path / "own.npz", tmp_path / "gone.npz"
    pretrained.save(path, rule, rule.init_weights(3))
    first, weights = lopt_tf.HierarchicalRNN.from_pretrained(path), variable()
    first.build([weights])
    expected = first.rule_weights()
    saved = tf.train.Checkpoint(optimizer=first).write(str(tmp_path / "saved"))
    config = first.get_config()
    path.rename(gone)

    def restored(optimizer):
        weights = variable()
        optimizer.build([weights])
        tf.train.Checkpoint(optimizer=optimizer).read(saved)
        return optimizer, weights

    # Without the file, and without any weights: they came.
    for other in (
        lopt_tf.HierarchicalRNN.from_config(config),
        lopt_tf.HierarchicalRNN(level_sizes=(3, 3, 3)),
    ):
        optimizer, weights = restored(other)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*no trained weights.*")
            optimizer.apply([tf.ones(3)], [weights])
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        optimizer, weights = restored(
            lopt_tf.HierarchicalRNN.from_config(config)
        )
        assert optimizer.get_config()["pretrained_digest"] is not None
        optimizer._check_weights()
    # Instead of others, which a configuration does not name any more.
    pretrained.save(path, rule, rule.init_weights(4))
    optimizer, _ = restored(lopt_tf.HierarchicalRNN.from_pretrained(path))
    assert optimizer.get_config()["pretrained_path"] is None
    optimizer.save_pretrained(path)
    again = lopt_tf.HierarchicalRNN.from_config(optimizer.get_config())
    _assert_equal([*again.rule_weights().values()], [*expected.values()])


@pytest.mark.parametrize("attention", [False, True])
def test_saved_model_resumes_exactly(tmp_path, attention):
    def fit(model, epochs):
        model.fit(
            *_data(),
            epochs=epochs,
            batch_size=16,
            shuffle=False,
            verbose=0,
            callbacks=[callbacks.TrueParameters()],
        )

    def new():
        model = _model()
        model.compile(optimizer=_optimizer(use_attention=attention), loss=LOSS)
        return model

    undisturbed = new()
    fit(undisturbed, 4)
    first = new()
    fit(first, 2)
    first.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras")
    fit(second, 2)
    _assert_equal(second.get_weights(), undisturbed.get_weights())
    _assert_equal(_state(second.optimizer), _state(undisturbed.optimizer))


def test_config_round_trip():
    schedule = keras.optimizers.schedules.CosineDecay(1.0, 100)
    optimizer = _optimizer(
        level_sizes=(4, 5),
        use_attention=True,
        learning_rate=schedule,
        weight_decay=1e-4,
        clipnorm=1.0,
    )
    config = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == optimizer.get_config()
    assert again.rule.get_config() == optimizer.rule.get_config()
    variables = _variables()
    copies = _variables()
    optimizer.apply(_gradients(variables), variables)
    again.apply(_gradients(variables), copies)
    _assert_equal(_values(variables), _values(copies))


def test_pretrained_round_trip(tmp_path):
    path = tmp_path / "weights.npz"
    optimizer = _optimizer(level_sizes=(4, 5))
    optimizer.save_pretrained(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = lopt_tf.HierarchicalRNN.from_pretrained(
            path, learning_rate=0.5, seed=3
        )
        variables = _variables()
        again.apply(_gradients(variables), variables)
    assert again.rule.level_sizes == (4, 5)
    assert float(again.learning_rate) == 0.5
    for name, array in optimizer.rule_weights().items():
        np.testing.assert_array_equal(again.rule_weights()[name], array)
    assert again.get_config()["pretrained_name"] is None


def test_untrained_weights_warn_once():
    variables = _variables()
    optimizer = _optimizer()
    with pytest.warns(UserWarning, match="no trained weights"):
        optimizer.apply(_gradients(variables), variables)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.apply(_gradients(variables), variables)


def test_random_weights_follow_keras_seed():
    def weights(seed):
        keras.utils.set_random_seed(seed)
        return lopt_tf.HierarchicalRNN().rule_weights()["update"]

    np.testing.assert_array_equal(weights(1), weights(1))
    assert np.any(weights(1) != weights(2))


def test_missing_pretrained_files(tmp_path):
    with pytest.raises(ValueError, match="no file .*nowhere.npz"):
        lopt_tf.HierarchicalRNN.from_pretrained(tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match="no pretrained weights named 'best'"):
        lopt_tf.HierarchicalRNN.from_pretrained("best")


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_damaged_pretrained_file(tmp_path, kept):
    path = tmp_path / "weights.npz"
    _optimizer().save_pretrained(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="damaged"):
        lopt_tf.HierarchicalRNN.from_pretrained(path)
    assert path.exists()


def test_wrong_level_sizes(tmp_path):
    path = tmp_path / "weights.npz"
    _optimizer(level_sizes=(4, 5)).save_pretrained(path)
    with pytest.raises(ValueError, match=r"level_sizes=\[4, 5\]"):
        lopt_tf.HierarchicalRNN.from_pretrained(path, level_sizes=(10, 20, 20))
    small = HierarchicalRNNRule(level_sizes=(4,)).init_weights(0)
    with pytest.raises(ValueError, match="do not fit"):
        _optimizer()._take_weights(small)


def test_bases_are_public():
    assert issubclass(lopt_tf.HierarchicalRNN, lopt_tf.LearnedOptimizer)
    assert learned_optimizer.LearnedOptimizer is lopt_tf.LearnedOptimizer
    assert keras_optimizers.HierarchicalRNN is lopt_tf.HierarchicalRNN


def test_late_decay(tmp_path):
    """The last steps are smaller, also in a model that was saved."""
    for bad in ({"num_steps": 0}, {"share": 0}, {"learning_rate": np.nan}):
        with pytest.raises(ValueError, match=f"`{next(iter(bad))}` must be"):
            lopt_tf.LateDecay(**{"num_steps": 10, **bad})
    for count in (10.0, np.int64(10), tf.constant(10, "int64")):
        config = lopt_tf.LateDecay(count).get_config()
        assert json.loads(json.dumps(config))["num_steps"] == 10
    for count in (2.5, "10", None, True, np.inf):
        with pytest.raises(ValueError, match="`num_steps` must be"):
            lopt_tf.LateDecay(count)
    rate = lopt_tf.LateDecay(8, 0.5, share=0.5)
    rates = [float(rate(step)) for step in range(10)]
    falling = 0.25 * (1 + np.cos(np.pi * np.array([1, 2, 3, 4, 4]) / 4))
    np.testing.assert_allclose(rates, [*[0.5] * 5, *falling], atol=1e-7)
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])
    model.compile(
        lopt_tf.HierarchicalRNN.from_pretrained(learning_rate=rate), "mse"
    )
    x = np.ones([4, 3], "float32")
    model.fit(x, x[:, :1], epochs=6, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, again):
        each.fit(x, x[:, :1], epochs=1, verbose=0)
        assert float(each.optimizer.learning_rate) == pytest.approx(
            rates[7], abs=1e-7
        )
    for one, two in zip(model.get_weights(), again.get_weights()):
        np.testing.assert_array_equal(one, two)
    before = model.get_weights()
    model.fit(x, x[:, :1], epochs=3, verbose=0)
    after = model.get_weights()
    model.fit(x, x[:, :1], epochs=3, verbose=0)
    assert np.any(before[0] != after[0])
    # It rests after the last step.
    np.testing.assert_array_equal(after[0], model.get_weights()[0])


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("accumulated", [None, 2])
def test_skipped_steps_leave_averages_alone(attention, accumulated):
    """As if they had not been, wherever they come; the first one, too."""

    def run(numbers):
        variables = _variables()
        optimizer = _optimizer(
            use_ema=True,
            ema_momentum=0.5,
            ema_overwrite_frequency=4,
            use_attention=attention,
            gradient_accumulation_steps=accumulated,
        )
        for number in numbers:
            gradients = _gradients(variables, max(number, 0))
            if number < 0:
                gradients = [g * float("nan") for g in gradients]
            for _ in range(accumulated or 1):
                optimizer.apply(gradients, variables)
        averages = optimizer._model_variables_moving_average
        found = _values(variables), _values(averages)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.finalize_variable_values(variables)
        return *found, _values(variables)

    # Between the steps that accumulate Keras averages as well.
    if not accumulated:
        expected = run(range(6))
        ours = run([-1, 0, -1, 1, 2, -1, -1, 3, -1, 4, 5, -1])
        for one, two in zip(ours, expected):
            _assert_equal(one, two)
    start = _values(_variables())
    for values in (run([-1])[0], run([-1, -1])[2]):
        _assert_equal(values, start)
