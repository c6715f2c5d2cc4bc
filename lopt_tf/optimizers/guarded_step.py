"""A rule's step as a Keras optimizer takes it: a pure function.

It adds what is no part of the rule: weight decay, types of variables, what is
measured at the first step, and whether the step may be taken.
"""

import typing

from keras import ops

from lopt_tf.optimizers import attention, backends, inputs, layouts


class Step(typing.NamedTuple):
    """What `take` returns.

    Attributes:
        params: list of tensors, of the variables' types.
        state: {name: packed elements or array}.
        attended: with attention what `params` are, packed; else None.
        finite: whether all parameters are finite: a boolean tensor.
    """

    params: list
    state: dict
    attended: object
    finite: object


def are_finite(tensors):
    """Whether all elements of a list of tensors are finite: a boolean."""
    return ops.all(ops.stack([ops.all(ops.isfinite(t)) for t in tensors]))


def take(rule, *arguments, layers=None, constrained=(), jit_compile="auto"):
    """The `Step` with new parameters and state.

    Args:
        rule: the `UpdateRule`.
        *arguments: those of `_take`. Lists of tensors, one for each
            parameter; grads are None where there is no gradient.
        layers: as for `UpdateRule.init_state`. Defaults to `None`.
        constrained: as for `attention.truth`. Defaults to `()`.
        jit_compile: as for `LearnedOptimizer`. Defaults to `"auto"`.
    """
    params, grads = arguments[2], arguments[3]
    present = tuple(i for i, g in enumerate(grads) if g is not None)
    fixed = {
        "rule": rule,
        "present": present,
        "layers": layers,
        "constrained": constrained,
    }
    with backends.jit_compiling(jit_compile):
        if layouts.is_sharded(params):
            return _take(*arguments, **fixed)
        return backends.compiled(_take, **fixed)(*arguments)


def _take(
    weights,
    state,
    params,
    grads,
    learning_rate,
    decays,
    points,
    rule,
    present,
    layers,
    constrained,
):
    """The `Step` with new parameters and state.

    Args:
        weights: {name: array}, its meta-parameters.
        state: {name: packed elements or array}, its state.
        params: list of tensors, of the variables' types.
        grads: list of float32 tensors, None where there is no gradient.
        learning_rate: scalar.
        decays: what weight decay removes of each of `params`, a list of
            scalars; None without weight decay.
        points: with attention an `attention.Points`; else ().
        rule: the `UpdateRule`.
        present: indices of `params` that have a gradient; the others rest.
        layers: as for `UpdateRule.init_state`.
        constrained: as for `attention.truth`.
    """
    # Float64 parameters keep their digits, half ones are rounded once.
    old = [inputs.wide(p) for p in params]
    grads = [
        ops.zeros(p.shape, "float32") if g is None else g
        for g, p in zip(grads, params)
    ]
    state = _measured(rule, state, old, layers)
    layout = layouts.choose_layout(params)
    decayed = [_less(p, decays, i) for i, p in enumerate(old)]
    if rule.attends:
        true, _ = attention.truth(rule, state, params, points, constrained)
        true = [
            _less(t, decays, i) if i in present else t
            for i, t in enumerate(true)
        ]
        state = {**state, "true_parameters": layout.pack(true)}
        decayed = old
    new, new_state = rule.step(
        weights, state, decayed, grads, learning_rate, present
    )
    new = [ops.cast(n, p.dtype) for n, p in zip(new, params)]
    finite = are_finite([new[i] for i in present])
    attended = None
    if rule.attends:
        attended = layout.pack([inputs.wide(n) for n in new])
        true = layout.unpack(new_state["true_parameters"])
        true = [ops.cast(t, p.dtype) for t, p in zip(true, params)]
        finite = ops.logical_and(finite, are_finite([true[i] for i in present]))
    return Step(new, new_state, attended, finite)


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


def _less(param, decays, i):
    """What weight decay leaves of parameter number i."""
    if decays is None:
        return param
    return param * (1 - ops.cast(decays[i], param.dtype))
