"""Updates of one of two networks in each of many episodes."""

import functools
import typing

import tensorflow as tf

from problems.alternating import gan_losses, gan_nets

NAMES = ("discriminator", "generator")
_BETA_1, _BETA_2, _EPSILON = 0.5, 0.999, 1e-8
# Of the moving averages of losses (published).
DECAY = 0.9
# What an update changes in the state of an episode, and what it needs besides.
_UPDATED = (
    *("params", "first_moments", "second_moments", "updates"),
    *("magnitudes", "averages"),
)
_NEEDED = ("rates", "seed")


class Updates(typing.NamedTuple):
    """What all updates of a task have in common.

    Attributes:
        nets: a `gan_nets.Nets`.
        losses: a `gan_losses.Loss`.
        real: the real images [count, pixels].
        batch_size: images of an update.
    """

    nets: gan_nets.Nets
    losses: gan_losses.Loss
    real: tf.Tensor
    batch_size: int


def updated(state, choice, updates):
    """The state after one update of each episode: what it changes.

    Episodes are updated one after the other. Side by side, each would have to
    compute both networks' gradients.

    Args:
        state: see `Gan.reset`.
        choice: 0 to update the discriminator, 1 the generator, 2 none [E].
        updates: an `Updates`.
    """
    time = state["time"]
    parts = {name: state[name] for name in (*_UPDATED, *_NEEDED)}
    signature = {
        name: tf.nest.map_structure(
            lambda x: tf.TensorSpec(x.shape[1:], x.dtype), parts[name]
        )
        for name in _UPDATED
    }

    def update(each):
        parts, choice = each
        branches = [
            functools.partial(_update, place, parts, time, updates)
            for place in range(2)
        ]
        kept = {name: parts[name] for name in _UPDATED}
        return tf.switch_case(choice, [*branches, lambda: dict(kept)])

    return tf.map_fn(update, (parts, choice), fn_output_signature=signature)


def normal(shape, seed, place):
    """Normal numbers from a start's seed and a place in its stream."""
    # The default algorithm takes nine times as long under XLA on CPUs.
    return tf.random.stateless_normal(
        shape, tf.stack([seed, place]), alg="threefry"
    )


def _update(place, parts, time, updates):
    """Adam on the discriminator (0) or the generator (1) of one episode."""
    name, params, seed = NAMES[place], parts["params"], parts["seed"]
    gradient, found = _gradient(place, params, seed, time, updates)
    first, second = (
        parts[moments][name] for moments in ("first_moments", "second_moments")
    )
    first = _BETA_1 * first + (1 - _BETA_1) * gradient
    second = _BETA_2 * second + (1 - _BETA_2) * tf.square(gradient)
    power = tf.cast(parts["updates"][place] + 1, tf.float32)
    rate = parts["rates"][place] * tf.sqrt(1 - _BETA_2**power)
    rate /= 1 - _BETA_1**power
    net = params[name] - rate * first / (tf.sqrt(second) + _EPSILON)
    magnitude = tf.sqrt(tf.reduce_mean(tf.square(gradient)))
    here = tf.one_hot(place, 2)
    return {
        "params": {**params, name: net},
        "first_moments": {**parts["first_moments"], name: first},
        "second_moments": {**parts["second_moments"], name: second},
        "updates": parts["updates"] + tf.cast(here, tf.int32),
        "magnitudes": tf.where(here > 0, magnitude, parts["magnitudes"]),
        "averages": _averaged(parts, place, found),
    }


def _gradient(place, params, seed, time, updates):
    """The gradient of a network [numbers], and the losses [3] on the way."""
    nets, losses, real, size = updates
    z = normal([size, nets.z_dim], seed, 2 * time)
    vector = params[NAMES[place]]
    with tf.GradientTape() as tape:
        tape.watch(vector)
        if place == 1:
            loss, found = losses.generator(nets, params, z)
        else:
            rows = tf.random.stateless_uniform(
                [size],
                tf.stack([seed, 2 * time + 1]),
                maxval=len(real),
                dtype=tf.int32,
                alg="threefry",
            )
            places = functools.partial(
                tf.random.stateless_uniform,
                seed=tf.stack([seed, -1 - time]),
                alg="threefry",
            )
            loss, found = losses.discriminator(
                nets, params, tf.gather(real, rows), z, places
            )
    return tape.gradient(loss, vector), found


def _averaged(parts, place, found):
    """Moving averages of the generator's loss and D's fake and real parts.

    They start at the first value; a generator's update has no real part.

    Args:
        parts: of the state, before the update.
        place: 0 for an update of the discriminator, 1 for the generator's.
        found: the losses [3] of this update.
    """
    before, updates = parts["averages"], parts["updates"]
    is_first = tf.stack(2 * [tf.reduce_sum(updates) == 0] + [updates[0] == 0])
    decay = tf.where(is_first, 0.0, DECAY)
    after = decay * before + (1 - decay) * found
    return after if place == 0 else tf.concat([after[:2], before[2:]], 0)
