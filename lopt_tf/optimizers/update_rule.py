"""The update-rule interface.

An update rule is pure: weights (the meta-parameters), state, parameters and
gradients are plain structures of arrays. All arrays may carry the same
leading axes, for instance one axis of K independent inner problems with K
sets of weights.
"""

import dataclasses
import math

from keras import ops

from lopt_tf.optimizers.layouts import choose_layout


class UpdateRule:
    """How a learned optimizer turns gradients into steps.

    A subclass is a frozen dataclass: its fields are its settings. Rules with
    equal settings are equal. It implements `init_weights`, `init_state` and
    `updates`. `step` is the one update function of the package: meta-training,
    the Keras optimizer and the evaluation all call it.

    Attributes:
        name: identifies the rule in files and on command lines.
        before_training: what updates are like before meta-training.
        adjustable: settings that trained weights may also be used with.
        attends: whether gradients are taken at a point of the rule's choice
            (then the state holds the true parameters, see `step`).
        measures: names of what `measured` returns.
    """

    name = None
    adjustable = ()
    attends = False
    measures = ()
    before_training = "its updates are random"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = _typed(getattr(self, field.name), field.default)
            if value != value:
                raise ValueError(
                    f"Argument `{field.name}` must be a number. Received: "
                    f"{field.name}={value}"
                )
            object.__setattr__(self, field.name, value)

    def get_config(self):
        """Returns the settings, ready for JSON: {name: value}."""
        return {
            field.name: _listed(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }

    @classmethod
    def default_config(cls):
        """As `get_config`, of settings at their defaults."""
        return {
            field.name: _listed(field.default)
            for field in dataclasses.fields(cls)
            if field.default is not dataclasses.MISSING
        }

    def init_weights(self, seed):
        """Returns meta-parameters before meta-training: {name: array}."""
        raise NotImplementedError

    def init_state(self, weights, params, log_learning_rates, layers=None):
        """Returns the optimizer state at the start of an inner run.

        Args:
            weights: dict of meta-parameters, each with the same leading axes
                (usually none) before its own two.
            params: list of tensors, each with those leading axes.
            log_learning_rates: list of tensors shaped like `params`: the
                natural logarithm of each element's starting learning rate.
            layers: the `layers.Layers` of the network; None if they are not
                known. Defaults to `None`.
        """
        raise NotImplementedError

    def measured(self, params, batch_dims=0, layers=None):
        """The part of `init_state` that parameters' values decide.

        An optimizer may be built before its model has the values that
        training starts from; then these are measured at the first step.

        Args:
            params: list of tensors, where training starts.
            batch_dims: the number of their leading axes. Defaults to `0`.
            layers: as for `init_state`.
        """
        return {}

    def updates(self, weights, state, layout, gradients):
        """Returns `(steps, attended_steps, state)` for one inner step.

        All are packed by `layout`. `steps` are to be subtracted from the
        parameters; `attended_steps` is None, or what to subtract for the
        point where the next gradient is taken. Packed elements are opaque:
        the layout's `map` and `each` compute with them.
        """
        raise NotImplementedError

    def draw_log_learning_rates(self, uniforms, tensor_uniforms):
        """Turns uniform draws in [0, 1) into starting log learning rates.

        A rule without learning rates of its own leaves it at zeros.

        Args:
            uniforms: list of arrays, shaped like the parameters.
            tensor_uniforms: list of arrays that broadcast against them, one
                draw for each tensor.
        """
        return [0.0 * u for u in uniforms]

    def step(
        self, weights, state, params, grads, learning_rate=1.0, present=None
    ):
        """One inner step: `(params, state)` after it.

        Args:
            weights: dict of meta-parameters.
            state: what `init_state` or the last `step` returned.
            params: list of tensors: the point where `grads` were taken.
            grads: list of tensors shaped like `params`.
            learning_rate: multiplies the learned step. Defaults to `1.0`.
            present: tuple of the indices of tensors that have a gradient;
                None for all. The others rest: they and their state stay as
                they are, and are in no mean over the problem. Defaults to
                `None`.
        """
        layout = choose_layout(params, batch_rank(weights), present)
        steps, attended_steps, new = self.updates(
            weights, state, layout, layout.pack(grads)
        )

        def moved(elements, steps):
            # Float64 parameters keep their digits.
            return elements - ops.cast(learning_rate * steps, elements.dtype)

        if attended_steps is None:
            point = map(moved, params, layout.unpack(steps))
        else:
            true = state["true_parameters"]
            point = layout.unpack(layout.each(moved, true, attended_steps))
            new = {**new, "true_parameters": layout.each(moved, true, steps)}
        point = [
            new_value if rests == 0 else old
            for new_value, old, rests in zip(point, params, 1 - layout.counts)
        ]
        return point, _resting(layout, state, new)

    def has_started(self, state):
        """Whether a step was taken since `init_state`: a boolean tensor.

        Rules that attend implement it.
        """
        raise NotImplementedError

    def true_parameters(self, weights, state, params):
        """The parameters to evaluate: `params`, unless attention moved them."""
        if not self.attends:
            return params
        layout = choose_layout(params, batch_rank(weights))
        return layout.unpack(state["true_parameters"])


def _typed(value, default):
    """A setting in the type of its default: JSON has lists, users integers."""
    if isinstance(default, tuple):
        return tuple(_typed(part, default[0]) for part in value)
    return type(default)(value) if type(default) in (int, float) else value


def _listed(value):
    return list(value) if isinstance(value, tuple) else value


def _resting(layout, old, new):
    """The new state; what belongs to resting tensors is the old one."""
    if layout.counts.all():
        return new
    counts = ops.convert_to_tensor(layout.counts[None])
    spread = layout.spread(counts)

    def chosen(counts, new, old):
        return ops.where(counts > 0, new, old)

    def of_tensors(new, old):
        if layout.is_packed(new):
            return layout.each(chosen, spread, new, old)
        if new.shape[-1] == len(layout.sizes):
            return chosen(counts, new, old)
        return new

    return {name: of_tensors(value, old[name]) for name, value in new.items()}


def check_init_lr_range(bounds):
    """Raises a ValueError for bounds of learning rates that cannot be."""
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] < math.inf:
        raise ValueError(
            "Argument `init_lr_range` must be (min, max) with "
            f"0 < min <= max < infinity. Received: init_lr_range={bounds}"
        )


def start_state(rule, weights, params, log_learning_rates, layers):
    """The state of inner runs at their start, as a Keras optimizer has it.

    Args:
        rule: an `UpdateRule`. It need not know of layers.
        weights, params, log_learning_rates, layers: as for
            `UpdateRule.init_state`.
    """
    state = rule.init_state(weights, params, log_learning_rates)
    if not rule.measures:
        return state
    return state | rule.measured(params, batch_rank(weights), layers)


def batch_rank(weights):
    """The number of leading axes that all arrays carry."""
    return len(next(iter(weights.values())).shape) - 2
