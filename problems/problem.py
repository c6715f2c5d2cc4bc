"""The interface of a problem: a family of objectives of one shape."""

import itertools

import tensorflow as tf

from lopt_tf.optimizers.layers import Layers
from problems.specification import Specification


class Problem(Specification):
    """A family of objectives that share their parameters' shapes.

    One instance of the family is given by its constants (say the matrix of
    a quadratic, or a data set); everything works on K instances at once,
    along a leading axis. All methods are pure, and may be compiled.

    Attributes:
        shapes: list of the parameters' shapes, without the leading axis.
        noise_stdev: standard deviation of the noise added to each gradient
            element.
        batch_size: examples in a minibatch, or None where there is no data.
        num_examples: examples in the data set, or None.
        nonnegative: whether the objective can never be negative, which the
            logarithmic meta-objective needs.
    """

    noise_stdev = 0.0
    batch_size = None
    num_examples = None
    nonnegative = True

    @property
    def shapes(self):
        raise NotImplementedError

    @property
    def layers(self):
        """For each parameter an integer, the same for those of one layer.

        A layer begins with each tensor of two or more axes.
        """
        begins = (len(shape) > 1 for shape in self.shapes)
        return tuple(itertools.accumulate(map(int, begins)))

    @property
    def roles(self):
        """For each parameter one of `lopt_tf.optimizers.layers.ROLES`."""
        return ("",) * len(self.shapes)

    @property
    def structure(self):
        """The `Layers` of the parameters, as rules take them."""
        return Layers(tuple(self.layers), tuple(self.roles))

    def constants(self, seed, instances):
        """Draws what tells instances apart: {name: array [K or 1, ...]}.

        Args:
            seed: int32 tensor [2], a stateless seed.
            instances: K, the number of instances.
        """
        return {}

    def init(self, seed, instances):
        """Draws starting points: list of float32 tensors [K, *shape].

        Runs start from them divided by `parameter_scale`.
        """
        return [
            tf.random.stateless_normal((instances, *shape), fold(seed, i))
            for i, shape in enumerate(self.shapes)
        ]

    def parameter_scale(self, constants):
        """What trained parameters are multiplied by, [K or 1]; None for 1.

        Starting points and gradient noise are drawn in the problem's own
        unit, which is that of the trained parameters times this scale.
        """
        return None

    def loss(self, params, constants, batch=None):
        """The objectives, [K].

        Args:
            params: list of tensors [K, *shape].
            constants: what `constants` returned.
            batch: int tensor [K, B] of examples, or None for all the data.
        """
        raise NotImplementedError

    def value_and_gradients(self, params, constants, batch=None):
        """Objectives [K] and their gradients, a list of [K, *shape]."""
        with tf.GradientTape() as tape:
            tape.watch(params)
            loss = self.loss(params, constants, batch)
        # One instance's objective depends on its own parameters alone, so
        # that the gradient of the sum holds every instance's gradient.
        gradients = tape.gradient(loss, params, unconnected_gradients="zero")
        return loss, [tf.convert_to_tensor(g) for g in gradients]

    def perturb(self, gradients, seed):
        """Adds the problem's gradient noise to gradients [K, *shape]."""
        if not self.noise_stdev:
            return gradients
        normal = tf.random.stateless_normal
        return [
            g + self.noise_stdev * normal(g.shape, fold(seed, i))
            for i, g in enumerate(gradients)
        ]

    @property
    def is_noisy(self):
        """Whether `perturb` changes anything."""
        return self.noise_stdev > 0


def fold(seed, number):
    """A stateless seed [2] for the `number`-th use of `seed`."""
    return tf.random.fold_in(seed, number)


def stateless_seed(number):
    """A stateless seed [2] from an integer."""
    return tf.constant([number & 0x7FFFFFFF, number >> 31], "int32")


def in_own_unit(perturb, gradients, scale):
    """Gradients with what `perturb` adds in a problem's own unit.

    Args:
        perturb: from gradients in the problem's own unit to such.
        gradients: of what is trained, [K, ...] each.
        scale: `Problem.parameter_scale` [K or 1], or None.
    """
    if scale is None:
        return perturb(gradients)
    return scaled(perturb(scaled(gradients, 1 / scale)), scale)


def scaled(tensors, factors):
    """Tensors [K, ...], each instance's times its factor [K or 1]."""
    return [
        tf.reshape(factors, (-1,) + (1,) * (t.shape.rank - 1)) * t
        for t in tensors
    ]
