"""Hand-made optimizers as update rules, to run beside learned ones.

They follow `keras.optimizers.Adam`, `RMSprop`, `SGD(momentum=0.9)`, `AdamW`,
`Lion` and `Muon` with their default arguments (but `exclude_embeddings=False`
for Muon), and Adam with Keras' schedule `CosineDecay`. The learning rate is the
rule's one weight, so that a whole grid of learning rates runs at once: Keras'
classes hold one rate each, and `LearnedAdam` has a smooth root, bounded squares
and more weights.
"""

import dataclasses
import functools
import math

import numpy as np
from keras import ops

from lopt_tf.optimizers import layouts, update_rule

# Of Keras' AdamW and Muon: a step removes this times the learning rate of
# every parameter.
_WEIGHT_DECAY = 0.004
# Keras' constants of Muon's iteration.
_A, _B, _C = 3.4445, -4.7750, 2.0315


@dataclasses.dataclass(frozen=True)
class _TunedRule(update_rule.UpdateRule):
    averages = ("velocity",)
    weight_decay = 0.0
    # Whether others should not have to pay for its arithmetic.
    is_costly = False

    @classmethod
    def for_run(cls, num_steps):
        """The rule for runs of so many steps."""
        del num_steps
        return cls()

    def init_weights(self, seed):
        return {"learning_rate": np.full((1, 1), 1e-3, "float32")}

    def init_state(self, weights, params, log_learning_rates):
        batch_dims = update_rule.batch_rank(weights)
        layout = layouts.choose_layout(params, batch_dims)
        batch = tuple(params[0].shape[:batch_dims])
        zeros = layout.fill(ops.zeros((*batch, 1, 1)))
        return dict.fromkeys(self.averages, zeros)

    def decay(self, weights):
        """What a step removes of each parameter, [..., 1, 1]; None: nothing."""
        if not self.weight_decay:
            return None
        return self.weight_decay * weights["learning_rate"]

    def step(self, weights, state, params, *args, **kwargs):
        decay = self.decay(weights)
        if decay is not None:
            batch = tuple(decay.shape[:-2])
            params = [
                p * (1 - ops.reshape(decay, batch + (1,) * rank))
                for p, rank in ((p, len(p.shape) - len(batch)) for p in params)
            ]
        return super().step(weights, state, params, *args, **kwargs)


class AdamRule(_TunedRule):
    """Adam: beta_1 0.9, beta_2 0.999, epsilon 1e-7."""

    name = "adam"
    averages = ("momentum", "velocity")

    def init_state(self, weights, params, log_learning_rates):
        state = super().init_state(weights, params, log_learning_rates)
        return {**state, "step": ops.zeros_like(weights["learning_rate"])}

    def updates(self, weights, state, layout, gradients):
        step = state["step"] + 1
        rate = self.learning_rate(weights, state["step"])
        rate = rate * ops.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        momentum = 0.9 * state["momentum"] + 0.1 * gradients
        velocity = 0.999 * state["velocity"] + 0.001 * ops.square(gradients)
        steps = rate * momentum / (ops.sqrt(velocity) + 1e-7)
        state = {"momentum": momentum, "velocity": velocity, "step": step}
        return steps, None, state

    def learning_rate(self, weights, step):
        """The learning rate after `step` steps; here always the same."""
        del step
        return weights["learning_rate"]


@dataclasses.dataclass(frozen=True)
class AdamCosineRule(AdamRule):
    """Adam whose learning rate falls to 0 by half a cosine.

    After t of T steps it is

        rate * (1 + cos(pi t / T)) / 2

    and after all T steps 0 (Loshchilov and Hutter 2017, equation 5, without
    restarts).

    Args:
        num_steps: T, the steps of the whole run.
    """

    name = "adam_cosine"

    num_steps: int

    @classmethod
    def for_run(cls, num_steps):
        return cls(num_steps)

    def learning_rate(self, weights, step):
        share = ops.minimum(step / self.num_steps, 1.0)
        return weights["learning_rate"] * (1 + ops.cos(math.pi * share)) / 2


class RMSPropRule(_TunedRule):
    """RMSProp: rho 0.9, epsilon 1e-7."""

    name = "rmsprop"

    def updates(self, weights, state, layout, gradients):
        velocity = 0.9 * state["velocity"] + 0.1 * ops.square(gradients)
        steps = gradients / ops.sqrt(velocity + 1e-7)
        return weights["learning_rate"] * steps, None, {"velocity": velocity}


class MomentumRule(_TunedRule):
    """Gradient descent with momentum 0.9."""

    name = "momentum"

    def updates(self, weights, state, layout, gradients):
        velocity = 0.9 * state["velocity"]
        velocity = velocity + weights["learning_rate"] * gradients
        return velocity, None, {"velocity": velocity}


class AdamWRule(AdamRule):
    """AdamW: Adam with a weight decay of 0.004 beside its step."""

    name = "adamw"
    weight_decay = _WEIGHT_DECAY


class LionRule(_TunedRule):
    """Lion: beta_1 0.9, beta_2 0.99."""

    name = "lion"
    averages = ("momentum",)

    def updates(self, weights, state, layout, gradients):
        momentum = state["momentum"]
        direction = ops.sign(0.9 * momentum + 0.1 * gradients)
        state = {"momentum": 0.99 * momentum + 0.01 * gradients}
        return weights["learning_rate"] * direction, None, state


class MuonRule(AdamRule):
    """Muon for matrices, AdamW for all else; embeddings count as matrices.

    The step of a matrix [m, n] is its Nesterov momentum (0.95), taken towards
    orthogonal by five steps of an iteration, times 0.2 sqrt(max(m, n)).
    """

    name = "muon"
    averages = ("momentum", "velocity", "matrix_momentum")
    weight_decay = _WEIGHT_DECAY
    is_costly = True

    def updates(self, weights, state, layout, gradients):
        momentum = 0.95 * state["matrix_momentum"] + gradients
        rate = weights["learning_rate"]
        steps, _, state = super().updates(weights, state, layout, gradients)
        directions = layout.unpack(gradients + 0.95 * momentum)
        steps = layout.unpack(steps)
        for i, shape in enumerate(layout.shapes):
            if len(shape) == 2:
                scale = 0.2 * max(shape) ** 0.5
                steps[i] = rate * scale * _orthogonal(directions[i])
        return (
            layout.pack(steps),
            None,
            {**state, "matrix_momentum": momentum},
        )


def _orthogonal(matrices):
    """Matrices [..., m, n] with singular values near 1, by Newton-Schulz."""
    is_high = matrices.shape[-2] > matrices.shape[-1]
    x = ops.swapaxes(matrices, -2, -1) if is_high else matrices
    squares = ops.sum(ops.square(x), axis=(-2, -1), keepdims=True)
    x = x / (ops.sqrt(squares) + 1e-7)
    for _ in range(5):
        product = ops.matmul(x, ops.swapaxes(x, -2, -1))
        mixed = _B * product + _C * ops.matmul(product, product)
        x = _A * x + ops.matmul(mixed, x)
    return ops.swapaxes(x, -2, -1) if is_high else x


BASELINES = {
    rule.name: rule
    for rule in (
        AdamRule,
        AdamCosineRule,
        RMSPropRule,
        MomentumRule,
        AdamWRule,
        LionRule,
        MuonRule,
    )
}
# Those that comparisons have unless they ask for others.
USUAL = ("adam", "adam_cosine", "rmsprop", "momentum")


@dataclasses.dataclass(frozen=True)
class SideBySide(_TunedRule):
    """Several baselines as one rule, which its weight "which" chooses from.

    Runs of different baselines thus share one compiled program.

    Args:
        num_steps: of the runs, for the learning rates that fall. Runs may be
            longer: these rates then stay at 0.
        names: keys of `BASELINES`. Defaults to the usual ones.
    """

    name = "baselines"

    num_steps: int
    names: tuple[str, ...] = USUAL

    @functools.cached_property
    def rules(self):
        """{name: rule}, in the order of the weight "which"."""
        return {n: BASELINES[n].for_run(self.num_steps) for n in self.names}

    def init_weights(self, seed):
        rate = super().init_weights(seed)
        return {**rate, "which": np.zeros((1, 1), "float32")}

    def weights(self, choices):
        """Weights [runs, 1, 1] of runs given as (baseline, learning rate)."""
        numbers = [(rate, self.names.index(name)) for name, rate in choices]
        rates, which = np.array(numbers, "float32").T[..., None, None]
        return {"learning_rate": rates, "which": which}

    def decay(self, weights):
        decays = [
            ops.cast(weights["which"] == number, "float32")
            * rule.decay(weights)
            for number, rule in enumerate(self.rules.values())
            if rule.weight_decay
        ]
        return sum(decays) if decays else None

    def init_state(self, weights, params, log_learning_rates):
        return {
            f"{name}/{part}": array
            for name, rule in self.rules.items()
            for part, array in rule.init_state(
                weights, params, log_learning_rates
            ).items()
        }

    def updates(self, weights, state, layout, gradients):
        steps, new = ops.zeros_like(gradients), {}
        for number, (name, rule) in enumerate(self.rules.items()):
            own = {
                part.removeprefix(f"{name}/"): array
                for part, array in state.items()
                if part.startswith(f"{name}/")
            }
            moved, _, own = rule.updates(weights, own, layout, gradients)
            new.update({f"{name}/{p}": array for p, array in own.items()})
            # A choice, not a sum: the others' steps may not be finite.
            steps = ops.where(weights["which"] == number, moved, steps)
        return steps, None, new
