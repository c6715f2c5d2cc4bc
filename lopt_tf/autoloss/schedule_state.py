"""Where a model's schedule is, and what it looks at: variables of the model."""

import random

import keras
import tensorflow as tf

from lopt_tf.autoloss import metadata

# What schedules of models may look at.
SUPPLIED = (
    *(*metadata.COURSE, "losses", "average_losses", "gradient_magnitudes"),
    *("train_loss", "valid_loss", "improvement", "mean_improvement"),
    "validated",
)
# What only validations tell.
OF_VALIDATION = ("valid_loss", "improvement", "mean_improvement", "validated")


@keras.saving.register_keras_serializable("lopt_tf")
class ScheduleState(keras.layers.Layer):
    """The running metadata of one model, saved with its weights.

    They have a leading axis of one episode, so that schedules see what
    episodes of tasks show them:

        progress [1]: the share of the steps that was made, of those before
            this `fit` and its own together.
        last_action [1, actions], run_length [1].
        losses [1, actions]: each as it was measured last; 0 before that.
        average_losses [1, actions]: their moving averages.
        gradient_magnitudes [1, actions]: norm / sqrt(size), as losses.
        train_loss [1]: the moving average of the first loss.
        valid_loss [1]: the first validation loss, at the last validation;
            `train_loss` before the first.
        improvement, mean_improvement [1]: of `valid_loss`, at the last
            validation; the moving mean of its absolute values.
        validated [1]: whether a validation came after the last step.

    Args:
        actions: how many objectives there are.

    Attributes:
        step: steps (choices) that were made, a variable.
        draw: the seed of the schedule's random numbers, a variable.
        total: steps after which `progress` is 1, a variable.
        taken: batches that each objective took in the present `fit`.
    """

    def __init__(self, actions, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.actions = actions
        draw = random.randrange(2**31)
        # Not of 32 bits: those stay on the host, where XLA on a GPU cannot
        # reach them.
        self.step = self._scalar("step", "int64")
        self.draw = self._scalar("draw", "int64", draw)
        self.total = self._scalar("total", "int64", 1)
        self.validations = self._scalar("validations", "int64")
        self.taken = self._of("taken", [actions], "int64")
        # 0 before the first measurement.
        self.measured = self._of("measured", [1, actions])
        self.last_action = self._of("last_action", [1, actions])
        self.run_length = self._of("run_length", [1])
        self.last_losses = self._of("losses", [1, actions])
        self.average_losses = self._of("average_losses", [1, actions])
        self.magnitudes = self._of("gradient_magnitudes", [1, actions])
        self.valid_loss = self._of("valid_loss", [1])
        self.improvement = self._of("improvement", [1])
        self.mean_improvement = self._of("mean_improvement", [1])
        self.validated = self._of("validated", [1])
        # Sums of the progress that fit shows.
        self.loss_sums = self._of("loss_sums", [actions])
        self.loss_counts = self._of("loss_counts", [actions])
        self.action_counts = self._of("action_counts", [actions])
        self.built = True

    def _scalar(self, name, dtype, value=0):
        return self._of(name, [], dtype, value)

    def _of(self, name, shape, dtype="float32", value=0):
        def initial(shape, dtype):
            return tf.fill(shape, tf.cast(value, dtype))

        return self.add_weight(
            shape=tuple(shape),
            initializer=initial,
            dtype=dtype,
            trainable=False,
            name=name,
        )

    def metadata(self):
        """What a schedule looks at: {name: tensor [1] or [1, actions]}."""
        total = tf.cast(tf.maximum(self.total.value, 1), tf.float32)
        train_loss = self.train_loss()
        return {
            "progress": tf.cast(self.step.value, tf.float32)[None] / total,
            "last_action": self.last_action.value,
            "run_length": self.run_length.value,
            "losses": self.last_losses.value,
            "average_losses": self.average_losses.value,
            "gradient_magnitudes": self.magnitudes.value,
            "train_loss": train_loss,
            "valid_loss": tf.where(
                self.validations.value > 0, self.valid_loss.value, train_loss
            ),
            "improvement": self.improvement.value,
            "mean_improvement": self.mean_improvement.value,
            "validated": self.validated.value > 0,
        }

    def train_loss(self):
        """The moving average of the first loss, a tensor [1]."""
        return self.average_losses.value[:, 0]

    def known_train_loss(self):
        """As `train_loss`, but NaN before it was first measured."""
        known = self.measured.value[:, 0] > 0
        return tf.where(known, self.train_loss(), float("nan"))

    def seed(self):
        """The seed of the next choice: a pair of integers."""
        both = tf.stack([self.draw.value, self.step.value])
        return tf.cast(both, tf.int32)

    def measure(self, measured, losses, magnitudes):
        """Takes measurements [actions] of the objectives in a mask.

        What is not finite is left out: optimizers may skip that step, and the
        averages must outlive it.
        """
        known = (measured[None] > 0) & tf.math.is_finite(losses[None])
        first = self.measured.value == 0
        losses = tf.where(known, losses[None], self.last_losses.value)
        averages = metadata.moving_average(
            self.average_losses.value, losses, first
        )
        averages = tf.where(known, averages, self.average_losses.value)
        has_magnitude = known & tf.math.is_finite(magnitudes[None])
        magnitudes = tf.where(
            has_magnitude, magnitudes[None], self.magnitudes.value
        )
        self.last_losses.assign(losses)
        self.average_losses.assign(averages)
        self.magnitudes.assign(magnitudes)
        known = tf.cast(known, tf.float32)
        self.measured.assign(tf.maximum(self.measured.value, known))

    def advance(self, action, updates):
        """Counts a step that took an action (an integer)."""
        chosen = tf.one_hot(action, self.actions)
        before = {
            "last_action": self.last_action.value,
            "run_length": self.run_length.value,
        }
        length = metadata.run_length(chosen[None], before)
        self.run_length.assign(length)
        self.last_action.assign(chosen[None])
        self.validated.assign(tf.zeros([1]))
        taken = tf.cast(updates, tf.int64) * tf.cast(chosen, tf.int64)
        self.taken.assign(self.taken.value + taken)
        self.action_counts.assign(self.action_counts.value + chosen)
        self.step.assign(self.step.value + 1)

    def validate(self, loss):
        """Takes the first objective's loss at a validation, a number."""
        first, second = (self.validations.value == count for count in range(2))
        new = tf.cast([loss], tf.float32)
        drop = tf.where(first, 0.0, self.valid_loss.value - new)
        mean = metadata.moving_average(
            self.mean_improvement.value, tf.abs(drop), first | second
        )
        self.improvement.assign(drop)
        self.mean_improvement.assign(mean)
        self.valid_loss.assign(new)
        self.validated.assign(tf.ones([1]))
        self.validations.assign(self.validations.value + 1)

    def show(self, losses, counts):
        """Adds losses, weighted by counts [actions], to what `shown` tells."""
        sums = tf.where(counts > 0, losses * counts, 0.0)
        self.loss_sums.assign(self.loss_sums.value + sums)
        self.loss_counts.assign(self.loss_counts.value + counts)

    def shown(self):
        """(mean losses, NaN where there is none; shares of steps) [actions]."""
        counts = self.loss_counts.value
        means = tf.where(
            counts > 0, self.loss_sums.value / counts, float("nan")
        )
        steps = self.action_counts.value
        return means, tf.math.divide_no_nan(steps, tf.reduce_sum(steps))

    def forget_shown(self):
        """Begins an epoch of progress."""
        for each in (self.loss_sums, self.loss_counts, self.action_counts):
            each.assign(tf.zeros([self.actions]))

    def restart(self, draw, total):
        """Begins a training: everything as new, but for the seed."""
        for variable in self.weights:
            variable.assign(tf.zeros_like(variable.value))
        self.draw.assign(draw)
        self.total.assign(total)

    def get_config(self):
        return {**super().get_config(), "actions": self.actions}
