"""The update rule against a plain NumPy second opinion, and its corners."""

import numpy as np
import numpy_hierarchical_rnn
import pytest
import rule_inputs
import slow_cases
import tensorflow as tf

from lopt_tf.optimizers import hierarchical_rnn_element, layouts
from lopt_tf.optimizers.hierarchical_rnn import HierarchicalRNNRule

CONFIGS = {
    "default": {},
    "attention": {"use_attention": True},
    "attention_without_scale": {
        "use_attention": True,
        "dynamic_output_scale": False,
        "use_relative_lr": False,
    },
    "extreme_learning_rates": {
        "use_extreme_indicator": True,
        "use_lr_shortcut": True,
        "use_problem_lr_mean": False,
        "init_lr_range": (1e-9, 1e2),
    },
    "parameter_scale": {"use_parameter_scale": True, "use_attention": True},
    "step_unit": {"step_unit": "start", "use_attention": True},
    "step_unit_and_bound": {
        "step_unit": "start",
        "rest_without_gradient": True,
        "min_log_lr": -5.5,
    },
    "rest": {"rest_without_gradient": True, "use_attention": True},
    "rest_of_one_scale": {
        "rest_without_gradient": True,
        "num_gradient_scales": 1,
    },
    "lower_bound": {"min_log_lr": -5.5, "use_attention": True},
    "lower_bound_of_one_level": {"min_log_lr": -5.5, "level_sizes": (7,)},
    "fixed_starts": {"learnable_rnn_init": False},
    "fixed_input_decay": {"learnable_inp_decay": False},
    "fixed_decays": {"learnable_decay": False},
    "scale_decays": {"use_multiple_scale_decays": True},
    "one_level": {"level_sizes": (7,)},
    "two_levels": {"level_sizes": (6, 9)},
    "one_scale": {"num_gradient_scales": 1},
    "no_extra_inputs": {
        "use_grad_products": False,
        "use_log_means_squared": False,
        "use_relative_lr": False,
        "use_gradient_shortcut": False,
    },
}


def _setting(config, seed=0):
    """(rule, weights, params, log learning rates, gradients of 8 steps)."""
    rule = HierarchicalRNNRule(**config)
    rng = np.random.default_rng(seed)
    weights = {
        # Away from the zeros and constants before meta-training.
        name: (array + rng.normal(0, 0.2, array.shape)).astype("float32")
        for name, array in rule.init_weights(seed).items()
    }
    return rule, weights, *rule_inputs.draw(rule, rng)


@pytest.mark.parametrize(
    "name, shrinking",
    [*((name, False) for name in CONFIGS), ("lower_bound", True)],
)
def test_agrees_with_numpy(name, shrinking):
    rule, weights, params, log_lrs, grads = _setting(CONFIGS[name])
    grads = grads[::-1] if shrinking else grads
    reference = numpy_hierarchical_rnn.Reference(rule, weights, params, log_lrs)
    state = rule.init_state(weights, params, log_lrs)
    layout = layouts.choose_layout(params)
    for step, gradient in enumerate(grads):
        expected, expected_attended = reference.step(gradient)
        steps, attended, state = rule.updates(
            weights, state, layout, layout.pack(gradient)
        )
        for ours, theirs in zip(layout.unpack(steps), expected):
            size = np.max(np.abs(theirs))
            np.testing.assert_allclose(
                ours, theirs, rtol=0, atol=2e-4 * size, err_msg=f"step {step}"
            )
        if rule.use_attention:
            for ours, theirs in zip(layout.unpack(attended), expected_attended):
                size = np.max(np.abs(theirs))
                np.testing.assert_allclose(
                    ours, theirs, rtol=0, atol=2e-4 * size
                )


@pytest.mark.parametrize("size, fall", [(1, 0), (1e-2, 2.3), (10, 6.9)])
def test_lower_bound_follows_the_gradients(size, fall):
    rule, weights, params, _, grads = _setting({"min_log_lr": -5.5})
    # Learning rates that would fall to nothing at once.
    weights["learning_rate_bias"][:] = -99
    log_lrs = [np.full_like(p, np.log(1e-6)) for p in params]
    # Momentum and mean squares without memory.
    for name in ("scale_decay", "input_decay"):
        weights[name] *= 0
        weights[f"{name}_bias"][:] = -99
    weights["learning_rate_momentum"][:] = -99
    state = rule.init_state(weights, params, log_lrs)
    for factor in (1, size, size):
        now = [factor * g for g in grads[0]]
        params, state = rule.step(weights, state, params, now)
    np.testing.assert_allclose(
        state["log_learning_rate"], -5.5 - fall, atol=0.01
    )


@pytest.mark.parametrize("blocks", [False, True])
def test_lower_bound_survives_overflow_and_missing_gradients(
    blocks, monkeypatch
):
    if blocks:
        monkeypatch.setattr(
            layouts,
            "_layout_for_shapes",
            lambda shapes, *_: layouts.BlockLayout(shapes, 4096),
        )
    rule = HierarchicalRNNRule(min_log_lr=-5.5)
    weights = rule.init_weights(0)
    params = [np.zeros(4096, "float32"), np.zeros(5, "float32")]
    start = rule.init_state(weights, params, params)
    for first in (1e19, 0.0, 1e-8):
        state, now = start, params
        for size in (first, 1.0, 1.0, 1.0):
            grads = [np.full_like(p, size) for p in params]
            now, state = rule.step(weights, state, now, grads)
        for array in (*now, *state.values()):
            assert np.all(np.isfinite(array))
        known = float(tf.squeeze(state["first_mean_square"]))
        assert (known > 1) == (first > 1) and np.isfinite(known)


def test_attention_moves_variables_and_truth_apart():
    rule, weights, params, log_lrs, grads = _setting({"use_attention": True})
    reference = numpy_hierarchical_rnn.Reference(rule, weights, params, log_lrs)
    state = rule.init_state(weights, params, log_lrs)
    true, attended = params, params
    for gradient in grads[:3]:
        updates, shifts = reference.step(gradient)
        attended, state = rule.step(weights, state, attended, gradient)
        for ours, old, shift in zip(attended, true, shifts):
            np.testing.assert_allclose(ours, old - shift, rtol=1e-4, atol=1e-6)
        true = [old - update for old, update in zip(true, updates)]
        held = rule.true_parameters(weights, state, attended)
        for ours, expected in zip(held, true):
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block_size", [4, 8])
def test_blocks_agree_with_flat(block_size, monkeypatch):
    rule, weights, params, log_lrs, grads = _setting(
        {
            "use_attention": True,
            "use_parameter_scale": True,
            "min_log_lr": -5.5,
        }
    )
    params[0] *= 5

    def run():
        state = rule.init_state(weights, params, log_lrs)
        now = params
        for gradient in grads:
            now, state = rule.step(weights, state, now, gradient)
        return now, rule.true_parameters(weights, state, now)

    flat = run()
    monkeypatch.setattr(
        layouts,
        "_layout_for_shapes",
        lambda shapes, *_: layouts.BlockLayout(shapes, block_size),
    )
    for ours, expected in zip(run(), flat):
        for a, b in zip(ours, expected):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        {"min_log_lr": -34.0},
        {"min_log_lr": 2.0, "max_log_lr": 2.0},
        {
            "min_log_lr": -5.5,
            "dynamic_output_scale": False,
            "use_relative_lr": False,
        },
    ],
)
def test_lower_bounds_that_cannot_be(config):
    with pytest.raises(ValueError, match="min_log_lr"):
        HierarchicalRNNRule(**config)


def test_layouts_are_chosen_by_size():
    small = layouts.choose_layout([np.zeros((64, 10)), np.zeros(10)])
    large = layouts.choose_layout([np.zeros((784, 1500)), np.zeros(1500)])
    assert isinstance(small, layouts.FlatLayout)
    assert isinstance(large, layouts.ShardedLayout)
    padded = large.num_blocks * large.block_size
    assert padded <= 1.25 * sum(large.sizes)


@pytest.mark.parametrize("blocks", slow_cases.marked([False, True], True))
def test_instances_do_not_mix(blocks, monkeypatch):
    if blocks:
        monkeypatch.setattr(
            layouts,
            "_layout_for_shapes",
            lambda shapes, *_: layouts.BlockLayout(shapes, 4),
        )
    config = {
        "use_attention": True,
        "use_parameter_scale": True,
        "min_log_lr": -5.5,
    }
    singles = [_setting(config, seed) for seed in range(3)]
    rule = singles[0][0]

    def stack(parts):
        return tf.nest.map_structure(lambda *a: np.stack(a), *parts)

    weights, params, log_lrs, grads = (
        stack([single[i] for single in singles]) for i in range(1, 5)
    )
    state = rule.init_state(weights, params, log_lrs)
    for gradient in grads:
        params, state = rule.step(weights, state, params, gradient)
    for k, (_, w, p, log_lr, gs) in enumerate(singles):
        alone = rule.init_state(w, p, log_lr)
        for g in gs:
            p, alone = rule.step(w, alone, p, g)
        for together, single in zip(params, p):
            np.testing.assert_allclose(
                together[k], single, rtol=1e-4, atol=1e-6
            )


def test_gradients_are_finite_at_the_start():
    rule, weights, params, log_lrs, grads = _setting({})
    weights = {name: tf.constant(a) for name, a in weights.items()}
    with tf.GradientTape() as tape:
        tape.watch(weights)
        state = rule.init_state(weights, params, log_lrs)
        for gradient in grads[:3]:
            params, state = rule.step(weights, state, params, gradient)
        total = tf.add_n([tf.reduce_sum(p) for p in params])
    for name, gradient in tape.gradient(total, weights).items():
        assert np.all(np.isfinite(gradient)), name


def test_saturated_decays_keep_gradients_finite():
    decay = tf.constant([[0.0, 1e-38, 1e-20, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(decay)
        total = tf.reduce_sum(hierarchical_rnn_element._roots(decay, 4))
    assert np.all(np.isfinite(tape.gradient(total, decay)))


def test_clipping_passes_the_gradient():
    value = tf.constant([-50.0, 0.0, 1e9])
    with tf.GradientTape() as tape:
        tape.watch(value)
        clipped = hierarchical_rnn_element._clip_straight_through(
            value, -33.0, 33.0
        )
    np.testing.assert_array_equal(clipped, [-33, 0, 33])
    np.testing.assert_array_equal(tape.gradient(clipped, value), [1, 1, 1])


def test_huge_gradients_do_not_poison_the_state():
    rule, weights, params, log_lrs, grads = _setting({})
    state = rule.init_state(weights, params, log_lrs)
    grads[2] = [np.full_like(g, 3e37) for g in grads[2]]
    for gradient in grads:
        params, state = rule.step(weights, state, params, gradient)
    for value in tf.nest.flatten((params, state)):
        assert np.all(np.isfinite(value))


@pytest.mark.parametrize("scale", [1.0, 8.0, 1000.0])
def test_parameters_of_any_size_move_as_far(scale):
    """With `use_parameter_scale`; without it, a step is a step."""
    moved = {}
    for use in (True, False):
        rule, weights, params, log_lrs, grads = _setting(
            {"use_parameter_scale": use, "init_lr_range": (0.1, 1.0)}
        )
        params = [2 * p / np.sqrt(np.mean(p**2)) for p in params]
        # Far from the epsilons, at every scale.
        grads = [[1e6 * g for g in gradient] for gradient in grads]
        start = [scale * p for p in params]
        state, now = rule.init_state(weights, start, log_lrs), start
        for gradient in grads:
            gradient = [np.float32(g / scale) for g in gradient]
            now, state = rule.step(weights, state, now, gradient)
        moved[scale, use] = [(a - b) / scale for a, b in zip(now, start)]
        state, now = rule.init_state(weights, params, log_lrs), params
        for gradient in grads:
            now, state = rule.step(weights, state, now, gradient)
        moved[use] = [a - b for a, b in zip(now, params)]
    for ours, expected in zip(moved[scale, True], moved[True]):
        np.testing.assert_allclose(ours, expected, rtol=2e-2, atol=1e-3)
    for ours, expected in zip(moved[scale, False], moved[False]):
        far = np.abs(expected).max()
        assert np.abs(ours).max() == pytest.approx(far / scale, rel=0.2)
    # Two is the unit of theirs.
    for ours, plain in zip(moved[True], moved[False]):
        np.testing.assert_allclose(ours, 2 * plain, rtol=1e-4, atol=1e-6)


def test_small_parameters_have_no_unit_of_their_own():
    rule, weights, params, log_lrs, _ = _setting({"use_parameter_scale": True})
    small = [0.3 * p / np.sqrt(np.mean(p**2)) for p in params]
    mixed = [small[0], *params[1:]]
    state = rule.init_state(weights, mixed, log_lrs)
    roots = [np.sqrt(np.mean(p**2)) for p in params]
    expected = [1.0, *(max(1.0, root) for root in roots[1:])]
    np.testing.assert_allclose(state["parameter_scale"][0], expected, rtol=1e-6)


def test_a_huge_tensor_leaves_the_scale_of_the_others():
    rule, weights, params, log_lrs, _ = _setting({"use_parameter_scale": True})
    params = [np.full_like(p, v) for p, v in zip(params, (1e30, 3, np.nan, 2))]
    state = rule.init_state(weights, params, log_lrs)
    scale = np.array(state["parameter_scale"][0])
    np.testing.assert_allclose(scale, [1e15, 3, 1, 2], rtol=1e-5)


def test_starting_learning_rates():
    rule = HierarchicalRNNRule(init_lr_range=(1e-6, 1e-2))
    rng = np.random.default_rng(0)
    (log_lrs,) = rule.draw_log_learning_rates(
        [rng.random((1000, 50))], [rng.random((1000, 1))]
    )
    assert np.log(1e-6) <= log_lrs.min() < np.log(2e-6)
    assert np.log(5e-3) < log_lrs.max() <= np.log(1e-2)
    rule = HierarchicalRNNRule(init_lr_range=(1e-3, 1e-3))
    (log_lrs,) = rule.draw_log_learning_rates([rng.random(5)], [rng.random(1)])
    np.testing.assert_allclose(log_lrs, np.log(1e-3))


def test_number_of_meta_parameters():
    counts = {
        8349: {},
        8363: {"use_attention": True},
        3979: {"level_sizes": (10, 20)},
        749: {"level_sizes": (10,)},
    }
    for count, config in counts.items():
        weights = HierarchicalRNNRule(**config).init_weights(0)
        assert sum(w.size for w in weights.values()) == count


@pytest.mark.parametrize(
    "config, message",
    [
        ({"level_sizes": ()}, "level_sizes"),
        ({"level_sizes": (1, 2, 3, 4)}, "level_sizes"),
        ({"level_sizes": (0,)}, "level_sizes"),
        ({"num_gradient_scales": 0}, "num_gradient_scales"),
        ({"init_lr_range": (1e-2, 1e-6)}, "init_lr_range"),
        ({"dynamic_output_scale": False}, "use_relative_lr"),
        (
            {
                "dynamic_output_scale": False,
                "use_relative_lr": False,
                "use_parameter_scale": True,
            },
            "use_parameter_scale",
        ),
    ],
)
def test_bad_arguments(config, message):
    with pytest.raises(ValueError, match=message):
        HierarchicalRNNRule(**config)


def test_config_round_trip():
    rule = HierarchicalRNNRule(level_sizes=(3, 4), use_attention=True)
    again = HierarchicalRNNRule(**rule.get_config())
    assert again.get_config() == rule.get_config()
