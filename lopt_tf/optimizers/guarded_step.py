"""A rule's step as a Keras optimizer takes it: a pure function.

It adds what is no part of the rule: weight decay, types of variables, and what
is measured at the first step.
"""

import typing

from keras import ops

from lopt_tf.optimizers import attention, backends, layouts


class Step(typing.NamedTuple):
    """What `take` returns."""

    params: list
    state: dict


def are_finite(grads):
    """Whether all elements of a list of tensors are finite: a boolean."""
    return ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in grads]))


def take(rule, *arguments, layers=None):
    """The `Step` with new parameters and state.

    Args:
        rule: the `UpdateRule`.
        *arguments: those of `_take`. Lists of tensors, one for each
            parameter; grads are None where there is no gradient.
        layers: tuple, as for `UpdateRule.init_state`. Defaults to `None`.
    """
    params, grads = arguments[2], arguments[3]
    present = tuple(i for i, g in enumerate(grads) if g is not None)
    fixed = {"rule": rule, "present": present, "layers": layers}
    if isinstance(layouts.choose_layout(params), layouts.ShardedLayout):
        return _take(*arguments, **fixed)
    return backends.compiled(_take, **fixed)(*arguments)


def _take(
    weights,
    state,
    params,
    grads,
    learning_rate,
    kept_shares,
    rule,
    present,
    layers,
):
    """The `Step` with new parameters and state.

    Args:
        weights: {name: array}, its meta-parameters.
        state: {name: packed elements or array}, its state.
        params: list of tensors, of the variables' types.
        grads: list of float32 tensors, None where there is no gradient.
        learning_rate: scalar.
        kept_shares: what weight decay leaves of each of `params`, a list of
            scalars; None without weight decay.
        rule: the `UpdateRule`.
        present: indices of `params` that have a gradient; the others rest.
        layers: as for `UpdateRule.init_state`.
    """
    old = [ops.cast(p, "float32") for p in params]
    grads = [
        ops.zeros(p.shape, "float32") if g is None else g
        for g, p in zip(grads, params)
    ]
    state = _measured(rule, state, old, layers)
    if rule.attends:
        true = attention.packed_true_parameters(rule, state, old)
        state = {**state, "true_parameters": true}
    decayed = old
    if kept_shares is not None:
        decayed, state = _decayed(rule, state, old, kept_shares, present)
    new, new_state = rule.step(
        weights, state, decayed, grads, learning_rate, present
    )
    new = [ops.cast(n, p.dtype) for n, p in zip(new, params)]
    return Step(new, new_state)


def _measured(rule, state, params, layers):
    """The state with what is measured at the first step."""
    for name in rule.measures:
        old = ops.convert_to_tensor(state[name])
        new = ops.cond(
            ops.all(old == 0),
            lambda name=name: rule.measured(params, 0, layers)[name],
            lambda old=old: old,
        )
        state = {**state, name: new}
    return state


def _decayed(rule, state, params, shares, present):
    """Weight decay: of the parameters, or with attention of the true ones."""
    if not rule.attends:
        return [p * share for p, share in zip(params, shares)], state
    layout = layouts.choose_layout(params)
    true = layout.unpack(state["true_parameters"])
    true = layout.pack(
        [
            t * share if i in present else t
            for i, (t, share) in enumerate(zip(true, shares))
        ]
    )
    return params, {**state, "true_parameters": true}
