"""Proximal policy optimisation, while the task is still training."""

import keras
import numpy as np
import tensorflow as tf

from lopt_tf.autoloss import named_arrays
from lopt_tf.autoloss import policy as policy_lib

_REPLAY_SEGMENTS = 4
_BATCHES = 3


class PPO:
    """Updates a policy every 50 task steps from step rewards alone.

    The replay holds the last 200 transitions of each episode; each update
    takes three batches from it, of 64 transitions an episode.

    Args:
        policy: a `Policy`.
        options: `ControllerOptions`.
    """

    segment_length = 50

    def __init__(self, policy, options):
        self.policy = policy
        self.options = options
        self.value = policy_lib.value_network(32, options.seed)
        self.value.build([None, len(options.features)])
        self.optimizer = keras.optimizers.Adam(options.learning_rate)
        self.optimizer.build(self._variables())
        self.updates = 0
        self._epsilon = 0.0
        self._replay = []
        self._metrics = []
        self._update = tf.function(self._batch_update, jit_compile=True)

    def _variables(self):
        return [
            *self.policy.trainable_variables,
            *self.value.trainable_variables,
        ]

    def _state_variables(self):
        return [*self.value.variables, *self.optimizer.variables]

    def epsilon(self, done):
        """The share of random actions falls from 0.5 to 0.1."""
        self._epsilon = 0.5 - 0.4 * min(done, 1.0)
        return self._epsilon

    def after_segment(self, records):
        """Takes the next `Records`, and updates policy and value."""
        self._replay = [*self._replay, records][-_REPLAY_SEGMENTS:]
        batch = self._transitions()
        live = np.flatnonzero(batch.pop("alive"))
        rng = np.random.default_rng([self.options.seed, self.updates])
        self.updates += 1
        if not live.size:
            return
        # Resampled to one size: compiled functions have static shapes.
        size = 64 * records.alive.shape[1]
        order = np.resize(rng.permutation(live), _BATCHES * size)
        for places in np.split(order, _BATCHES):
            chosen = {k: tf.constant(v[places]) for k, v in batch.items()}
            metrics = self._update(chosen, tf.constant(self._epsilon))
            self._metrics.append([float(x) for x in metrics])

    def _transitions(self):
        """The replay as flat arrays, with advantages and returns."""
        parts = self._replay
        features = np.concatenate([p.features for p in parts])
        alive = np.concatenate([p.alive for p in parts])
        rewards = np.concatenate([p.reward for p in parts])
        values = self._values(features)
        options = self.options
        # An episode that has finished has no value any more.
        last = self._values(parts[-1].following.numpy())
        last = last * ~parts[-1].finished.numpy()
        advantages = generalised_advantages(
            rewards, values, last, alive, options.discount, options.gae_lambda
        )
        flat = {
            "features": features,
            "actions": np.concatenate([p.actions for p in parts]),
            "log_prob": np.concatenate([p.log_prob for p in parts]),
            "advantages": advantages,
            "returns": advantages + values,
            "alive": alive,
        }
        return {
            name: x.reshape(-1, *x.shape[2:]).astype(
                x.dtype if x.dtype.kind in "ib" else "float32"
            )
            for name, x in flat.items()
        }

    def _values(self, features):
        flat = features.reshape(-1, features.shape[-1])
        return self.value(flat).numpy().reshape(features.shape[:-1])

    def _batch_update(self, batch, epsilon):
        advantages = batch["advantages"]
        deviation = tf.math.reduce_std(advantages) + 1e-6
        advantages = (advantages - tf.reduce_mean(advantages)) / deviation
        with tf.GradientTape() as tape:
            new = self.policy.distribution(batch["features"], epsilon)
            gain = clipped_objective(
                new.log_prob(batch["actions"]),
                batch["log_prob"],
                advantages,
                self.options.clip,
            )
            entropy = tf.reduce_mean(new.entropy())
            values = self.value(batch["features"])[:, 0]
            error = tf.reduce_mean(tf.square(values - batch["returns"]))
            loss = (
                0.5 * error
                - tf.reduce_mean(gain)
                - self.options.entropy_bonus * entropy
            )
        gradients = tape.gradient(loss, self._variables())
        self.optimizer.apply(gradients, self._variables())
        return entropy, error

    def after_round(self, final_rewards, period):
        """The next round begins with an empty replay; what to report."""
        del final_rewards, period
        means = np.mean(self._metrics, axis=0)
        self._replay, self._metrics = [], []
        return {
            "entropy": float(means[0]),
            "value_error": float(means[1]),
        }

    def state(self):
        """(arrays, metadata) to go on from."""
        arrays = named_arrays.read("learner", self._state_variables())
        return arrays, {"updates": self.updates}

    def restore(self, arrays, metadata):
        """Goes on from what `state` returned."""
        named_arrays.assign("learner", self._state_variables(), arrays)
        self.updates = metadata["updates"]


def generalised_advantages(rewards, values, last, alive, discount, decay):
    """Generalised advantage estimates.

    Args:
        rewards: [T, E].
        values: of the states before each step [T, E].
        last: of the states after the last step [E], 0 where there is none.
        alive: whether the episode had not finished before the step [T, E].
        discount: of future rewards.
        decay: lambda, between 0 (one step) and 1 (whole returns).

    Returns:
        [T, E]; 0 where an episode had finished.
    """
    advantages = np.zeros_like(values)
    following, gathered = last, np.zeros_like(last)
    for t in reversed(range(len(rewards))):
        error = rewards[t] + discount * following - values[t]
        gathered = np.where(alive[t], error + discount * decay * gathered, 0)
        following = np.where(alive[t], values[t], 0)
        advantages[t] = gathered
    return advantages


def clipped_objective(new_log_prob, old_log_prob, advantages, clip):
    """min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A), element-wise."""
    ratio = tf.exp(new_log_prob - old_log_prob)
    bounded = tf.clip_by_value(ratio, 1 - clip, 1 + clip)
    return tf.minimum(ratio * advantages, bounded * advantages)
