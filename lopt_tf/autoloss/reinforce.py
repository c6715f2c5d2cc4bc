"""REINFORCE: the policy gradient of whole episodes (AutoLoss, section 4)."""

import keras
import numpy as np
import tensorflow as tf

from lopt_tf.autoloss import episodes, named_arrays
from lopt_tf.autoloss import rewards as rewards_lib


class Reinforce:
    """Updates a policy once after each round of parallel episodes.

    The advantage of a step is that of its episode, the final reward minus a
    moving average over rounds, clipped, plus the step's own reward relative
    to what other episodes had at the same step.

    Args:
        policy: a `Policy`.
        options: `ControllerOptions`.
    """

    segment_length = episodes.SEGMENT

    def __init__(self, policy, options):
        self.policy = policy
        self.options = options
        self.optimizer = keras.optimizers.Adam(options.learning_rate)
        self.optimizer.build(policy.trainable_variables)
        self.baseline = np.nan
        self._records = []
        self._gradient = tf.function(self._segment_gradient, jit_compile=True)

    def epsilon(self, done):
        """The share of random actions after a share of the training."""
        return 0.0

    def after_segment(self, records):
        """Takes the next `Records` of the round."""
        self._records.append(records)

    def after_round(self, final_rewards, period):
        """Updates the policy.

        Args:
            final_rewards: [E].
            period: steps between validations.

        Returns:
            {name: number}: what to report.
        """
        options, records = self.options, self._records
        self._records = []
        if np.isnan(self.baseline):
            self.baseline = float(np.mean(final_rewards))
        advantage = final_rewards - self.baseline
        clipped = np.clip(
            advantage, -options.advantage_clip, options.advantage_clip
        )
        decay = options.baseline_decay
        mean = float(np.mean(final_rewards))
        self.baseline = decay * self.baseline + (1 - decay) * mean
        total, entropy = None, 0.0
        for part in records:
            step = rewards_lib.spread(part.reward.numpy(), period)
            others = relative(step, part.alive.numpy())
            gradient, bits = self._gradient(
                part, tf.constant(np.float32(clipped + others))
            )
            entropy += float(bits)
            total = (
                gradient
                if total is None
                else [a + b for a, b in zip(total, gradient)]
            )
        self.optimizer.apply(
            [-g for g in total], self.policy.trainable_variables
        )
        steps = sum(int(tf.math.count_nonzero(r.alive)) for r in records)
        return {
            "entropy": entropy / steps,
            "gradient_norm": float(tf.linalg.global_norm(total)),
            "baseline": self.baseline,
        }

    def _segment_gradient(self, records, advantages):
        return policy_gradient(
            self.policy,
            records.features,
            records.actions,
            tf.where(records.alive, advantages, 0.0),
            tf.cast(records.alive, tf.float32),
            self.options.entropy_bonus,
        )

    def state(self):
        """(arrays, metadata) to go on from."""
        arrays = named_arrays.read("learner", self.optimizer.variables)
        return arrays, {"baseline": self.baseline}

    def restore(self, arrays, metadata):
        """Goes on from what `state` returned."""
        named_arrays.assign("learner", self.optimizer.variables, arrays)
        self.baseline = metadata["baseline"]


def policy_gradient(
    policy, features, actions, advantages, mask, entropy_bonus=0.0
):
    """The REINFORCE gradient: sum over t of grad log p(y_t|x_t) * advantage.

    Args:
        policy: a `Policy`.
        features: [T, E, features].
        actions: integers [T, E].
        advantages: [T, E]; 0 for steps that do not count.
        mask: 1.0 for steps that count, else 0.0 [T, E].
        entropy_bonus: weight of the policy's entropy.

    Returns:
        The mean over episodes, one array for each trainable variable (uphill),
        and the sum of entropies.
    """
    width = features.shape[-1]
    with tf.GradientTape() as tape:
        distribution = policy.distribution(tf.reshape(features, [-1, width]))
        log_prob = distribution.log_prob(tf.reshape(actions, [-1]))
        entropy = tf.reduce_sum(distribution.entropy() * tf.reshape(mask, [-1]))
        total = tf.reduce_sum(log_prob * tf.reshape(advantages, [-1]))
        objective = (total + entropy_bonus * entropy) / features.shape[1]
    return tape.gradient(objective, policy.trainable_variables), entropy


def relative(rewards, alive):
    """Rewards [T, E] minus the mean of the other episodes still alive.

    An episode that is the last alive keeps its rewards as they are.
    """
    count = alive.sum(1, keepdims=True)
    total = (rewards * alive).sum(1, keepdims=True)
    others = (total - rewards) / np.maximum(count - 1, 1)
    return np.where(alive, rewards - np.where(count > 1, others, 0.0), 0.0)
