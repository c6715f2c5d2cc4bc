"""REINFORCE: the policy gradient of whole episodes (AutoLoss, section 4)."""

import keras
import numpy as np
import tensorflow as tf

from lopt_tf import compilation
from lopt_tf.autoloss import episodes, learner, rewards

# Of the rewards of a group (chosen for scores of about 5).
_LEAST_DEVIATION = 0.2


class Reinforce(learner.Learner):
    """Updates a policy once after each round of parallel episodes.

    The advantage of a step is that of its episode, the final reward minus a
    moving average over rounds (or compared with its group's), clipped, plus
    the step's own reward relative to what other episodes had at the same step.
    """

    remembered = ("baseline",)

    def __init__(self, policy, options, period=1):
        super().__init__(policy, options, period)
        self.optimizer = keras.optimizers.Adam(options.learning_rate)
        self.optimizer.build(policy.trainable_variables)
        self.variables = self.optimizer.variables
        self.baseline = np.nan
        self.forget()

        def gradient(*records):
            return policy_gradient(
                policy, *records, options.entropy_bonus, options.exploration
            )

        self._gradient = compilation.compiled(gradient)

    def after_segment(self, records):
        self._records.append(records)

    def resume_round(self, records, facts):
        self._records = list(records)

    def forget(self):
        self._records = []

    def after_round(self, final_rewards):
        # Whole rounds: a period may reach beyond a segment.
        whole = episodes.joined(self._records)
        steps = relative(rewards.spread(whole.reward, self.period), whole.alive)
        advantages = self._advantages(final_rewards) + steps
        advantages = np.float32(np.where(whole.alive, advantages, 0))
        ends = np.cumsum([len(r.alive) for r in self._records])[:-1]
        parts = [
            self._gradient(r.features, r.actions, those, np.float32(r.alive))
            for r, those in zip(self._records, np.split(advantages, ends))
        ]
        self.forget()
        gradients, entropies = zip(*parts)
        total = [sum(each) for each in zip(*gradients)]
        self.optimizer.apply(
            [-g for g in total], self.policy.trainable_variables
        )
        return {
            "entropy": sum(map(float, entropies)) / int(whole.alive.sum()),
            "gradient_norm": float(tf.linalg.global_norm(total)),
            "baseline": self.baseline,
        }

    def _advantages(self, final_rewards):
        """Clipped advantages of the episodes [E]; moves the baseline."""
        options, mean = self.options, float(np.mean(final_rewards))
        if np.isnan(self.baseline):
            self.baseline = mean
        bound, decay = options.advantage_clip, options.baseline_decay
        gains = final_rewards - self.baseline
        if options.group > 1:
            gains = of_groups(final_rewards, options.group)
        self.baseline = decay * self.baseline + (1 - decay) * mean
        return np.clip(gains, -bound, bound)


def policy_gradient(
    policy,
    features,
    actions,
    advantages,
    mask,
    entropy_bonus=0.0,
    epsilon=0.0,
):
    """The REINFORCE gradient: sum over t of grad log p(y_t|x_t) * advantage.

    Args:
        policy: a `Policy`.
        features: [T, E, features].
        actions: integers [T, E].
        advantages: [T, E]; 0 for steps that do not count.
        mask: 1.0 for steps that count, else 0.0 [T, E].
        entropy_bonus: weight of the policy's entropy.
        epsilon: the share of actions that were drawn evenly.

    Returns:
        The mean over episodes, one array for each trainable variable (uphill),
        and the sum of entropies.
    """
    width = features.shape[-1]
    with tf.GradientTape() as tape:
        distribution = policy.distribution(
            tf.reshape(features, [-1, width]), epsilon
        )
        log_prob = distribution.log_prob(tf.reshape(actions, [-1]))
        entropy = tf.reduce_sum(distribution.entropy() * tf.reshape(mask, [-1]))
        total = tf.reduce_sum(log_prob * tf.reshape(advantages, [-1]))
        objective = (total + entropy_bonus * entropy) / features.shape[1]
    return tape.gradient(objective, policy.trainable_variables), entropy


def of_groups(final_rewards, group):
    """Advantages [E] of episodes against the others of their groups.

    The difference to the mean of the others (leave-one-out), over the group's
    deviation + 0.2. So a group in which nothing differs teaches little.

    Args:
        final_rewards: [E].
        group: episodes of a group; they follow each other.
    """
    rewards = np.reshape(final_rewards, [-1, group])
    others = (rewards.sum(1, keepdims=True) - rewards) / (group - 1)
    scale = rewards.std(1, keepdims=True) + _LEAST_DEVIATION
    return ((rewards - others) / scale).reshape(-1)


def relative(rewards, alive):
    """Rewards [T, E] minus the mean of the other episodes still alive.

    An episode that is the last alive keeps its rewards as they are.
    """
    count = alive.sum(1, keepdims=True)
    total = (rewards * alive).sum(1, keepdims=True)
    others = (total - rewards) / np.maximum(count - 1, 1)
    return np.where(alive, rewards - np.where(count > 1, others, 0.0), 0.0)
