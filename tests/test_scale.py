"""Scale: units of steps, resting elements, large models in shards."""

import contextlib
import copy
import dataclasses
import gc
import pickle
import warnings

import keras
import numpy as np
import numpy_hierarchical_rnn
import pytest
import rule_inputs
import slow_cases
import tensorflow as tf
from keras import layers as keras_layers

import lopt_tf
from lopt_tf.metatraining import unroll
from lopt_tf.optimizers import (
    backends,
    block_layouts,
    guarded_step,
    layers,
    layouts,
    pretrained,
    scaling,
    step_unit,
    update_rule,
)
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule
from problems import datasets
from problems.classifiers import FullyConnected

SCALED = {
    "step_unit": "start",
    "rest_without_gradient": True,
    "bound_reference": "least",
    "min_log_lr": -5.5,
    "init_lr_range": (1e-4, 1e-2),
}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _mlp():
    return [
        keras_layers.Input((8, 8)),
        keras_layers.Flatten(),
        keras_layers.Dense(24, "tanh"),
        keras_layers.Dense(4, kernel_initializer="zeros"),
    ]


def _convolution():
    return [
        keras_layers.Input((8, 8)),
        keras_layers.Reshape((8, 8, 1)),
        keras_layers.Conv2D(4, 3),
        # In the unit of weights alpha there is another epsilon.
        keras_layers.BatchNormalization(epsilon=1e-12),
        keras_layers.Activation("tanh"),
        keras_layers.GlobalAveragePooling2D(),
        keras_layers.Dense(4),
    ]


def _recurrent():
    return [
        keras_layers.Input((8, 8)),
        keras_layers.GRU(6),
        keras_layers.Dense(4),
    ]


class Attention(keras_layers.Layer):
    def __init__(self):
        super().__init__()
        self.inner = keras_layers.MultiHeadAttention(2, 4)
        self.norm = keras_layers.LayerNormalization()

    def call(self, inputs):
        return self.norm(inputs + self.inner(inputs, inputs))


def _attention():
    return [
        keras_layers.Input((8, 8)),
        keras_layers.Dense(8),
        Attention(),
        keras_layers.Flatten(),
        keras_layers.Dense(4),
    ]


def _embedding():
    return [
        keras_layers.Input((8, 8)),
        keras_layers.Flatten(),
        keras_layers.Embedding(16, 4),
        keras_layers.GlobalAveragePooling1D(),
        keras_layers.Dense(4),
    ]


NETWORKS = {
    function.__name__[1:]: function
    for function in (_mlp, _convolution, _recurrent, _attention, _embedding)
}


def _losses(network, alpha, steps, rule, factor=1.0):
    """Losses of a run of f(alpha v) from w / alpha, of `factor` times f."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(NETWORKS[network]())
    rng = np.random.default_rng(2)
    fixed = [v.value for v in model.non_trainable_variables]
    params = [
        tf.constant(np.array(v) / np.float32(alpha))
        for v in model.trainable_variables
    ]
    images = rng.integers(16, size=(64, 8, 8)).astype("float32")
    labels = (images[:, 0, :2] > 8).astype("int32") @ np.array([1, 2], "int32")
    if network != "embedding":
        images = images / 8 - 1
    weights = rule.init_weights(0)
    log_lrs = rule.draw_log_learning_rates(
        [rng.random(p.shape, "float32") for p in params],
        [np.float32(0.5) for p in params],
    )
    paths = [v.path for v in model.trainable_variables]
    state = rule.init_state(weights, params, log_lrs, layers.of_paths(paths))

    @tf.function(autograph=False, jit_compile=network != "convolution")
    def step(params, state):
        with tf.GradientTape() as tape:
            tape.watch(params)
            outputs, _ = model.stateless_call(
                [alpha * p for p in params], fixed, images, training=True
            )
            loss = LOSS(labels, outputs)
        grads = tape.gradient(loss, params)
        grads = [factor * tf.convert_to_tensor(g) for g in grads]
        return loss, *rule.step(weights, state, params, grads)

    losses = []
    for _ in range(steps):
        loss, params, state = step(params, state)
        losses.append(float(loss))
    return np.array(losses)


@pytest.mark.parametrize(
    "network", slow_cases.marked(NETWORKS, "attention", "recurrent")
)
def test_weights_may_be_stored_in_any_unit(network):
    rule = HierarchicalRNNRule(**{**SCALED, "step_unit": "role"})
    expected = _losses(network, 1.0, 100, rule)
    assert np.ptp(expected) > 0.01 * expected[0]
    for alpha in (1e-3, 0.1, 30.0, 1e3):
        ours = _losses(network, alpha, 100, rule)
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


def test_without_a_unit_they_may_not():
    rule = HierarchicalRNNRule(**{**SCALED, "step_unit": None})
    expected = _losses("mlp", 1.0, 20, rule)
    ours = _losses("mlp", 30.0, 20, rule)
    assert np.max(np.abs(ours - expected)) > 0.1


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_gradients_may_have_any_magnitude(factor):
    rule = HierarchicalRNNRule(**SCALED)
    expected = _losses("mlp", 1.0, 50, rule)
    ours = _losses("mlp", 1.0, 50, rule, factor)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)
    plain = dataclasses.replace(rule, step_unit=None)
    small = _losses("mlp", 1.0, 50, plain, 1e-9)
    assert np.max(np.abs(small - _losses("mlp", 1.0, 50, plain))) > 0.01


def _units(arrays, numbers=None, roles=None):
    arrays = [np.asarray(a, "float32") for a in arrays]
    told = None
    if numbers:
        told = layers.Layers(numbers, roles or ("",) * len(arrays))
    return np.array(step_unit.measure(arrays, 0, told, roles is not None))[0]


def test_units_of_kernels_vectors_and_zeros():
    rng = np.random.default_rng(0)
    narrow = rng.choice([-0.2, 0.2], (16, 4))
    wide = rng.choice([-0.1, 0.1], (256, 4))
    zeros, vector = np.zeros((4, 3)), np.zeros(4)
    units = _units([narrow, vector, wide, vector, zeros])
    between = np.sqrt(1.0 * 0.25)
    np.testing.assert_allclose(
        units, [1, between, 0.25, between, between], rtol=1e-5
    )
    units = _units([narrow, vector, wide, vector, zeros], (0, 0, 1, 1, 2))
    np.testing.assert_allclose(units, [1, 1, 0.25, 0.25, between], rtol=1e-5)
    # Nothing is known of a model of zeros; a vector is known by itself.
    np.testing.assert_array_equal(_units([zeros, vector]), [1, 1])
    np.testing.assert_allclose(_units([[0.4, -0.4]]), [2], rtol=1e-5)
    np.testing.assert_allclose(_units([np.full((), 3.0)]), [15], rtol=1e-5)
    huge = np.where(wide > 0, np.inf, np.nan)
    assert np.all(np.isfinite(_units([huge, narrow])))


def test_units_by_role():
    rng = np.random.default_rng(0)
    wide = rng.choice([-0.1, 0.1], (256, 4))
    narrow = rng.choice([-0.2, 0.2], (16, 4))
    table = rng.choice([-0.02, 0.02], (900, 4))
    given = [table, wide, np.zeros(4), narrow, narrow, np.zeros(4)]
    roles = ("embedding", "attention", "attention", "", "", "")
    numbers = (0, 1, 1, 2, 3, 3)
    # The plain kernels' mean is 1.
    units = _units(given, numbers, roles)
    np.testing.assert_allclose(units, [2, 0.4, 0.4, 1, 1, 1], rtol=1e-5)
    # A large table keeps its own.
    given[0] = table * 1e4
    np.testing.assert_allclose(
        _units(given, numbers, roles)[0], 1e3 * 64**0.5 / 30, rtol=1e-5
    )
    # The weights' unit is theirs.
    given = [3 * array for array in given]
    np.testing.assert_allclose(
        _units(given, numbers, roles)[1:], 3 * units[1:], rtol=1e-5
    )
    # Without plain kernels, or by "start", they are as without roles.
    for some in (
        _units([table, wide], (0, 1), ("embedding", "attention")),
        _units([table, wide], (0, 1)),
    ):
        np.testing.assert_allclose(some, [0.1 * 8 / 30, 0.25], rtol=1e-5)
    # Vectors with a role, where there are no kernels.
    found = _units([np.ones(3), np.ones(2)], (0, 0), ("embedding", ""))
    np.testing.assert_allclose(found, [5, 5], rtol=1e-5)


def test_roles_are_what_keras_has():
    inputs = keras.Input((6,))
    hidden = keras_layers.Embedding(9, 8)(inputs)
    hidden = keras_layers.MultiHeadAttention(2, 4)(hidden, hidden)
    hidden = keras_layers.GroupQueryAttention(4, 2, 1)(hidden, hidden)
    # As the critic of an actor: no attention is near it.
    outputs = keras_layers.Dense(1, name="value")(hidden)
    model = keras.Model(inputs, outputs)
    optimizer = lopt_tf.HierarchicalRNN(step_unit="role", seed=0)
    optimizer.build(model.trainable_variables)
    paths = [v.path for v in model.trainable_variables]
    numbers, roles = layers.of_paths(paths)
    assert roles == ("embedding", *["attention"] * 16, "", "")
    assert numbers == (0, *np.repeat(range(1, 10), 2))
    (unit,) = [v for v in optimizer.variables if v.path.endswith("step_unit")]
    values = [np.array(v) for v in model.trainable_variables]
    variables = model.trainable_variables
    optimizer.apply([tf.ones(v.shape) for v in variables])
    expected = numpy_hierarchical_rnn.units(
        values, layers.Layers(numbers, roles), by_role=True
    )
    np.testing.assert_allclose(np.array(unit)[0], expected, rtol=1e-4)
    # Plain variables of TensorFlow, and such without a layer.
    given = ["query/kernel:0", "key/kernel:0", "w:0", "embeddings:0", ""]
    expected = ("attention", "attention", "", "embedding", "")
    assert layers.of_paths(given).roles == expected


def test_the_unit_is_that_of_the_first_step():
    optimizer = lopt_tf.HierarchicalRNN(step_unit="start", seed=0)
    variable = keras.Variable(np.zeros((4, 3), "float32"))
    optimizer.build([variable])
    variable.assign(np.random.default_rng(0).normal(size=(4, 3)))
    start = np.array(variable)
    for _ in range(2):
        optimizer.apply([tf.ones((4, 3))])
    (unit,) = [v for v in optimizer.variables if v.path.endswith("step_unit")]
    np.testing.assert_allclose(np.array(unit)[0], _units([start]), rtol=1e-5)


@pytest.mark.parametrize("attention", [False, True])
def test_an_element_without_gradient_stays(attention):
    optimizer = lopt_tf.HierarchicalRNN(
        seed=0, rest_without_gradient=True, use_attention=attention
    )
    table = keras.Variable(np.ones((50, 4), "float32"))
    optimizer.build([table])
    gradient = np.zeros((50, 4), "float32")
    gradient[3] = [1e-12, 1, -1, 1e-6]
    for _ in range(20):
        optimizer.apply([tf.constant(gradient)])
    (true,) = optimizer.true_parameters()
    for moved in (np.array(true) != 1, np.array(table) != 1):
        assert moved[3].all() and moved.sum() == 4
    before = np.array(table)
    gradient[7] = 1
    optimizer.apply([tf.constant(gradient)])
    assert np.all(np.array(table)[7] != before[7])


def test_resting_elements_do_not_lengthen_steps():
    """A sparse table's seen row steps as the row would alone."""
    rule = HierarchicalRNNRule(rest_without_gradient=True, level_sizes=(10,))
    rule = dataclasses.replace(rule, use_problem_lr_mean=False)
    weights = rule.init_weights(0)
    row = np.linspace(0.1, 1, 8, dtype="float32")[None]
    table = np.concatenate([row, np.zeros((99, 8), "float32")])

    def steps(gradient):
        params = [np.zeros_like(gradient)]
        state = rule.init_state(weights, params, [params[0] - 5])
        moved, _ = rule.step(weights, state, params, [gradient])
        return np.array(moved[0])

    np.testing.assert_allclose(steps(table)[:1], steps(row), rtol=1e-4)


RESTING = {
    "hierarchical_rnn": lambda: HierarchicalRNNRule(
        **SCALED, use_attention=True
    ),
    "faithful": HierarchicalRNNRule,
    "coordinatewise_rnn": lambda: lopt_tf.CoordinatewiseRNN().rule,
    "learned_adam": lambda: lopt_tf.LearnedAdam().rule,
    "learning_rate_schedule": lambda: lopt_tf.LearningRateSchedule().rule,
}


@pytest.mark.parametrize("name", RESTING)
def test_tensors_without_a_gradient_are_as_if_they_were_not_there(name):
    rule = RESTING[name]()
    weights = rule.init_weights(0)
    params, log_lrs, grads = rule_inputs.draw(rule, np.random.default_rng(0))
    # What is measured at the start is of all tensors.
    present = (0, 2, 3)
    some = [params[i] for i in present]
    state = rule.init_state(weights, params, log_lrs)
    alone = rule.init_state(weights, some, [log_lrs[i] for i in present])
    layout = layouts.choose_layout(params)
    resting = {
        n: np.array(layout.unpack(value[:1])[1])
        for n, value in state.items()
        if layout.is_packed(value)
    }
    start = params
    for gradient in grads:
        gradient = [*gradient]
        gradient[1] = np.full_like(gradient[1], 7.0)
        params, state = rule.step(
            weights, state, params, gradient, 1.0, present
        )
        some, alone = rule.step(
            weights, alone, some, [gradient[i] for i in present]
        )
    np.testing.assert_array_equal(params[1], start[1])
    for n, value in resting.items():
        np.testing.assert_array_equal(layout.unpack(state[n][:1])[1], value)
    for i, expected in zip(present, some):
        np.testing.assert_allclose(params[i], expected, rtol=1e-4, atol=1e-5)


def _in_small_shards(monkeypatch):
    """Every model is a large one, in shards of a few elements."""
    monkeypatch.setattr(block_layouts, "_SMALLEST_SHARD", 2)
    monkeypatch.setattr(block_layouts, "_MOST_SHARDS", 5)
    monkeypatch.setattr(
        layouts,
        "_layout_for_shapes",
        lambda shapes, _, present: layouts.ShardedLayout(shapes, 4, present),
    )


@pytest.mark.parametrize("name", RESTING)
@pytest.mark.parametrize("stacked", [False, True])
def test_shards_agree_with_flat(name, stacked, monkeypatch):
    rule = RESTING[name]()
    weights = rule.init_weights(0)
    params, log_lrs, grads = rule_inputs.draw(rule, np.random.default_rng(0))

    def run():
        state, now = rule.init_state(weights, params, log_lrs), params
        for gradient in grads:
            now, state = rule.step(weights, state, now, gradient)
        return now, rule.true_parameters(weights, state, now)

    flat = run()
    _in_small_shards(monkeypatch)
    if stacked:
        # As inside a function that is compiled as a whole, and on JAX.
        monkeypatch.setattr(backends, "_is_being_compiled", lambda: True)
    monkeypatch.setattr(backends, "has_accelerator", lambda: stacked)
    assert layouts.choose_layout(params).num_shards > 2
    for ours, expected in zip(run(), flat):
        for a, b in zip(ours, expected):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


OPTIMIZERS = {
    "shipped": lambda: lopt_tf.HierarchicalRNN.from_pretrained(seed=1),
    "attention": lambda: lopt_tf.HierarchicalRNN(use_attention=True, seed=1),
    "coordinatewise_rnn": lambda: lopt_tf.CoordinatewiseRNN(seed=1),
    "learned_adam": lambda: lopt_tf.LearnedAdam(seed=1),
}


@pytest.mark.parametrize("jit_compile", ["auto", False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_shards_that_are_written_in_place_agree_with_flat(
    name, jit_compile, monkeypatch
):
    rng = np.random.default_rng(0)
    shapes = [(6, 5), (5,), (5, 9)]
    starts = [rng.normal(size=s).astype("float32") for s in shapes]
    # The second tensor rests, and goes on from its old state.
    present = [(0, 1, 2), (0, 1, 2), (0, 2), (0, 1, 2)]

    def run():
        optimizer = OPTIMIZERS[name]()
        optimizer.jit_compile = jit_compile
        variables = [keras.Variable(start) for start in starts]
        optimizer.build(variables)
        draws = np.random.default_rng(1)
        for chosen in present:
            grads = [draws.normal(size=s).astype("float32") for s in shapes]
            grads = [tf.constant(grads[i]) for i in chosen]
            optimizer.apply(grads, [variables[i] for i in chosen])
        return [np.array(v) for v in variables]

    flat = run()
    _in_small_shards(monkeypatch)
    written, variables_of = [], backends._variables

    def spy(shard):
        written.append(variables_of(shard))
        return written[-1]

    monkeypatch.setattr(backends, "_variables", spy)
    found = run()
    assert any(written)
    for ours, expected in zip(found, flat, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_shards_hold_what_was_packed():
    rng = np.random.default_rng(0)
    shapes = [(700, 300), (5,), (3, 4), (0, 2), (9000,), (), (1, 100_001)]
    tensors = [rng.normal(size=s).astype("float32") for s in shapes]
    layout = layouts._layout_for_shapes(tuple(shapes), False, None)
    assert isinstance(layout, layouts.ShardedLayout) and layout.num_shards > 1
    packed = layout.pack(tensors)
    for ours, expected in zip(layout.unpack(packed), tensors, strict=True):
        np.testing.assert_array_equal(ours, expected)
    means = [t.mean() if t.size else 0 for t in tensors]
    np.testing.assert_allclose(
        layout.map(_mean_rule()._averaged, {}, {"x": packed}, {})[1]["x"][0],
        means,
        atol=1e-5,
    )


class _MeanRule(update_rule.UpdateRule):
    def _averaged(self, shared, element, seen):
        return {}, element


def _mean_rule():
    return _MeanRule()


def _large_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras_layers.Input((300,)),
            keras_layers.Dense(1200, "relu"),
            keras_layers.Dense(300, "relu"),
            keras_layers.Dense(3),
        ]
    )


def _large_data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 300)), rng.integers(3, size=32)


def test_a_large_model_trains_saves_and_resumes(tmp_path):
    data = _large_data()
    options = {"batch_size": 16, "shuffle": False, "verbose": 0}
    model = _large_model()
    optimizer = lopt_tf.HierarchicalRNN.from_pretrained(seed=1, **_ADJUSTED)
    model.compile(optimizer=optimizer, loss=LOSS)
    model.fit(*data, epochs=2, **options)
    assert (
        sum(v.path.count("parameter_hidden") for v in optimizer.variables) > 1
    )
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for continued in (model, again):
        continued.fit(*data, epochs=2, **options)
    for ours, expected in zip(
        again.optimizer.variables, model.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(ours, expected)
    for ours, expected in zip(again.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(ours, expected)
    assert model.evaluate(*data, verbose=0) < 0.5


_ADJUSTED = {"step_unit": "start", "rest_without_gradient": True}


@pytest.mark.slow
def test_a_large_model_in_a_compiled_train_step():
    losses = []
    for jit_compile in (False, True):
        model = _large_model()
        model.compile(
            optimizer=lopt_tf.HierarchicalRNN.from_pretrained(seed=1),
            loss=LOSS,
            jit_compile=jit_compile,
        )
        data = _large_data()
        for _ in range(4):
            model.train_on_batch(*data)
        losses.append(model.evaluate(*data, verbose=0))
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_large_models_come_and_go():
    """One program serves the next model when the first one is gone."""
    images, labels = _large_data()
    losses = []
    for _ in range(2):
        model = _large_model()
        optimizer = lopt_tf.HierarchicalRNN.from_pretrained(seed=1)
        model.compile(optimizer=optimizer, loss=LOSS)
        fit = model.fit(images, labels, epochs=2, shuffle=False, verbose=0)
        losses.append(fit.history["loss"])
        del model, optimizer, fit
        gc.collect()
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.slow
def test_a_large_model_on_two_devices():
    """Replicas take the same steps as one device with the whole batch."""
    images, labels = _large_data()
    images = images.astype("float32")
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)
    losses, weights = [], []
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for scope in (contextlib.nullcontext(), strategy.scope()):
        with scope:
            model = _large_model()
            optimizer = lopt_tf.HierarchicalRNN.from_pretrained(seed=1)
            model.compile(optimizer=optimizer, loss=LOSS)
        history = model.fit(data, epochs=3, shuffle=False, verbose=0).history
        losses.append(history["loss"])
        weights.append(model.get_weights())
    np.testing.assert_allclose(*losses, rtol=1e-4)
    for ours, expected in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_a_skipped_step_leaves_a_large_model():
    optimizer = lopt_tf.HierarchicalRNN.from_pretrained(seed=1)
    variables = [keras.Variable(np.ones((900, 900), "float32"))]
    gradient = np.ones((900, 900), "float32")
    optimizer.apply([tf.constant(gradient)], variables)
    gradient[5, 6] = np.nan
    before = [np.array(v) for v in (*variables, *optimizer.variables)]
    optimizer.apply([tf.constant(gradient)], variables)
    assert optimizer.skipped_steps == 1
    for now, old, v in zip(
        (*variables, *optimizer.variables),
        before,
        (*variables, *optimizer.variables),
    ):
        if "skipped" not in v.path:
            np.testing.assert_array_equal(now, old)


def test_optimizers_share_one_compiled_update(monkeypatch):
    traced = []
    step = HierarchicalRNNRule.step

    def counted(self, *arguments):
        traced.append(self)
        return step(self, *arguments)

    monkeypatch.setattr(HierarchicalRNNRule, "step", counted)
    for seed in range(3):
        # An odd size: no other test has compiled it.
        variables = [keras.Variable(np.ones((7, 13), "float32"))]
        optimizer = lopt_tf.HierarchicalRNN.from_pretrained(seed=seed)
        for _ in range(2):
            optimizer.apply([tf.ones((7, 13))], variables)
    assert len(traced) == 1


@pytest.mark.filterwarnings("ignore:.*no trained weights")
def test_a_hundred_skipped_steps_say_so_once():
    optimizer = lopt_tf.HierarchicalRNN(seed=0)
    variables = [keras.Variable(np.ones(3, "float32"))]
    step = tf.function(lambda g: optimizer.apply([g], variables))
    optimizer.build(variables)
    bad, good = tf.constant([np.nan, 1, 1]), tf.ones(3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for gradient in (*[bad] * 99, good, *[bad] * 99):
            step(gradient)
        assert not [w for w in caught if "were skipped" in str(w.message)]
        for _ in range(50):
            step(bad)
    said = [w for w in caught if "were skipped" in str(w.message)]
    assert len(said) == 1


@pytest.mark.filterwarnings("ignore:.*no trained weights")
def test_a_compiled_fit_that_skips_says_so_at_its_end():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = lopt_tf.HierarchicalRNN(seed=0)
    model.compile(optimizer, "mse", jit_compile=True)
    bad = np.full([120, 2], np.nan, "float32")
    for _ in range(2):
        with pytest.warns(UserWarning, match="were skipped") as caught:
            model.fit(bad, bad[:, :1], batch_size=1, verbose=0)
        assert len([w for w in caught if "skipped" in str(w.message)]) == 1
    assert optimizer.skipped_steps == 240


@pytest.mark.parametrize("size", [1e15, 1e18, 3e37])
def test_a_huge_gradient_does_not_stop_a_large_model(size):
    """Its square's sum over a block would be infinite."""
    variables = [keras.Variable(np.ones(s, "float32")) for s in ((999, 999), 9)]
    optimizer = lopt_tf.HierarchicalRNN.from_pretrained(seed=0)
    huge = [tf.fill((999, 999), np.float32(size)), tf.ones(9)]
    optimizer.apply(huge, variables)
    before = [np.array(v) for v in variables]
    for _ in range(3):
        optimizer.apply([tf.ones_like(v.value) for v in variables], variables)
    assert optimizer.skipped_steps == 0
    for variable, old in zip(variables, before):
        assert np.isfinite(np.array(variable)).all()
        assert np.any(np.array(variable) != old)


@pytest.mark.parametrize("width", [3, 1100])
@pytest.mark.parametrize("settings", [{}, {"use_attention": True}])
@pytest.mark.filterwarnings("ignore:.*no trained weights")
def test_a_checkpoint_of_tensorflow_holds_the_state(width, settings, tmp_path):
    def made():
        variables = [keras.Variable(np.ones(s, "float32")) for s in (width, 2)]
        if width > 1000:
            variables[0] = keras.Variable(np.ones([width, width], "float32"))
        optimizer = lopt_tf.HierarchicalRNN(seed=3, **settings)
        optimizer.build(variables)
        return variables, optimizer

    def train(variables, optimizer, steps):
        for step in range(steps):
            gradients = [
                tf.fill(v.shape, np.float32(step + 1)) for v in variables
            ]
            optimizer.apply(gradients, variables)

    variables, optimizer = made()
    train(variables, optimizer, 3)
    saved = tf.train.Checkpoint(optimizer=optimizer, params=variables)
    path = saved.write(str(tmp_path / "checkpoint"))
    others, restored = made()
    train(others, restored, 1)
    again = tf.train.Checkpoint(optimizer=restored, params=others)
    again.read(path).assert_consumed()
    for own, other in zip(optimizer.variables, restored.variables):
        np.testing.assert_array_equal(own, other, own.path)


def test_names_are_left_out_of_weight_decay_as_keras_does():
    def decayed(optimizer):
        model = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.LayerNormalization(name="norm"),
                keras.layers.Dense(2, name="head"),
            ]
        )
        for v in model.trainable_variables:
            v.assign(np.ones(v.shape))
        optimizer.exclude_from_weight_decay(var_names=["norm", "bias"])
        zeros = [tf.zeros(v.shape) for v in model.trainable_variables]
        optimizer.apply(zeros, model.trainable_variables)
        return [float(np.mean(v)) for v in model.trainable_variables]

    settings = {"weight_decay": 0.5, "learning_rate": 1e-3}
    kept = decayed(keras.optimizers.AdamW(**settings))
    assert kept.count(1.0) == 3
    found = decayed(lopt_tf.HierarchicalRNN.from_pretrained(seed=0, **settings))
    np.testing.assert_allclose(found, kept, rtol=1e-6)


def test_a_copy_of_a_copy_holds_the_state():
    variables = [keras.Variable(np.ones(3, "float32"))]
    optimizer = lopt_tf.HierarchicalRNN.from_pretrained(seed=0)
    optimizer.apply([tf.ones(3)], variables)
    again = copy.deepcopy(pickle.loads(pickle.dumps(optimizer)))
    again.build(variables)
    for own, other in zip(optimizer.variables, again.variables):
        np.testing.assert_array_equal(own, other)


def test_metatraining_tells_which_tensors_are_a_layer():
    data = datasets.Dataset(datasets.random, 300, 8)
    problem = FullyConnected(300, 2, data, 2, (5,))
    rule = HierarchicalRNNRule(**SCALED)
    runs = unroll.Unroller(problem, rule, 2, 5)
    weights = {n: tf.constant(w) for n, w in rule.init_weights(0).items()}
    drawn = runs.draw_start((0, 1))
    carry = runs.begin(weights, runs.constants((0, 1)), drawn)
    found = carry.state["step_unit"].numpy()
    told, untold = (
        step_unit.measure(drawn[0], 1, told).numpy()
        for told in (problem.structure, None)
    )
    np.testing.assert_allclose(found, told, rtol=1e-6)
    assert np.all(np.abs(found / untold - 1)[..., 1::2] > 0.01)


def test_a_step_is_pure_and_counts_no_absent_gradient():
    rule = HierarchicalRNNRule(**SCALED)
    weights = {n: tf.constant(w) for n, w in rule.init_weights(0).items()}
    params = [tf.ones((3, 2)), tf.ones(2)]
    state = rule.init_state(weights, params, [p * 0 - 5 for p in params])
    new = guarded_step.take(
        rule, weights, state, params, [tf.ones((3, 2)), None], 1.0, None, ()
    )
    assert np.all(np.array(new.params[1]) == 1)
    assert np.all(np.array(new.params[0]) != 1)


@pytest.mark.slow
def test_shipped_weights_train_wide_nets_with_a_unit():
    """Widths in proportion: 256 units train at least as well as 32."""
    finals = {}
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1024, 32)).astype("float32")
    labels = np.argmax(images @ rng.normal(size=(32, 5)), 1)
    name = pretrained.names("hierarchical_rnn")[0]
    for width in (32, 512):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras_layers.Input((32,)),
                keras_layers.Dense(width, "relu"),
                keras_layers.Dense(width, "relu"),
                keras_layers.Dense(5),
            ]
        )
        optimizer = lopt_tf.HierarchicalRNN.from_pretrained(
            name, seed=0, **_ADJUSTED
        )
        model.compile(optimizer=optimizer, loss=LOSS)
        history = model.fit(images, labels, batch_size=64, epochs=8, verbose=0)
        finals[width] = history.history["loss"][-1]
    assert finals[512] < finals[32] < 0.3


def test_arcsinh():
    """The function and its derivatives, at any size."""
    small, large = np.linspace(-1, 1, 2001), np.logspace(-30, 17, 500)
    x = np.concatenate([small, large, -large, [0.0]]).astype("float32")
    values = tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(values)
        with tf.GradientTape() as inner:
            inner.watch(values)
            ours = scaling.arcsinh(values)
        first = inner.gradient(ours, values)
    second = outer.gradient(first, values)
    x = x.astype("float64")
    np.testing.assert_allclose(ours, np.arcsinh(x), rtol=1e-6)
    slope = 1 / np.sqrt(1 + x**2)
    np.testing.assert_allclose(first, slope, rtol=1e-5)
    np.testing.assert_allclose(second, -x * slope**3, atol=1e-4)
    # Beyond its range it stays finite, and says when there is no number.
    beyond = scaling.arcsinh(tf.constant([1e30, -np.inf, np.nan]))
    np.testing.assert_allclose(beyond[:2], [42.13968, -42.13968], rtol=1e-6)
    assert np.isnan(beyond[2])
