"""Evolution of a policy's weights by antithetic pairs (Salimans et al., 2017).

Policies with weights + noise and weights - noise play the same start, with the
same random numbers; the better one of each pair pulls the weights its way.
Nothing is asked of single actions, so that a policy is judged by what a whole
episode has come to.
"""

import numpy as np
import tensorflow as tf

from lopt_tf.autoloss import learner, metadata, schedules

# Rewards that differ by less teach less (chosen for scores of about 5).
_LEAST_DIFFERENCE = 0.1


class PopulationSchedule:
    """Actions drawn from policies of equal shape, one for each episode.

    The two policies of a pair, which follow each other, have their random
    numbers in common.

    Args:
        policy: a `Policy`, whose layers and whose scale of logits are used.
        features: `metadata.Features`.
        count: how many episodes there are, an even number.
        even_draws: as of `schedules.PolicySchedule`. Defaults to False.
    """

    def __init__(self, policy, features, count, even_draws=False):
        self.policy = policy
        self.features = features
        self.needs = features.needs
        self.pairwise = features.pairwise
        self.even_draws = even_draws
        self.epsilon = tf.Variable(0.0, trainable=False)
        self.weights = [
            tf.Variable(tf.repeat(tf.convert_to_tensor(w)[None], count, axis=0))
            for w in policy.trainable_variables
        ]

    def __call__(self, metadata, step, seed):
        pairs = self.weights[0].shape[0] // 2
        draw = tf.repeat(self._draws(pairs, seed), 2)
        return self._choice(metadata, self.weights, draw)

    def alone(self, episode):
        """The schedule of one of the episodes, an integer or a tensor."""
        weights = [tf.gather(varied, [episode]) for varied in self.weights]

        def choose(metadata, step, seed):
            # Seeds of episodes that are alone follow each other.
            of_pair = seed - tf.stack([episode % 2, 0])
            draw = self._draws(1, of_pair)
            return self._choice(metadata, weights, draw)

        return choose

    def _draws(self, count, seed):
        if self.even_draws:
            return schedules.spread_draws(count, seed)
        return tf.random.stateless_uniform([count], seed)

    def _choice(self, metadata, weights, draw):
        """The `Choice` of policies of these weights, from draws [E]."""
        features = self.features(metadata)
        chances = tf.nn.softmax(self._logits(features, weights))
        actions = self.policy.num_actions
        chances = (1 - self.epsilon) * chances + self.epsilon / actions
        chosen = schedules.interval(draw, chances)
        chance = tf.reduce_sum(chosen * chances, 1)
        return schedules.Choice(features, chosen, tf.math.log(chance))

    def _logits(self, values, weights=None):
        """[E, actions] from features [E, features]."""
        weights = iter(self.weights if weights is None else weights)
        for layer in self.policy.network.layers:
            values = tf.einsum("ei,eio->eo", values, next(weights))
            values = layer.activation(values + next(weights))
        return values / self.policy.logit_scale


class Evolution(learner.Learner):
    """Moves a policy's weights after each round of pairs of episodes.

    The step is learning_rate * mean(d * noise): d is the difference of the
    rewards of a pair, in units of the root of its mean square over the round.
    """

    def schedule(self, controller):
        self._played = PopulationSchedule(
            self.policy,
            metadata.Features(self.options.features),
            self.options.parallel,
            self.options.even_draws,
        )
        return self._played

    def before_round(self, number):
        """Draws the round's noise from its number."""
        rng = np.random.default_rng([self.options.seed, number, 2])
        pairs, self._noise = self.options.parallel // 2, []
        signs = np.tile([1.0, -1.0], pairs)
        for mean, varied in zip(
            self.policy.trainable_variables, self._played.weights
        ):
            noise = rng.normal(size=[pairs, *mean.shape]).astype("float32")
            self._noise.append(noise)
            whole = np.repeat(noise, 2, axis=0)
            whole *= signs.reshape([-1] + [1] * len(mean.shape))
            varied.assign(mean.numpy() + np.float32(self.options.sigma) * whole)

    def after_segment(self, records):
        """Nothing is learned from single steps."""

    def resume_round(self, records, facts):
        """`before_round` has drawn the same noise."""

    def forget(self):
        """There is nothing to forget."""

    def after_round(self, final_rewards):
        first, second = np.reshape(final_rewards, [-1, 2]).T
        difference = (first - second) / 2
        size = float(np.sqrt(np.mean(np.square(difference))))
        gains = np.float32(difference / (size + _LEAST_DIFFERENCE))
        rate, squares = self.options.learning_rate, 0.0
        for weight, noise in zip(self.policy.trainable_variables, self._noise):
            step = rate * np.tensordot(gains, noise, 1) / len(gains)
            weight.assign_add(step)
            squares += float(np.sum(np.square(step)))
        return {"difference": size, "step_norm": squares**0.5}
