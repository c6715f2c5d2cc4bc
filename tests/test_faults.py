"""What a Keras user does with an optimizer: never silently wrong."""

import copy
import os
import pickle
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import lopt_tf
from lopt_tf import callbacks, checkpointing
from lopt_tf.optimizers import pretrained, registry

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype("float32")
Y = 2 * X[:, :1]
ALL = list(registry.OPTIMIZERS)
# Most of these tests need no XLA, and compile faster without.
FAST = {"seed": 1, "jit_compile": False}
pytestmark = pytest.mark.filterwarnings("ignore:.*no trained weights")


def _small(**kwargs):
    """A small one whose random weights make it move."""
    arguments = {"level_sizes": (3,), "init_lr_range": (1e-2, 1e-2), **FAST}
    return lopt_tf.HierarchicalRNN(**{**arguments, **kwargs})


def _shipped(**kwargs):
    return lopt_tf.HierarchicalRNN.from_pretrained(**{**FAST, **kwargs})


def _make(name, **kwargs):
    kwargs = {**FAST, **kwargs}
    if name == "hierarchical_rnn":
        return _small(**kwargs)
    return registry.OPTIMIZERS[name](**kwargs)


def _mlp(units=8):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(units, activation="relu"),
            layers.Dense(1),
        ]
    )


def _fitted(optimizer, model=None, epochs=1, **kwargs):
    model = model or _mlp()
    model.compile(optimizer, keras.losses.MeanSquaredError())
    _fit(model, epochs, **kwargs)
    return model


def _fit(model, epochs=1, **kwargs):
    options = {"batch_size": 32, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(X, Y, epochs=epochs, **options).history["loss"]


def _steps(optimizer, count=3, start=(1.0, -2.0, 0.5)):
    """The parameters after some steps."""
    variable = keras.Variable(np.array(start, "float32"))
    optimizer.build([variable])
    for i in range(count):
        optimizer.apply([tf.constant([0.5, 1.0 + i, -1.0])], [variable])
    return np.array(variable)


def _state(optimizer):
    return [np.array(v) for v in optimizer.variables]


def _assert_same(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# A1: numbers.


@pytest.mark.parametrize("name", [*ALL, "attention"])
def test_float64_parameters_keep_their_digits(name):
    attends = {"use_attention": True} if name == "attention" else {}
    kind = "hierarchical_rnn" if attends else name
    start = [np.pi, 1e300, 1e-60]
    v = keras.Variable(start, dtype="float64")
    optimizer = _make(kind, learning_rate=0.0, weight_decay=1.0, **attends)
    for scale in (1.0, 1e200):
        optimizer.apply([scale * tf.ones(3, tf.float64)], [v])
    assert optimizer.skipped_steps == 0
    _assert_same([np.array(v), *optimizer.true_parameters()], [start] * 2)
    optimizer.apply([tf.constant([np.nan, 1, np.inf], tf.float64)], [v])
    assert optimizer.skipped_steps == 1
    _assert_same([np.array(v)], [start])


def test_float64_steps_are_added_in_float64():
    v = keras.Variable([1.0], dtype="float64")
    optimizer = lopt_tf.GlobalLearningRate(1e-12, weight_decay=1e-12, **FAST)
    optimizer.apply([tf.ones(1, tf.float64)], [v])
    np.testing.assert_allclose(1 - np.array(v), 2e-12, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_step_that_overflows_is_skipped(dtype):
    largest = float(tf.as_dtype(dtype).max)
    # No other rate reaches that far.
    infinite = ("bfloat16", "float64")
    for name in ALL:
        v = keras.Variable([largest, 1.0], dtype=dtype)
        plain = tf.Variable(2.0, dtype=dtype)
        optimizer = _make(name, learning_rate=1.0)
        optimizer.build([v, plain])
        before = [*_state(optimizer), np.array(v), np.array(plain)]
        optimizer.learning_rate = np.inf if dtype in infinite else 3e38
        gradients = [tf.fill(2, tf.cast(-1, dtype)), tf.cast(1, dtype)]
        learning_rate = before[1]
        for _ in range(2):
            optimizer.apply(gradients, [v, plain])
        assert optimizer.skipped_steps == 2, name
        assert int(optimizer.iterations) == 0
        optimizer.learning_rate = learning_rate
        after = [*_state(optimizer), np.array(v), np.array(plain)]
        skipped = [
            i for i, u in enumerate(optimizer.variables) if "skipped" in u.path
        ]
        for i, (a, b) in enumerate(zip(after, before, strict=True)):
            if i not in skipped:
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_parameter_that_is_not_finite_stops_steps(bad):
    v, other = keras.Variable([bad, 1.0]), keras.Variable([1.0])
    optimizer = _shipped()
    optimizer.apply([tf.ones(2), tf.ones(1)], [v, other])
    assert optimizer.skipped_steps == 1 and float(other[0]) == 1
    # Where it rests it does not matter.
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([None, tf.ones(1)], [v, other])
    assert optimizer.skipped_steps == 1 and float(other[0]) != 1
    v.assign([1.0, 1.0])
    optimizer.apply([tf.ones(2), tf.ones(1)], [v, other])
    assert optimizer.skipped_steps == 1 and float(v[0]) != 1


def test_a_large_models_parameters_stay_if_they_would_overflow():
    v = keras.Variable(np.full((1100, 1000), 60000, "float16"))
    optimizer = lopt_tf.LearnedAdam(learning_rate=1e9, **FAST)
    optimizer.apply([tf.fill((1100, 1000), tf.cast(-1, "float16"))], [v])
    assert optimizer.skipped_steps == 1 and int(optimizer.iterations) == 0
    assert np.all(np.array(v) == 60000)


def test_learned_adam_makes_no_giant_steps():
    for gradient in (1e17, 1e25, 3.4e38):
        v = keras.Variable([1.0])
        optimizer = lopt_tf.LearnedAdam(**FAST)
        for _ in range(3):
            optimizer.apply([tf.constant([gradient])], [v])
        np.testing.assert_allclose(np.array(v), 0.997, rtol=1e-4)


def test_units_make_no_infinities_of_large_gradients():
    v = keras.Variable(np.array([[1e10, -1e10]], "float32"))
    optimizer = _shipped()
    for _ in range(3):
        optimizer.apply([tf.constant([[3e38, 1.0]])], [v])
    assert optimizer.skipped_steps == 0
    for array in [*_state(optimizer), np.array(v)]:
        assert np.all(np.isfinite(array))


# A2, A13: what no step can work with.


def _variable(value, **kwargs):
    return tf.Variable(value, name="here", **kwargs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: _variable(3 + 2j, dtype="complex64"),
        lambda: _variable([1, 2], dtype="int32"),
        lambda: _variable([True]),
        lambda: keras.Variable([1, 2], dtype="int8", name="here"),
        lambda: _variable([1.0], shape=[None]),
        lambda: _variable([1.0], shape=tf.TensorShape(None)),
    ],
)
def test_variables_that_cannot_be_trained_are_refused(make):
    variable = make()
    for name in ALL:
        with pytest.raises(ValueError, match=r"(?i)variable here"):
            _make(name).build([keras.Variable(1.0), variable])


def test_gradients_that_do_not_fit_are_refused():
    v = keras.Variable(np.ones((2, 3)), name="kernel")
    w = keras.Variable(np.ones(2), name="other")
    rows = tf.ones((1, 4))
    bad = [
        ([tf.ones((3, 2)), tf.ones(2)], "kernel has the shape"),
        ([tf.ones(6), tf.ones(2)], "kernel has the shape"),
        ([tf.ones((2, 3)), tf.ones(())], "other has the shape"),
        ([tf.ones((2, 3)), tf.ones(2, tf.int32)], "other is int32"),
        ([tf.ones((2, 3), tf.complex64), None], "kernel is complex64"),
        ([tf.ones((2, 3))], "no gradient for variable other"),
        ([tf.ones((2, 3))] * 3, "3 gradients for 2 variables.*other"),
        (
            [tf.IndexedSlices(rows, [0], tf.constant((2, 4))), None],
            "kernel has the shape",
        ),
        ([tf.IndexedSlices(rows, [0]), None], "kernel has the shape"),
        ([tf.ones((2, 3)), tf.IndexedSlices(rows, [0])], "other has the shape"),
    ]
    optimizer = _small()
    for gradients, message in bad:
        for variables in ([v, w], None):
            if variables is None and not optimizer.built:
                continue
            with pytest.raises(ValueError, match=message):
                optimizer.apply(gradients, variables)
        optimizer.build([v, w])
    for variables in ([v, v], [w, v, w]):
        with pytest.raises(ValueError, match="is there twice"):
            _small().build(variables)
        with pytest.raises(ValueError, match="is there twice"):
            optimizer.apply([tf.ones_like(u) for u in variables], variables)
    assert np.all(np.array(v) == 1) and int(optimizer.iterations) == 0
    # Lists, NumPy, and sparse gradients without a shape are fine.
    rows = tf.IndexedSlices(tf.ones((1, 3)), [0])
    optimizer.apply([rows, [0.5, 0.5]], [v, w])
    optimizer.apply([np.ones((2, 3)), np.ones(2, "float16")], [v, w])
    assert int(optimizer.iterations) == 2


def test_a_gradient_of_a_shape_that_is_not_known_is_taken():
    v = keras.Variable(np.ones(3))
    optimizer = lopt_tf.GlobalLearningRate(1.0, **FAST)
    optimizer.build([v])
    spec = tf.TensorSpec(None, tf.float32)
    step = tf.function(optimizer.apply, input_signature=[[spec]])
    step([tf.ones(3)])
    assert np.all(np.array(v) == 0)


def test_nothing_to_train_is_no_fault():
    model = _mlp()
    model.trainable = False
    optimizer = _small(use_attention=True, use_ema=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(trainable w|TrueParam)")
        _fitted(optimizer, model)
        model.trainable = True
        _fitted(optimizer, model)
    assert int(optimizer.iterations) == 2
    v = keras.Variable(np.zeros((0, 2)))
    for name in ALL:
        _make(name).apply([tf.ones((0, 2))], [v])
    for attends in (True, False):
        optimizer = _shipped() if attends else _small(use_attention=True)
        optimizer.apply([tf.ones((0, 2))], [v])
        assert int(optimizer.iterations) == 1


# A3: attention and outside writes.


def _attends(**kwargs):
    return _small(use_attention=True, **kwargs)


def test_attention_sees_what_is_written_into_variables():
    v, w = keras.Variable([1.0, 1.0]), keras.Variable([3.0])
    gradients = [tf.ones(2), tf.ones(1)]
    optimizer = _attends()
    optimizer.apply(gradients, [v, w])
    kept = np.array(optimizer.true_parameters()[1])
    optimizer.learning_rate = 1e-9
    v.assign([5.0, 5.0])
    assert np.all(np.array(optimizer.true_parameters()[0]) == 5)
    optimizer.apply(gradients, [v, w])
    np.testing.assert_allclose(np.array(v), 5)
    # The other one keeps its true parameters.
    np.testing.assert_allclose(optimizer.true_parameters()[1], kept, rtol=1e-6)
    # Also while the variables hold the true parameters.
    optimizer.hold_true_parameters()
    v.assign([7.0, 7.0])
    w_true = np.array(w)
    optimizer.hold_attended_parameters()
    assert np.all(np.array(v) == 7)
    true = optimizer.true_parameters()
    assert np.all(np.array(true[0]) == 7)
    np.testing.assert_array_equal(true[1], w_true)
    # And if the step is taken there.
    optimizer.hold_true_parameters()
    v.assign([9.0, 9.0])
    optimizer.apply(gradients, [v, w])
    np.testing.assert_allclose(optimizer.true_parameters()[0], 9)
    np.testing.assert_allclose(optimizer.true_parameters()[1], w_true)


def test_attention_and_clipping_by_hand():
    v, optimizer = keras.Variable([1.0, -1.0, 0.0]), _attends()
    for i in range(10):
        optimizer.apply([tf.constant([1.0, float(i), -1.0])], [v])
        v.assign(keras.ops.clip(v, -0.01, 0.01))
        assert np.max(np.abs(optimizer.true_parameters()[0])) <= 0.01
    optimizer.hold_true_parameters()
    assert np.max(np.abs(np.array(v))) <= 0.01


@pytest.mark.parametrize("shown", [True, False])
def test_attention_obeys_constraints(shown):
    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            true = self.model.optimizer.true_parameters()
            assert np.min(true[0]) >= 0
            assert np.all(np.linalg.norm(true[2], axis=0) < 0.5 + 1e-4)

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(8, activation="tanh", kernel_constraint="non_neg"),
            layers.Dense(1, kernel_constraint=keras.constraints.MaxNorm(0.5)),
        ]
    )
    optimizer = _attends()
    used = [callbacks.TrueParameters()] * shown + [Spy()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*TrueParameters")
        _fitted(optimizer, model, epochs=5, callbacks=used)
    kernel, _, last, _ = model.get_weights()
    assert kernel.min() >= 0 and kernel.max() > 0
    assert np.linalg.norm(last) < 0.5 + 1e-4
    # A constraint's rounding is no outside write: two points are kept.
    optimizer.hold_attended_parameters()
    assert np.any(np.array(model.layers[1].kernel) != last)
    for _ in range(3):
        model.train_on_batch(X, Y)
        true = optimizer.true_parameters()
        assert np.any(np.array(true[2]) != np.array(model.layers[1].kernel))


@pytest.mark.parametrize("shown", [True, False])
def test_attention_and_weights_set_between_fits(shown, tmp_path):
    used = {"callbacks": [callbacks.TrueParameters()] * shown}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*TrueParameters")
        model = _fitted(_attends(), epochs=2, **used)
        model.optimizer.learning_rate = 1e-9
        sevens = [np.full(w.shape, 7, "float32") for w in model.get_weights()]
        model.set_weights(sevens)
        _fit(model, **used)
        for array in model.get_weights():
            np.testing.assert_allclose(array, 7, rtol=1e-5)
        plain = _mlp()
        plain.set_weights([w - 2 for w in sevens])
        plain.save_weights(tmp_path / "plain.weights.h5")
        with warnings.catch_warnings():
            # The file's optimizer has no variables.
            warnings.filterwarnings("ignore", ".*Skipping variable loading")
            model.load_weights(tmp_path / "plain.weights.h5")
        _fit(model, **used)
        for array in model.get_weights():
            np.testing.assert_allclose(array, 5, rtol=1e-5)


@pytest.mark.parametrize("shown", [True, False])
def test_attention_and_restored_best_weights(shown):
    best = []

    class Stop(keras.callbacks.EarlyStopping):
        def on_train_end(self, logs=None):
            super().on_train_end(logs)
            best.extend(self.best_weights)

    stop = Stop("loss", restore_best_weights=True, patience=1, mode="max")
    first = [callbacks.TrueParameters()] * shown
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*TrueParameters")
        model = _fitted(_attends(), epochs=4, callbacks=[*first, stop])
        model.optimizer.learning_rate = 1e-9
        _fit(model, callbacks=first)
    for ours, expected in zip(model.get_weights(), best):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_attention_and_averages_that_overwrite():
    v = keras.Variable([1.0, 2.0])
    optimizer = _attends(
        use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    )
    for _ in range(2):
        optimizer.apply([tf.ones(2)], [v])
    average = np.array(optimizer._model_variables_moving_average[0])
    np.testing.assert_array_equal(np.array(v), average)
    np.testing.assert_array_equal(optimizer.true_parameters()[0], average)


# A4, A5: settings and resets.


def test_weight_decay_may_change():
    v, w = keras.Variable([1.0]), keras.Variable([1.0], name="skip")
    zeros = [tf.zeros(1), tf.zeros(1)]
    optimizer = _shipped(learning_rate=1e-6, weight_decay=1.0)
    for decay, expected, skip in (
        (1.0, 1, 1),
        (5e5, 0.5, 0.5),
        (None, 0.5, 0.5),
        (0.0, 0.5, 0.5),
        (5e5, 0.25, 0.5),
    ):
        optimizer.weight_decay = decay
        if skip != expected:
            optimizer.exclude_from_weight_decay(var_names=["skip"])
        optimizer.apply(zeros, [v, w])
        np.testing.assert_allclose(np.array(v), expected, rtol=1e-5)
        np.testing.assert_allclose(np.array(w), skip, rtol=1e-5)


def test_settings_changed_between_fits_count_after_compile():
    def change(optimizer):
        model = _mlp()
        model.compile(optimizer, "mse")
        model.fit(X, Y, verbose=0)
        optimizer.weight_decay = 100.0
        optimizer.clipvalue = 1e-30
        before = np.array(model.layers[0].kernel)
        model.compile(optimizer, "mse")
        model.fit(X, Y, verbose=0)
        return np.array(model.layers[0].kernel) / before

    expected = change(keras.optimizers.SGD(1e-3))
    ours = change(lopt_tf.GlobalLearningRate(1.0, learning_rate=1e-3, **FAST))
    assert expected.max() < 0.9
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("attention", [False, True])
def test_reset_is_a_fresh_start(attention):
    options = {"use_ema": True, "gradient_accumulation_steps": 2}
    optimizer = _small(use_attention=attention, step_unit="start", **options)
    v = keras.Variable([1.0, -2.0])
    optimizer.reset()
    gradients = [tf.constant([g, 1.0]) for g in (0.1, 1.0, 5.0, np.nan)]

    def run():
        for gradient in gradients:
            optimizer.apply([gradient], [v])
        return [np.array(v), *_state(optimizer)]

    optimizer.build([v])
    weights = optimizer.rule_weights()
    expected = run()
    (true,) = optimizer.true_parameters()
    optimizer.reset()
    # The model has its true parameters.
    np.testing.assert_array_equal(np.array(v), true)
    assert int(optimizer.iterations) == optimizer.skipped_steps == 0
    v.assign([1.0, -2.0])
    _assert_same(run(), expected)
    _assert_same(optimizer.rule_weights().values(), weights.values())
    # Units are measured anew.
    optimizer.reset()
    v.assign([100.0, -2.0])
    (unit,) = [u for u in optimizer.variables if "step_unit" in u.path]
    run()
    assert np.array(unit)[0, 0] > 10


def test_all_variables_set_to_zero():
    """It is said, no step is taken, and `reset` brings the weights back."""
    for name in ALL:
        optimizer = _make(name)
        expected = _steps(optimizer)
        for v in optimizer.variables:
            v.assign(keras.ops.zeros_like(v))
        optimizer.learning_rate = 1.0
        (v,) = optimizer._trainable_variables
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                optimizer.apply([tf.ones(3)], [v])
        said = [w for w in caught if "optimizer.reset()" in str(w.message)]
        assert len(said) == 1 and optimizer.skipped_steps == 3
        np.testing.assert_array_equal(np.array(v), expected)
        optimizer.reset()
        v.assign([1.0, -2.0, 0.5])
        np.testing.assert_array_equal(_steps_again(optimizer, v), expected)


def _steps_again(optimizer, v):
    for i in range(3):
        optimizer.apply([tf.constant([0.5, 1.0 + i, -1.0])], [v])
    return np.array(v)


def test_zeros_in_fit_are_said():
    model = _fitted(_shipped())
    before = model.get_weights()
    for v in model.optimizer.variables:
        v.assign(keras.ops.zeros_like(v))
    model.optimizer.learning_rate = 1.0
    with pytest.warns(UserWarning, match="were set to zero"):
        _fit(model)
    _assert_same(model.get_weights(), before)


# A6, A7: files.


def _check_skipped(model, path, **kwargs):
    """A file of other variables leaves the optimizer as it is."""
    before = _state(model.optimizer)
    with pytest.warns(UserWarning, match="Skipping variable loading"):
        model.load_weights(path, **kwargs)
    _assert_same(_state(model.optimizer), before)


def test_files_of_other_variables_are_skipped(tmp_path):
    path = tmp_path / "h.weights.h5"
    model = _mlp()
    model.layers[0].trainable = False
    _fitted(_small(), model)
    model.save_weights(path)
    model.layers[0].trainable = True
    _fitted(_small(), model)
    _check_skipped(model, path)
    _check_skipped(model, path, skip_mismatch=True)
    # Another head, as much of it.
    other = _fitted(_small(), _mlp(9))
    _check_skipped(other, path, skip_mismatch=True)
    optimizer = _small()
    optimizer.build([keras.Variable(np.ones(s)) for s in ((8, 8), 8, 9)])
    store = {}
    optimizer.save_own_variables(store)
    # The same shapes in another order: the same sizes altogether.
    again = _small()
    again.build([keras.Variable(np.ones(s)) for s in (9, (8, 8), 8)])
    before = _state(again)
    with pytest.warns(UserWarning, match="Skipping.*other shapes"):
        again.load_own_variables(store)
    _assert_same(_state(again), before)
    # Files of older versions have no word on shapes, or on skipped steps.
    for missing in (1, 2):
        store.pop(str(len(store) - 1))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            again.load_own_variables(dict(store))
        assert len(store) + missing == len(again.variables)
    with pytest.warns(UserWarning, match="not built yet"):
        _small().load_own_variables(store)
    with pytest.raises(ValueError, match="nothing was changed"):
        again.set_weights([np.ones(3)] * len(again.variables))


@pytest.mark.parametrize("name", [*ALL, "attention"])
def test_variables_have_paths_of_their_own(name):
    attends = {"use_attention": True} if name == "attention" else {}
    kind = "hierarchical_rnn" if attends else name
    optimizers = [_make(kind, use_ema=True, **attends) for _ in range(2)]
    model = _mlp()
    for optimizer in optimizers:
        optimizer.build(model.trainable_variables)
    paths = [v.path for optimizer in optimizers for v in optimizer.variables]
    assert len(set(paths)) == len(paths)
    assert optimizers[0].name != optimizers[1].name
    large = keras.Variable(np.ones((1100, 1000), "float32"))
    optimizer = _make(kind, **attends)
    optimizer.build([large])
    paths = [v.path for v in optimizer.variables]
    assert len(set(paths)) == len(paths)


@pytest.mark.filterwarnings("ignore:.*HDF5 file")
def test_h5_files(tmp_path):
    path = tmp_path / "m.h5"
    saved = keras.callbacks.ModelCheckpoint(path)
    model = _fitted(_shipped(), callbacks=[saved])
    model.save(path)
    again = keras.models.load_model(path)
    _assert_same(again.get_weights(), model.get_weights())
    # Keras restores no optimizer's state from these files; it trains.
    _fit(again)
    assert int(again.optimizer.iterations) == 2


# A9: parts that rest.


def test_a_part_that_rests_is_not_aged():
    a, b = keras.Variable(np.ones(4)), keras.Variable(np.ones(4))
    g = tf.constant([1.0, 2.0, -1.0, 0.5])
    optimizer = _shipped()
    for _ in range(3):
        optimizer.apply([g, g], [a, b])
    state = optimizer._state_variables
    names = ("log_learning_rate", "gradient_averages", "mean_squares")
    before = [np.array(state[n])[:, :4] for n in names]
    for _ in range(5):
        optimizer.apply([g], [b])
    _assert_same([np.array(state[n])[:, :4] for n in names], before)


# A8: test_scale.test_an_element_without_gradient_stays has the elements.


def test_rows_that_are_never_seen_stay():
    keras.utils.set_random_seed(0)
    embedding = layers.Embedding(50, 4, mask_zero=True)
    model = keras.Sequential(
        [layers.Input((6,), dtype="int32"), embedding, layers.LSTM(3)]
    )
    model.compile(_shipped(), "mse")
    start = np.array(embedding.embeddings)
    words = RNG.integers(1, 11, (32, 6))
    model.fit(words, np.ones((32, 3)), epochs=3, verbose=0)
    moved = np.any(np.array(embedding.embeddings) != start, axis=1)
    assert not moved[0] and not moved[11:].any() and moved[1:11].all()


# A11: one's own weights.


@pytest.fixture(name="own")
def _own(tmp_path):
    """The file of weights of one's own."""
    rng = np.random.default_rng(5)
    optimizer = _small()
    weights = {
        name: (array + rng.normal(0, 0.3, array.shape)).astype("float32")
        for name, array in optimizer.rule_weights().items()
    }
    pretrained.save(tmp_path / "own.npz", optimizer.rule, weights)
    return tmp_path / "own.npz"


def _load(path):
    return lopt_tf.HierarchicalRNN.from_pretrained(path, **FAST)


@pytest.mark.filterwarnings("error:.*trained weights")
def test_copies_keep_ones_own_weights(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    optimizer = _load("own.npz")
    expected = _steps(_load(own))
    assert np.any(expected != _steps(_small()))
    monkeypatch.chdir("/")
    config = keras.saving.serialize_keras_object(optimizer)
    copies = [
        type(optimizer).from_config(optimizer.get_config()),
        keras.saving.deserialize_keras_object(config),
        copy.copy(optimizer),
        copy.deepcopy(optimizer),
        pickle.loads(pickle.dumps(optimizer)),
    ]
    for each in copies:
        assert each.get_config() == optimizer.get_config()
        np.testing.assert_array_equal(_steps(each), expected)
    # Copies of one in use have its state, and are on their own.
    _steps(optimizer)
    copies = [f(optimizer) for f in (copy.copy, copy.deepcopy)]
    before = _state(optimizer)
    for each in copies:
        each.build([keras.Variable(np.ones(3))])
        _assert_same(_state(each), before)
        each.apply([tf.ones(3)])
    _assert_same(_state(optimizer), before)


def test_clones_keep_ones_own_weights(own):
    model = _fitted(_load(own))
    clone = keras.models.clone_model(model)
    clone.compile_from_config(model.get_compile_config())
    weights = model.optimizer.rule_weights()
    _assert_same(clone.optimizer.rule_weights().values(), weights.values())
    copied = copy.deepcopy(model)
    for each in (model, copied):
        _fit(each)
    _assert_same(copied.get_weights(), model.get_weights())
    _assert_same(_state(copied.optimizer), _state(model.optimizer))


@pytest.mark.parametrize("fault", ["missing", "changed", "damaged"])
def test_weights_whose_file_is_gone(own, fault):
    optimizer = _load(own)
    config = optimizer.get_config()
    store = {}
    variable = keras.Variable(np.ones(3))
    optimizer.build([variable])
    optimizer.save_own_variables(store)
    if fault == "missing":
        own.unlink()
    elif fault == "changed":
        _small(seed=9).save_pretrained(own)
    else:
        own.write_bytes(own.read_bytes()[:100])
    again = lopt_tf.HierarchicalRNN.from_config(config)
    assert again.get_config() == config
    # It is no fault if they come with the variables.
    copied = copy.deepcopy(again)
    again.build([variable])
    again.load_own_variables(store)
    again.apply([tf.ones(3)])
    with pytest.raises(ValueError, match="weights of .* did not come.*own.npz"):
        copied.apply([tf.ones(3)], [variable])


def test_weights_that_are_in_no_file(own, tmp_path):
    optimizer = _load(own)
    variable = keras.Variable(np.ones(3))
    optimizer.build([variable])
    store = {}
    optimizer.save_own_variables(store)
    other = _shipped()
    assert other.get_config()["pretrained_digest"] is None
    loaded = _small()
    loaded.build([variable])
    loaded.load_own_variables(store)
    again = lopt_tf.HierarchicalRNN.from_config(loaded.get_config())
    with pytest.warns(UserWarning, match="trained weights: .*in no file"):
        again.apply([tf.ones(3)], [variable])
    _assert_same(
        copy.deepcopy(loaded).rule_weights().values(),
        loaded.rule_weights().values(),
    )
    loaded.save_pretrained(tmp_path / "now.npz")
    again = lopt_tf.HierarchicalRNN.from_config(loaded.get_config())
    _assert_same(again.rule_weights().values(), loaded.rule_weights().values())


def test_a_keras_file_elsewhere(own, tmp_path):
    model = _fitted(_load(own))
    model.save(tmp_path / "m.keras")
    own.unlink()
    again = keras.models.load_model(tmp_path / "m.keras")
    for each in (model, again):
        _fit(each)
    _assert_same(again.get_weights(), model.get_weights())
    # A name that no longer tells the weights is not kept.
    assert again.optimizer.get_config()["pretrained_name"] is None


def test_cross_validation_of_a_compiled_model(own):
    from keras.wrappers import SKLearnRegressor
    from sklearn.model_selection import cross_val_score

    found = []

    class Spy(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            found.append(self.model.optimizer.rule_weights())

    model = _mlp()
    optimizer = _load(own)
    model.compile(optimizer, "mse")
    fit = {"verbose": 0, "callbacks": [Spy()]}
    cross_val_score(SKLearnRegressor(model), X, Y[:, 0], cv=2, params=fit)
    assert len(found) == 2
    for weights in found:
        for name, array in optimizer.rule_weights().items():
            np.testing.assert_array_equal(weights[name], array)


# Entry 4 of files: weights that are no numbers.


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a * np.nan,
        lambda a: a + np.inf,
        lambda a: a.astype("int32"),
        lambda a: a > 0,
        lambda a: a.astype("complex64"),
        lambda a: a.astype(str),
        lambda a: a.astype("float64"),
    ],
)
def test_weights_that_are_not_numbers_are_refused(own, spoil):
    """When written, when read, and when an optimizer is given them."""
    optimizer = _load(own)
    weights = {**optimizer.rule_weights()}
    weights["update"] = spoil(weights["update"])
    before = own.read_bytes()
    with pytest.raises(ValueError, match="update"):
        pretrained.save(own, optimizer.rule, weights)
    assert own.read_bytes() == before
    with pytest.raises(ValueError, match="do not fit .*update"):
        optimizer._take_weights(weights)
    rule = {"rule": optimizer.rule.name, "config": optimizer.rule.get_config()}
    checkpointing.save(own, pretrained.KIND, weights, rule)
    with pytest.raises(ValueError, match="own.npz .*update"):
        _load(own)


def test_settings_that_are_not_numbers_are_refused():
    for config in (
        {"init_lr_range": (1e-6, np.inf)},
        {"init_lr_range": (np.nan, 1e-2)},
        {"min_log_lr": np.nan},
    ):
        with pytest.raises(ValueError, match="Argument `"):
            _small(**config)
    with pytest.raises(ValueError, match="`jit_compile` must be"):
        _small(jit_compile="sometimes")


# A12: without XLA.


def test_the_update_compiles_as_asked(monkeypatch):
    asked = []
    function = tf.function

    def spy(*args, jit_compile=None, **kwargs):
        asked.append(jit_compile)
        return function(*args, jit_compile=jit_compile, **kwargs)

    results = []
    for i, choice in enumerate(("auto", True, False)):
        optimizer = _small(jit_compile=choice)
        assert optimizer.get_config()["jit_compile"] == choice
        # A size that no other test has, for a trace of its own.
        v = keras.Variable(np.ones((3, 37)))
        large = keras.Variable(np.ones((1000 + i, 1000)))
        monkeypatch.setattr(tf, "function", spy)
        optimizer.apply([tf.ones((3, 37))], [v])
        results.append(np.array(v))
        optimizer = lopt_tf.LearnedAdam(jit_compile=choice)
        optimizer.apply([tf.ones((1000 + i, 1000))], [large])
        monkeypatch.undo()
        assert set(asked) <= {choice is not False}
        asked.clear()
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)
    np.testing.assert_allclose(results[0], results[2], rtol=1e-5)


CHECK_NUMERICS = """
import numpy as np, tensorflow as tf, keras, lopt_tf
tf.debugging.enable_check_numerics()
for units in (4, 1100):
    model = keras.Sequential([keras.layers.Dense(units) for _ in range(2)])
    model.compile(lopt_tf.LearnedAdam(), "mse")
    model.fit(np.ones((4, 3)), np.ones((4, units)), verbose=0)
v = keras.Variable(np.ones(3))
lopt_tf.HierarchicalRNN.from_pretrained().apply([tf.ones(3)], [v])
assert float(v[0]) != 1
tf.debugging.disable_check_numerics()
"""


def _run(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_check_numerics():
    result = _run(CHECK_NUMERICS)
    assert result.returncode == 0, result.stderr[-3000:]


# A14, A15.


def test_mixed_precision_skips_are_where_the_readme_says():
    model = _mlp()
    inner = _shipped()
    model.compile(inner, "mse", auto_scale_loss=True)
    model.optimizer = keras.optimizers.LossScaleOptimizer(inner)
    data = X.copy()
    data[5] = np.nan
    before = model.get_weights()
    model.fit(data, Y, batch_size=64, verbose=0)
    _assert_same(model.get_weights(), before)
    # The loss scale halves; the inner optimizer is not even called.
    assert float(model.optimizer.dynamic_scale) == 2.0**14
    assert model.optimizer.inner_optimizer.skipped_steps == 0


@pytest.mark.parametrize("attention", [False, True])
def test_plain_variables(attention):
    variables = [tf.Variable([1.0, 2.0]), keras.Variable([3.0])]
    optimizer = _small(use_attention=attention, use_ema=True)
    for _ in range(2):
        optimizer.apply([tf.ones(2), tf.ones(1)], variables)
    true = [np.array(t) for t in optimizer.true_parameters()]
    optimizer.hold_true_parameters()
    _assert_same([v.numpy() for v in variables], true)
    optimizer.hold_attended_parameters()
    assert np.any(variables[0].numpy() != true[0]) == attention
    optimizer.reset()
    _assert_same([v.numpy() for v in variables], true)
