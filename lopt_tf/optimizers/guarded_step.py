"""A rule's step as a Keras optimizer takes it: a pure function.

It adds what is no part of the rule: weight decay, parameters without a gradient
that stay as they are, and steps that are skipped because a gradient is not
finite.
"""

import typing

from keras import ops

from lopt_tf.optimizers import attention, update_rule


class Step(typing.NamedTuple):
    """What `take` returns; `finite` is whether the step was taken."""

    params: list
    state: dict
    finite: object


def take(
    rule, weights, state, params, grads, learning_rate, kept_shares, present
):
    """The `Step` with new parameters and state, or the old ones.

    Args:
        rule: the `UpdateRule`.
        weights: {name: array}, its meta-parameters.
        state: {name: array}, its state.
        params: list of tensors, of the variables' types.
        grads: list of float32 tensors, one for each of `params`.
        learning_rate: scalar.
        kept_shares: what weight decay leaves of each of `params`, a list of
            scalars; None without weight decay.
        present: indices of `params` that have a gradient; the true parameters
            of the others stay as they are.
    """
    finite = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in grads]))
    # A NaN must not reach the unselected branch's arithmetic either.
    grads = [ops.where(finite, g, ops.zeros_like(g)) for g in grads]
    old = [ops.cast(p, "float32") for p in params]
    if rule.attends:
        true = attention.packed_true_parameters(rule, state, old)
        state = {**state, "true_parameters": true}
    decayed, decayed_state = old, state
    if kept_shares is not None:
        decayed, decayed_state = _decayed(rule, state, old, kept_shares)
    new, new_state = rule.step(
        weights, decayed_state, decayed, grads, learning_rate
    )
    if rule.attends and len(present) < len(params):
        layout = update_rule.choose_layout(params)
        true = layout.unpack(new_state["true_parameters"])
        unmoved = layout.unpack(state["true_parameters"])
        for i in set(range(len(params))) - set(present):
            true[i] = unmoved[i]
        new_state = {**new_state, "true_parameters": layout.pack(true)}
    return Step(
        [
            ops.cast(ops.where(finite, n, o), p.dtype)
            for n, o, p in zip(new, old, params)
        ],
        {
            name: ops.where(finite, new_state[name], value)
            for name, value in state.items()
        },
        finite,
    )


def _decayed(rule, state, params, shares):
    """Weight decay: of the parameters, or with attention of the true ones."""
    if not rule.attends:
        return [p * share for p, share in zip(params, shares)], state
    layout = update_rule.choose_layout(params)
    true = layout.unpack(state["true_parameters"])
    true = layout.pack([t * share for t, share in zip(true, shares)])
    return params, {**state, "true_parameters": true}
