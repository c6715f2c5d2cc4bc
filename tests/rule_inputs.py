"""What the tests of update rules step on: parameters, rates, gradients."""

import numpy as np

SHAPES = [(4, 3), (5,), (), (2, 2, 3)]


def draw(rule, rng):
    """(params, log learning rates, gradients of 8 steps) of `SHAPES`."""
    params = [rng.normal(size=s).astype("float32") for s in SHAPES]
    log_lrs = rule.draw_log_learning_rates(
        [rng.random(s, "float32") for s in SHAPES],
        [rng.random((1,) * len(s), "float32") for s in SHAPES],
    )
    grads = [
        [
            (rng.normal(size=s) * 10.0 ** (i - 3)).astype("float32")
            for s in SHAPES
        ]
        for i in range(8)
    ]
    # A whole tensor without gradient at the very first step, and later.
    for step in (0, 5):
        grads[step][1] = np.zeros_like(grads[step][1])
    return params, log_lrs, grads
