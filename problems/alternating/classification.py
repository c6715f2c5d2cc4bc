"""Task 2: a small classifier with too few data, and an L1 penalty."""

import dataclasses

import numpy as np
import sklearn.datasets
import tensorflow as tf

from problems.alternating.supervised import SupervisedTask, check_positive

_MOST_UNITS, _MOST_LAYERS = 4096, 16
_ROWS = (200, 1000, 200, 1000, 1000)
_ACTIVATIONS = {
    name: getattr(tf.nn, name)
    for name in ("relu", "tanh", "sigmoid", "leaky_relu", "elu")
}


@dataclasses.dataclass(eq=False)
class Classification(SupervisedTask):
    """Classification with a fully connected net (AutoLoss, section 5.1).

    Two of the features say everything, two more repeat it, all others are
    noise. Weights begin normal with standard deviation 0.1, biases at zero
    (with which the release's figures are reached). The best validation is that
    with the highest accuracy.

    Args, besides those of `SupervisedTask`:
        features: number of inputs, at least 4. Defaults to 32.
        hidden: widths of the hidden layers. Defaults to (32,).
        activation: of the hidden layers: "relu", "tanh", "sigmoid",
            "leaky_relu" or "elu". Defaults to "relu".
        label_noise: share of the rows whose class is drawn at random. Defaults
            to 0.01.
    """

    features: int = 32
    hidden: tuple | list = (32,)
    activation: str = "relu"
    label_noise: float = 0.01

    name = "classification"
    actions = ("cross_entropy", "l1")
    result_name = "accuracy"
    higher_is_better = True

    def __post_init__(self):
        super().__post_init__()
        self.check_positive(int, "features", most=_MOST_UNITS)
        is_list = isinstance(self.hidden, (list, tuple))
        if not is_list or len(self.hidden) > _MOST_LAYERS:
            raise ValueError(
                "`hidden` must be a list of widths, such as [64, 64], at most "
                f"{_MOST_LAYERS}. "
                f"Received: hidden={self.hidden!r}"
            )
        # JSON has lists only.
        self.hidden = list(self.hidden)
        for width in self.hidden:
            check_positive(int, _MOST_UNITS, hidden=width)
        if self.features < 4 or not 0 <= self.label_noise <= 1:
            raise ValueError(
                "`features` must be at least 4, `label_noise` between 0 and "
                f"1. Received: features={self.features}, "
                f"label_noise={self.label_noise}"
            )
        if self.activation not in _ACTIVATIONS:
            raise ValueError(
                f"Unknown activation {self.activation!r}. Known: "
                f"{', '.join(_ACTIVATIONS)}."
            )
        draws = draw_data(self.data_seed, self.features, self.label_noise)
        self.take_data(draws)

    def initial_params(self, seeds):
        """Weights [E, in, out] and biases [E, out] of each layer."""
        rngs = [np.random.default_rng(seed) for seed in seeds]
        params = []
        for _, *shape in self.products():
            draws = [0.1 * rng.normal(size=shape) for rng in rngs]
            params.append(np.stack(draws).astype("float32"))
            params.append(np.zeros((len(rngs), shape[1]), "float32"))
        return params

    def products(self):
        sizes = [self.features, *self.hidden, 2]
        rows = self.splits["train"][0].shape[0]
        return [(rows, *shape) for shape in zip(sizes, sizes[1:])]

    def measure(self, params, split):
        inputs, labels = self.splits[split]
        logits = self._logits(params, inputs)
        # Two classes: the margin says all.
        signs = 2.0 * tf.cast(labels, tf.float32) - 1.0
        margins = signs * (logits[..., 1] - logits[..., 0])
        loss = tf.reduce_mean(tf.nn.softplus(-margins), axis=1)
        accuracy = tf.reduce_mean(tf.cast(margins > 0, tf.float32), axis=1)
        return {"loss": loss, "accuracy": accuracy, "score": -accuracy}

    def _logits(self, params, inputs):
        activate = _ACTIVATIONS[self.activation]
        # The data are shared: one product for all episodes.
        values = tf.einsum("nf,efh->enh", inputs, params[0])
        values += params[1][:, None, :]
        for weights, biases in zip(params[2::2], params[3::2]):
            values = tf.matmul(activate(values), weights)
            values += biases[:, None, :]
        return values


def draw_data(seed, features, label_noise):
    """Controller train and valid, task train and valid, test: (x, y) each."""
    # Informative, redundant and clusters of a class: 2 each, the defaults.
    x, y = sklearn.datasets.make_classification(
        sum(_ROWS),
        features,
        flip_y=label_noise,
        random_state=np.random.RandomState(seed),
    )
    ends = np.cumsum(_ROWS)[:-1]
    return list(zip(np.split(np.float32(x), ends), np.split(np.int32(y), ends)))
