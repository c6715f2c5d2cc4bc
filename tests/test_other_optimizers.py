"""The release's other optimizers: rules, Keras optimizers, registry."""

import dataclasses
import importlib.util
import inspect
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import rule_inputs
import slow_cases
import tensorflow as tf

import lopt_tf
from lopt_tf import checkpointing
from lopt_tf.metatraining import estimators, objective, unroll
from lopt_tf.optimizers import layouts, pretrained, registry, update_rule
from problems.quadratic import Quadratic

SMALL = {"cell_sizes": (3, 4), "init_lr_range": (0.01, 0.1)}
CONFIGS = {
    "lstm": ("coordinatewise_rnn", SMALL),
    "gru": ("coordinatewise_rnn", {**SMALL, "cell": "gru"}),
    "fixed": (
        "coordinatewise_rnn",
        {**SMALL, "dynamic_output_scale": False, "learnable_decay": False},
    ),
    "adam": ("learned_adam", {"initial_learning_rate": 0.02}),
    "rate": ("global_learning_rate", {"initial_learning_rate": 0.02}),
    "schedule": (
        "learning_rate_schedule",
        {"initial_learning_rate": 0.02, "num_steps": 5},
    ),
}
every_config = pytest.mark.parametrize("name", CONFIGS)


def _rule(name):
    rule_name, config = CONFIGS[name]
    return registry.rule(rule_name, **config)


def _weights(rule, seed):
    """Weights away from the zeros and constants before meta-training."""
    rng = np.random.default_rng(seed)
    return {
        name: (array * rng.uniform(0.8, 1.2, array.shape)).astype("float32")
        + (0.2 * rng.normal(size=array.shape) * (array == 0)).astype("float32")
        for name, array in rule.init_weights(seed).items()
    }


def _setting(name, seed=0):
    """(rule, weights, params, log learning rates, gradients of 8 steps)."""
    rule = _rule(name)
    rng = np.random.default_rng(seed)
    return rule, _weights(rule, seed), *rule_inputs.draw(rule, rng)


def _run(rule, weights, params, log_lrs, grads):
    state = rule.init_state(weights, params, log_lrs)
    weights, params, grads = keras.tree.map_structure(
        keras.ops.convert_to_tensor, (weights, params, grads)
    )
    for gradient in grads:
        params, state = rule.step(weights, state, params, gradient)
    return [keras.ops.convert_to_numpy(p) for p in params]


def _use_blocks(monkeypatch, size=4):
    monkeypatch.setattr(
        layouts,
        "_layout_for_shapes",
        lambda shapes, *_: layouts.BlockLayout(shapes, size),
    )


# Second opinions.


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _numpy_gru(weights, name, inputs, hidden):
    """Element by element: a loop over the columns."""
    new = np.empty_like(hidden)
    size = len(hidden)
    for n in range(hidden.shape[1]):
        x, h = inputs[:, n], hidden[:, n]
        gates = weights[f"{name}/gates"] @ np.append(x, h)
        gates = _sigmoid(gates + weights[f"{name}/gates_bias"][:, 0])
        reset, update = gates[:size], gates[size:]
        new_value = weights[f"{name}/candidate"] @ np.append(x, reset * h)
        new_value = np.tanh(new_value + weights[f"{name}/candidate_bias"][:, 0])
        new[:, n] = update * h + (1 - update) * new_value
    return new


def test_gru_agrees_with_numpy():
    rule, weights, params, log_lrs, grads = _setting("gru")
    state = rule.init_state(weights, params, log_lrs)
    layout = layouts.choose_layout(params)
    weights64 = {name: w.astype("float64") for name, w in weights.items()}
    count = sum(p.size for p in params)
    start = np.repeat(weights64["initial_state"], count, axis=1)
    low, high = start[:3], start[3:]
    decay = mean_square = np.ones((1, count))
    rate = np.exp(np.concatenate([a.reshape(1, -1) for a in log_lrs], axis=1))
    for gradient in grads:
        steps, _, state = rule.updates(
            weights, state, layout, layout.pack(gradient)
        )
        g = np.concatenate([a.reshape(1, -1) for a in gradient], axis=1)
        mean_square = decay * mean_square + (1 - decay) * g.astype("f8") ** 2
        low = _numpy_gru(
            weights64, "cell_0", np.arcsinh(g / np.sqrt(mean_square)), low
        )
        high = _numpy_gru(weights64, "cell_1", low, high)

        def read(name):
            return weights64[name] @ high + weights64[f"{name}_bias"]  # noqa: B023

        rate = rate * 2 * _sigmoid(read("learning_rate"))
        decay = _sigmoid(read("decay"))
        expected = rate * (weights64["update"] @ high)
        size = np.max(np.abs(expected))
        np.testing.assert_allclose(steps, expected, rtol=0, atol=2e-5 * size)


def test_learned_adam_begins_as_adam():
    constants = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-8}
    rule = registry.rule("learned_adam", initial_learning_rate=0.3, **constants)
    _, _, params, log_lrs, grads = _setting("adam")
    # Large ones: the two differ in where they add their epsilons.
    grads = [[1000 * g for g in gradient] for gradient in grads]
    ours = _run(rule, rule.init_weights(0), params, log_lrs, grads)
    adam = keras.optimizers.Adam(0.3, **constants)
    variables = [keras.Variable(p) for p in params]
    for gradient in grads:
        adam.apply([tf.constant(g) for g in gradient], variables)
    for a, b in zip(ours, variables):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-4)


def test_schedule_ends_with_its_last_learning_rate():
    rule = _rule("schedule")
    rates = np.arange(1.0, 6.0, dtype="float32")[:, None]
    weights = {"learning_rates": rates}
    params = [np.zeros(2, "float32")]
    state = rule.init_state(weights, params, params)
    moved = []
    for _ in range(7):
        params, state = rule.step(
            weights, state, params, [np.ones(2, "float32")]
        )
        moved.append(-float(params[0][0]))
    np.testing.assert_allclose(np.diff([0, *moved]), [1, 2, 3, 4, 5, 5, 5])


@every_config
def test_blocks_agree_with_flat(name, monkeypatch):
    flat = _run(*_setting(name))
    _use_blocks(monkeypatch)
    for ours, expected in zip(_run(*_setting(name)), flat):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("blocks", slow_cases.marked([False, True], True))
@every_config
def test_instances_do_not_mix(name, blocks, monkeypatch):
    if blocks:
        _use_blocks(monkeypatch)
    singles = [_setting(name, seed) for seed in range(3)]
    rule = singles[0][0]
    weights, params, log_lrs, grads = (
        tf.nest.map_structure(lambda *a: np.stack(a), *parts)
        for parts in list(zip(*singles))[1:]
    )
    state = rule.init_state(weights, params, log_lrs)
    for array in state.values():
        assert array.shape[-3] == 3
    together = _run(rule, weights, params, log_lrs, grads)
    for k, single in enumerate(singles):
        for ours, expected in zip(together, _run(*single)):
            np.testing.assert_allclose(ours[k], expected, rtol=1e-4, atol=1e-5)


def trajectory(name, blocks):
    """Parameters after 8 steps, for the other backends."""
    with pytest.MonkeyPatch.context() as patch:
        if blocks:
            _use_blocks(patch)
        return np.concatenate([p.ravel() for p in _run(*_setting(name))])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_backends_agree(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    program = (
        "import json, test_other_optimizers as t; print(json.dumps([[n, b, "
        "t.trajectory(n, b).tolist()] for n in t.CONFIGS for b in (0, 1)]))"
    )
    here = pathlib.Path(__file__).parent
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.strip().splitlines()[-1])
    assert len(found) == 2 * len(CONFIGS)
    for name, blocks, values in found:
        np.testing.assert_allclose(
            values, trajectory(name, blocks), rtol=1e-4, atol=1e-5
        )


# Corners.


@every_config
def test_huge_gradients_do_not_poison_the_state(name):
    rule, weights, params, log_lrs, grads = _setting(name)
    state = rule.init_state(weights, params, log_lrs)
    grads[2] = [np.full_like(g, 3e37) for g in grads[2]]
    for gradient in grads:
        params, state = rule.step(weights, state, params, gradient)
    for value in tf.nest.flatten((params, state)):
        assert np.all(np.isfinite(value))


@pytest.mark.parametrize("bias", [-9.0, 9.0])
def test_learning_rates_stay_in_bounds(bias):
    rule, weights, params, log_lrs, grads = _setting("lstm")
    weights["learning_rate_bias"][:] = bias
    state = rule.init_state(weights, params, log_lrs)
    for _ in range(200):
        _, state = rule.step(weights, state, params, grads[3])
    rates = np.exp(state["log_learning_rate"])
    assert np.all((rates > 1e-36) & (rates < 1e36))


def test_starting_learning_rates():
    rule = registry.rule("coordinatewise_rnn", init_lr_range=(1e-3, 1e-1))
    rng = np.random.default_rng(0)
    (log_lrs,) = rule.draw_log_learning_rates(
        [rng.random((1000, 50))], [rng.random((1, 1))]
    )
    assert np.log(1e-3) <= log_lrs.min() < np.log(1.01e-3)
    assert np.log(0.099) < log_lrs.max() <= np.log(1e-1)
    state = rule.init_state(rule.init_weights(0), [log_lrs], [log_lrs])
    np.testing.assert_array_equal(
        np.ravel(state["log_learning_rate"]), log_lrs.ravel()
    )


@pytest.mark.parametrize(
    "name, config, message",
    [
        ("coordinatewise_rnn", {"cell_sizes": ()}, "cell_sizes"),
        ("coordinatewise_rnn", {"cell_sizes": (3, 0)}, "cell_sizes"),
        ("coordinatewise_rnn", {"cell": "rnn"}, "'lstm' or 'gru'"),
        ("coordinatewise_rnn", {"init_lr_range": (0, 1)}, "init_lr_range"),
        ("learned_adam", {"epsilon": 0}, "epsilon"),
        ("learned_adam", {"initial_learning_rate": -1}, "positive"),
        ("learned_adam", {"beta_2": 1.0}, "beta_2"),
        ("learning_rate_schedule", {"num_steps": 0}, "num_steps"),
    ],
)
def test_bad_arguments(name, config, message):
    with pytest.raises(ValueError, match=message):
        registry.rule(name, **config)


# Meta-training.


def _meta_setting(name, **kwargs):
    """(unroller, weight vector, flat weights, constants) of a quadratic."""
    rule = _rule(name)
    unroller = unroll.Unroller(Quadratic(3), rule, 3, 4, **kwargs)
    weights = {n: tf.constant(w) for n, w in _weights(rule, 1).items()}
    vector = estimators.WeightVector(weights)
    constants = unroller.constants((5,))
    return unroller, vector, vector.flatten(weights), constants


@every_config
def test_backpropagation_agrees_with_differences(name):
    unroller, vector, flat, constants = _meta_setting(name, keeps_trail=True)
    estimator = estimators.TruncatedBackpropagation(
        unroller, objective.MetaObjective()
    )

    def estimate(weights):
        run = estimators.Run((6,))
        return estimator.step(vector, weights, constants, run, 2)[0]

    gradient = estimate(flat).gradient
    assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = rng.normal(size=flat.shape) * (0.01 + np.abs(flat))
        direction = tf.constant(0.01 * direction, "float32")
        up, down = estimate(flat + direction), estimate(flat - direction)
        slope = (up.meta_loss - down.meta_loss) / 2
        ours = float(tf.reduce_sum(gradient * direction))
        assert abs(slope - ours) < 0.02 * abs(slope) + 2e-6


@every_config
def test_persistent_evolution(name):
    unroller, vector, flat, constants = _meta_setting(name, copies=2)
    estimator = estimators.PersistentEvolution(
        unroller, objective.MetaObjective(), stdev=0.001
    )
    run = estimators.Run((6,))
    for _ in range(2):
        estimate, run = estimator.step(vector, flat, constants, run, 1)
        assert np.all(np.isfinite(estimate.gradient))
        assert np.any(estimate.gradient != 0)


@every_config
def test_meta_gradients_are_finite_without_gradients(name):
    rule, weights, params, log_lrs, _ = _setting(name)
    weights = {name: tf.constant(w) for name, w in weights.items()}
    grads = [tf.zeros(p.shape) for p in params]
    with tf.GradientTape() as tape:
        tape.watch((weights, grads))
        state = rule.init_state(weights, params, log_lrs)
        for _ in range(3):
            params, state = rule.step(weights, state, params, grads)
        total = tf.add_n([tf.reduce_sum(p) for p in params])
    for slope in tf.nest.flatten(tape.gradient(total, (weights, grads))):
        assert np.all(np.isfinite(slope))


# The Keras optimizers.


def _optimizer(name, **kwargs):
    rule_name, config = CONFIGS[name]
    kwargs.setdefault("seed", 3)
    return registry.optimizer_class(rule_name)(**config, **kwargs)


def _model(optimizer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((6,)),
            keras.layers.Dense(5, activation="tanh"),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    return model


def _fit(model, epochs):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(64, 6)).astype("float32")
    history = model.fit(
        data,
        (data[:, 0] > 0).astype("int32"),
        epochs=epochs,
        batch_size=16,
        shuffle=False,
        verbose=0,
    )
    return history.history["loss"]


def _arrays(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(v) for v in variables]


@every_config
def test_saved_model_resumes_exactly(name, tmp_path):
    undisturbed = _model(_optimizer(name))
    losses = _fit(undisturbed, 4)
    assert np.all(np.isfinite(losses)) and losses[-1] != losses[0]
    if CONFIGS[name][0] != "coordinatewise_rnn":
        # Without meta-training, they are sensible already.
        assert losses[-1] < losses[0]
    first = _model(_optimizer(name))
    _fit(first, 2)
    first.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras")
    assert type(second.optimizer) is type(first.optimizer)
    _fit(second, 2)
    for ours, expected in zip(_arrays(second), _arrays(undisturbed)):
        np.testing.assert_array_equal(ours, expected)


@every_config
def test_config_round_trip(name):
    optimizer = _optimizer(name, learning_rate=0.5, clipnorm=1.0)
    config = keras.saving.serialize_keras_object(optimizer)
    assert json.loads(json.dumps(config)) == config
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == optimizer.get_config()
    assert again.rule.get_config() == _rule(name).get_config()


@pytest.mark.parametrize(
    "name, config, count",
    [
        ("coordinatewise_rnn", {}, 83),
        ("coordinatewise_rnn", {"cell": "gru"}, 43),
        ("learned_adam", {}, 2),
        ("global_learning_rate", {}, 0),
        ("learning_rate_schedule", {}, 0),
    ],
)
def test_memory_is_as_documented(name, config, count):
    optimizer = registry.optimizer_class(name)(**config)
    params = [np.zeros((100, 50), "float32")]
    weights = optimizer.rule.init_weights(0)
    state = optimizer.rule.init_state(weights, params, params)
    floats = sum(int(np.prod(array.shape)) for array in state.values())
    assert floats // params[0].size == count
    documented = f"{4 * count} bytes" if count else "parameter itself: none"
    assert documented in " ".join(type(optimizer).__doc__.split())


def test_untrained_learned_adam_says_what_it_is():
    variable = keras.Variable(np.ones(3, "float32"))
    with pytest.warns(UserWarning, match="no trained weights: it is Adam"):
        _optimizer("adam").apply([tf.ones(3)], [variable])


# Names and files.


def test_registry():
    assert list(registry.OPTIMIZERS) == [
        "hierarchical_rnn",
        "coordinatewise_rnn",
        "learned_adam",
        "global_learning_rate",
        "learning_rate_schedule",
    ]
    for name, optimizer in registry.OPTIMIZERS.items():
        assert registry.optimizer_class(name) is optimizer
        assert getattr(lopt_tf, optimizer.__name__) is optimizer
        assert type(registry.rule(name)) is optimizer.rule_class
        assert type(optimizer().rule) is optimizer.rule_class
        # Further ones of a process get a number.
        assert optimizer().name.startswith(name)
    for ask in (registry.rule, registry.optimizer_class):
        with pytest.raises(ValueError, match="'sgd'.*learned_adam"):
            ask("sgd")


@pytest.mark.parametrize("name", registry.OPTIMIZERS)
def test_settings_and_their_defaults_are_said_once(name):
    """The constructor and its docstring agree with the rule."""
    optimizer = registry.OPTIMIZERS[name]
    rule = optimizer.rule_class()
    assert optimizer.rule_class.default_config() == rule.get_config()
    arguments = inspect.signature(optimizer).parameters
    documented = inspect.getdoc(optimizer).split("Args:")[1]
    documented = " ".join(["", *documented.split()])
    for setting in dataclasses.fields(rule):
        assert arguments[setting.name].default == setting.default
    for argument in arguments.values():
        if argument.default is not inspect.Parameter.empty:
            _, text = documented.split(f" {argument.name}: ", 1)
            _, default = text.split("Defaults to `", 1)
            given = repr(argument.default).replace("'", '"')
            assert default.startswith(f"{given}`"), argument.name


@every_config
def test_rules_are_values(name):
    rule_name, config = CONFIGS[name]
    rule = _rule(name)
    # As from JSON.
    again = registry.rule(rule_name, **json.loads(json.dumps(config)))
    assert again == rule and hash(again) == hash(rule)
    assert again.get_config() == rule.get_config()
    assert json.loads(json.dumps(rule.get_config())) == rule.get_config()
    for key, value in config.items():
        assert f"{key}={getattr(rule, key)!r}" in repr(rule)
        if value != type(rule).default_config()[key]:
            assert rule != registry.rule(rule_name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.init_lr_range = (1, 2)


def test_an_optimizer_of_ones_own_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "OPTIMIZERS", dict(registry.OPTIMIZERS))

    @dataclasses.dataclass(frozen=True)
    class SignRule(update_rule.UpdateRule):
        """parameter -= rate * sign(gradient)."""

        name = "sign"
        rate: float = 0.5

        def init_weights(self, seed):
            return {"rate": np.full((1, 1), self.rate, "float32")}

        def init_state(self, weights, params, log_learning_rates):
            return {}

        def updates(self, weights, state, layout, gradients):
            return weights["rate"] * keras.ops.sign(gradients), None, {}

    class Sign(lopt_tf.LearnedOptimizer):
        rule_class = SignRule

        def __init__(self, rate=0.5, name="sign", **kwargs):
            super().__init__(self._rule_from(locals()), name=name, **kwargs)

    Sign(rate=2).save_pretrained(tmp_path / "sign.npz")
    optimizer = lopt_tf.LearnedOptimizer.from_pretrained(tmp_path / "sign.npz")
    assert type(optimizer) is Sign and optimizer.rule == SignRule(2.0)
    variable = keras.Variable(np.ones(3, "float32"))
    optimizer.apply([tf.constant([1.0, -9.0, 0.0])], [variable])
    np.testing.assert_allclose(variable, [-1, 3, 1])
    for rule_class in (_rule("adam").__class__, update_rule.UpdateRule):
        with pytest.raises(ValueError, match="Mine needs a rule with a `name`"):
            type(
                "Mine", (lopt_tf.LearnedOptimizer,), {"rule_class": rule_class}
            )


def test_public_names_are_listed():
    assert set(lopt_tf.__all__) <= set(dir(lopt_tf))
    for name in lopt_tf.__all__:
        assert getattr(lopt_tf, name) is not None


@every_config
def test_pretrained_round_trip(name, tmp_path):
    path = tmp_path / "optimizer.npz"
    rule = _rule(name)
    pretrained.save(path, rule, _weights(rule, 7))
    optimizer_class = registry.optimizer_class(rule.name)
    for cls in (lopt_tf.LearnedOptimizer, optimizer_class):
        optimizer = cls.from_pretrained(path, learning_rate=0.5, seed=1)
        assert type(optimizer) is optimizer_class
        assert optimizer.rule.get_config() == rule.get_config()
        assert float(optimizer.learning_rate) == 0.5
        for key, array in _weights(rule, 7).items():
            np.testing.assert_array_equal(optimizer.rule_weights()[key], array)
    with pytest.raises(ValueError, match="holds the optimizer") as error:
        lopt_tf.HierarchicalRNN.from_pretrained(path)
    assert isinstance(error.value, checkpointing.CheckpointError)
    assert rule.name in str(error.value)


def test_base_class_reads_the_hierarchical_rnn(tmp_path):
    lopt_tf.HierarchicalRNN(level_sizes=(3,)).save_pretrained(
        tmp_path / "a.npz"
    )
    optimizer = lopt_tf.LearnedOptimizer.from_pretrained(tmp_path / "a.npz")
    assert type(optimizer) is lopt_tf.HierarchicalRNN
    with pytest.raises(ValueError, match="'hierarchical_rnn', not 'learned"):
        lopt_tf.LearnedAdam.from_pretrained(tmp_path / "a.npz")


def test_shipped_weights_are_found_by_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "_FOLDER", tmp_path)
    lopt_tf.HierarchicalRNN(level_sizes=(3,)).save_pretrained(
        tmp_path / "a.npz"
    )
    _optimizer("adam").save_pretrained(tmp_path / "b.npz")
    found = {
        cls: cls.from_pretrained()
        for cls in (
            lopt_tf.LearnedOptimizer,
            lopt_tf.HierarchicalRNN,
            lopt_tf.LearnedAdam,
        )
    }
    names = [optimizer.pretrained_name for optimizer in found.values()]
    assert names == ["a", "a", "b"]
    with pytest.raises(ValueError, match="no pretrained weights"):
        lopt_tf.GlobalLearningRate.from_pretrained()


def test_file_of_an_unknown_optimizer(tmp_path):
    rule = _rule("adam")
    object.__setattr__(rule, "name", "from_the_future")
    pretrained.save(tmp_path / "a.npz", rule, rule.init_weights(0))
    with pytest.raises(ValueError, match="from_the_future.*Known"):
        lopt_tf.LearnedOptimizer.from_pretrained(tmp_path / "a.npz")
