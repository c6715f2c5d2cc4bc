"""Proximal policy optimisation, while the task is still training."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from lopt_tf import compilation
from lopt_tf.autoloss import episodes, learner, rewards
from lopt_tf.autoloss import policy as policy_lib

# All chosen: steps of a segment, segments in the replay, batches of an update
# and transitions of each episode in a batch, units of the value network, weight
# of its error.
_SEGMENT = 50
# The steps before a reward that a discount of 0.9 lets see a tenth of it.
_REACH = 22
_REPLAY_SEGMENTS = 4
_BATCHES = 3
_BATCH_STEPS = 64
_VALUE_HIDDEN = 32
_VALUE_WEIGHT = 0.5
_REPORTED = ("entropy", "value_error", "approximate_kl", "clip_fraction")


class PPO(learner.Learner):
    """Updates a policy every 50 task steps from step rewards alone.

    The replay holds the last four such segments, 200 transitions of each
    episode; each update takes three batches from it, of 64 transitions an
    episode.

    Where validations are more than 22 steps apart, segments are the next
    multiple of that, and all steps since the last validation have its reward:
    a discount of 0.9 would forget single rewards.

    Reported are means over the updates of a round, as in CleanRL:
    "approximate_kl", of the policy that acted and the present one before each
    batch; "clip_fraction", of the samples whose probability ratio was clipped;
    "explained_variance", of the returns by the value network (None if the
    returns do not vary).

    Args:
        policy, options, period: see `Learner`.
        jit_compile: whether XLA compiles updates. Defaults to `True`.

    Attributes:
        replay: the `Records` of the last segments, a list.
    """

    remembered = ("updates",)

    def __init__(self, policy, options, period=1, jit_compile=True):
        super().__init__(policy, options, period)
        whole = period if period > _REACH else 1
        self.segment_length = -(-_SEGMENT // whole) * whole
        self.value = policy_lib.network(_VALUE_HIDDEN, "tanh", 1, options.seed)
        self.value.build([None, len(options.features)])
        self.optimizer = keras.optimizers.Adam(options.learning_rate)
        self._trained = [*policy.trainable_variables]
        self._trained += self.value.trainable_variables
        self.optimizer.build(self._trained)
        self.variables = self.value.variables + self.optimizer.variables
        self.updates = 0
        self._epsilon = 0.0
        self.forget()
        self._update = compilation.compiled(self._batch_update, jit_compile)

    def round_facts(self):
        found = {"metrics": self._metrics, "explained": self._explained}
        return {name: list(values) for name, values in found.items()}

    def resume_round(self, records, facts):
        self.replay = [*map(self._credited, records)][-_REPLAY_SEGMENTS:]
        self._metrics = list(facts["metrics"])
        self._explained = list(facts["explained"])

    def forget(self):
        self.replay, self._metrics, self._explained = [], [], []

    def epsilon(self, done):
        """The share of random actions falls from 0.5 to 0.1."""
        self._epsilon = 0.5 - 0.4 * min(done, 1.0)
        return self._epsilon

    def after_segment(self, records):
        """Updates policy and value."""
        self.replay = [*self.replay, self._credited(records)]
        self.replay = self.replay[-_REPLAY_SEGMENTS:]
        batch = self._transitions()
        live = np.flatnonzero(batch.pop("alive"))
        rng = np.random.default_rng([self.options.seed, self.updates])
        self.updates += 1
        if not live.size:
            return
        returns = batch["returns"][live]
        values = returns - batch["advantages"][live]
        self._explained.append(explained_variance(values, returns))
        # Resampled to one size: compiled functions have static shapes.
        size = _BATCH_STEPS * records.alive.shape[1]
        order = np.resize(rng.permutation(live), _BATCHES * size)
        for places in np.split(order, _BATCHES):
            chosen = {k: tf.constant(v[places]) for k, v in batch.items()}
            metrics = self._update(chosen, tf.constant(self._epsilon))
            self._metrics.append([float(x) for x in metrics])

    def _credited(self, records):
        if self.period <= _REACH:
            return records
        spread = rewards.spread(records.reward, self.period)
        return records._replace(reward=spread * records.alive)

    def _transitions(self):
        """The replay as flat arrays, with advantages and returns."""
        replay, options = episodes.joined(self.replay), self.options
        values = self._values(replay.features)
        # An episode that has finished has no value any more.
        last = self._values(replay.following) * ~replay.finished
        discounts = options.discount, options.gae_lambda
        advantages = generalised_advantages(
            replay.reward, values, last, replay.alive, *discounts
        )
        found = {"advantages": advantages, "returns": advantages + values}
        for name in ("features", "actions", "log_prob", "alive"):
            found[name] = getattr(replay, name)
        return {k: x.reshape(-1, *x.shape[2:]) for k, x in found.items()}

    def _values(self, features):
        flat = features.reshape(-1, features.shape[-1])
        return self.value(flat).numpy().reshape(features.shape[:-1])

    def _batch_update(self, batch, epsilon):
        advantages = batch["advantages"]
        deviation = tf.math.reduce_std(advantages) + 1e-6
        advantages = (advantages - tf.reduce_mean(advantages)) / deviation
        with tf.GradientTape() as tape:
            new = self.policy.distribution(batch["features"], epsilon)
            log_prob = new.log_prob(batch["actions"])
            gain = clipped_objective(
                log_prob, batch["log_prob"], advantages, self.options.clip
            )
            entropy = tf.reduce_mean(new.entropy())
            values = self.value(batch["features"])[:, 0]
            error = tf.reduce_mean(tf.square(values - batch["returns"]))
            loss = _VALUE_WEIGHT * error - tf.reduce_mean(gain)
            loss -= self.options.entropy_bonus * entropy
        gradients = tape.gradient(loss, self._trained)
        self.optimizer.apply(gradients, self._trained)
        moved = policy_change(log_prob, batch["log_prob"], self.options.clip)
        return entropy, error, *moved

    def after_round(self, final_rewards):
        """The next round begins with an empty replay; what to report."""
        found = self.figures()
        self.forget()
        return found

    def figures(self):
        """What is reported, None where nothing is known; begins it anew."""
        means = np.mean(self._metrics, axis=0).tolist() if self._metrics else ()
        found = dict(itertools.zip_longest(_REPORTED, means))
        known = [x for x in self._explained if np.isfinite(x)]
        self._metrics, self._explained = [], []
        mean = float(np.mean(known)) if known else None
        return found | {"explained_variance": mean}


def generalised_advantages(step_rewards, values, last, alive, discount, decay):
    """Generalised advantages [T, E]; 0 where an episode had finished.

    Args:
        step_rewards: [T, E].
        values: of the states before each step [T, E].
        last: of the states after the last step [E], 0 where there is none.
        alive: whether the episode had not finished before the step [T, E].
        discount: of future rewards.
        decay: lambda, between 0 (one step) and 1 (whole returns).
    """
    advantages = np.zeros_like(values)
    following, gathered = last, np.zeros_like(last)
    for t in reversed(range(len(step_rewards))):
        error = step_rewards[t] + discount * following - values[t]
        gathered = np.where(alive[t], error + discount * decay * gathered, 0)
        following = np.where(alive[t], values[t], 0)
        advantages[t] = gathered
    return advantages


def clipped_objective(new_log_prob, old_log_prob, advantages, clip):
    """min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A), element-wise."""
    ratio = tf.exp(new_log_prob - old_log_prob)
    bounded = tf.clip_by_value(ratio, 1 - clip, 1 + clip)
    return tf.minimum(ratio * advantages, bounded * advantages)


def policy_change(new_log_prob, old_log_prob, clip):
    """(approximate KL divergence, clip fraction) of two policies' actions.

    The former is the mean of (ratio - 1) - log(ratio), see
    http://joschu.net/blog/kl-approx.html; the latter the share of ratios
    further than `clip` from 1.
    """
    log_ratio = new_log_prob - old_log_prob
    ratio = tf.exp(log_ratio)
    clipped = tf.cast(tf.abs(ratio - 1) > clip, tf.float32)
    return tf.reduce_mean(ratio - 1 - log_ratio), tf.reduce_mean(clipped)


def explained_variance(values, returns):
    """1 - var(returns - values) / var(returns); NaN without variance."""
    variance = np.var(returns)
    if variance == 0:
        return np.nan
    return float(1 - np.var(returns - values) / variance)
