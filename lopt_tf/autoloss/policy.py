"""The controller's networks: a policy over actions, and a value."""

import keras
import numpy as np
import tensorflow_probability as tfp

from lopt_tf import checks

# Bounds of the arguments, {name: (least, most)}.
BOUNDS = {
    "num_actions": (2, 10_000),
    "hidden": (0, 65_536),
    "logit_scale": (checks.POSITIVE, 1e6),
}


@keras.saving.register_keras_serializable("lopt_tf")
class Policy(keras.Model):
    """Logits of the actions, from features of the metadata.

    Args:
        num_actions: how many actions there are.
        hidden: width of the hidden layer; 0 for a linear policy.
        activation: of the hidden layer.
        logit_scale: the logits are divided by this, which keeps the policy
            exploring ("logit clipping").
        seed: of the initial weights; random if None.

    Call arguments:
        features: [E, features]. The result is [E, num_actions].
    """

    def __init__(
        self,
        num_actions,
        hidden=16,
        activation="leaky_relu",
        logit_scale=1.0,
        seed=None,
        **kwargs,
    ):
        # Whatever the policy of the model that it schedules.
        super().__init__(**{"dtype": "float32", **kwargs})
        checks.in_range("num_actions", num_actions, *BOUNDS["num_actions"])
        checks.in_range("hidden", hidden, *BOUNDS["hidden"])
        checks.in_range("logit_scale", logit_scale, *BOUNDS["logit_scale"])
        self.num_actions = num_actions
        self.hidden = hidden
        self.activation = activation
        self.logit_scale = logit_scale
        self.seed = seed
        self.network = network(hidden, activation, num_actions, seed)

    def build(self, input_shape):
        self.network.build(input_shape)
        self.built = True

    def call(self, features):
        return self.network(features) / self.logit_scale

    def distribution(self, features, epsilon=0.0):
        """A `tfp.distributions.Categorical` over the actions, of batch E.

        Args:
            features: [E, features].
            epsilon: with this probability an action is drawn evenly instead.
        """
        logits = self(features)
        if isinstance(epsilon, float) and epsilon == 0:
            return tfp.distributions.Categorical(logits=logits)
        greedy = keras.ops.softmax(logits)
        mixed = (1 - epsilon) * greedy + epsilon / self.num_actions
        return tfp.distributions.Categorical(probs=mixed)

    def even(self):
        """Gives all actions the same chance, of a linear policy."""
        for variable in self.trainable_variables:
            variable.assign(np.zeros(variable.shape))

    def prefer_first(self, share):
        """Gives the first action of a linear policy a chance, the others alike.

        Args:
            share: the chance, above 0 and below 1.
        """
        self.even()
        others = (1 - share) / (self.num_actions - 1)
        first = np.eye(self.num_actions, dtype="float32")[0]
        _, bias = self.trainable_variables
        bias.assign(first * np.log(share / others) * self.logit_scale)

    def alternate(self, feature, weight):
        """Makes a linear policy of two actions tend to take them by turns.

        Args:
            feature: the column that is 1 after the second action, -1 after the
                first.
            weight: how far the logits are apart then; the others become 0.

        Raises:
            ValueError: if there are not two actions.
        """
        if self.num_actions != 2:
            raise ValueError(
                "`alternation` is for tasks of two actions. This policy has "
                f"{self.num_actions}."
            )
        kernel, bias = self.trainable_variables
        row = np.zeros(kernel.shape, "float32")
        row[feature] = np.array([0.5, -0.5]) * weight * self.logit_scale
        kernel.assign(row)
        bias.assign(np.zeros(bias.shape))

    def get_config(self):
        names = ("num_actions", "hidden", "activation", "logit_scale", "seed")
        return {name: getattr(self, name) for name in names}


def network(hidden, activation, outputs, seed):
    """A Keras model [E, features] -> [E, outputs]; arguments as `Policy`'s."""
    layers = [(hidden, activation)] if hidden else []
    model = keras.Sequential()
    for depth, (width, function) in enumerate([*layers, (outputs, None)]):
        # Each layer a draw of its own.
        draw = keras.initializers.GlorotUniform(
            None if seed is None else seed + depth
        )
        model.add(
            keras.layers.Dense(
                *(width, function),
                kernel_initializer=draw,
                dtype="float32",
            )
        )
    return model
