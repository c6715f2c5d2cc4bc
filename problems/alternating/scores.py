"""How good generated images are, by what a classifier says of them.

*Improved Techniques for Training GANs* (Salimans et al., 2016, section 4) and
*GANs Trained by a Two Time-Scale Update Rule* (Heusel et al., 2017), *Reliable
Fidelity and Diversity Metrics for Generative Models* (Naeem et al., 2020).
"""

import numpy as np
import tensorflow as tf

# Nearest neighbours of a real image, and real images looked at, in `coverage`.
_NEIGHBOURS, _MOST = 5, 2000
# Keeps logarithms of probabilities finite.
_SMALL = 1e-12


def inception_score(probabilities):
    """exp(mean KL(p(class | image) || p(class))), between 1 and the classes.

    The mean of p(class | image) stands for p(class): few images have too high
    a score, and the scores of different numbers of images do not compare.

    Args:
        probabilities: a tensor or array [images, classes].

    Returns:
        A scalar tensor of their type.
    """
    probabilities = tf.convert_to_tensor(probabilities)
    mean = tf.reduce_mean(probabilities, 0)
    ratio = tf.math.log(tf.maximum(probabilities, _SMALL))
    ratio -= tf.math.log(tf.maximum(mean, _SMALL))
    divergence = tf.reduce_sum(probabilities * ratio, axis=1)
    return tf.exp(tf.reduce_mean(divergence))


def frechet_distance(features, others):
    """The squared Frechet distance of two normal distributions.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), from means and covariances of
    two sets, in double precision. It is biased upward for few images.

    Args:
        features, others: arrays [images, features], at least two images each.

    Returns:
        A float, 0 or more.

    Raises:
        ValueError: for too few images, or other numbers of features.
    """
    first, second = (np.asarray(x, "float64") for x in (features, others))
    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:]:
        raise ValueError(
            "A Frechet distance needs two images at least on both sides, of "
            f"the same features. Received: {first.shape} and {second.shape}."
        )
    drop = first.mean(0) - second.mean(0)
    one, two = np.cov(first.T, ddof=0), np.cov(second.T, ddof=0)
    one, two = np.atleast_2d(one), np.atleast_2d(two)
    # (C1 C2) has the eigenvalues of the symmetric C1^(1/2) C2 C1^(1/2).
    values, vectors = np.linalg.eigh(one)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    product = np.linalg.eigvalsh(root @ two @ root)
    overlap = np.sqrt(np.maximum(product, 0)).sum()
    distance = drop @ drop + np.trace(one) + np.trace(two) - 2 * overlap
    return float(max(distance, 0.0))


def coverage(features, real):
    """The share of real images that have a generated one close by, in 0..1.

    Close is closer than the fifth nearest other real image. It is bounded, and
    low for noise, whatever the inception score of that is.

    Args:
        features: of generated images, an array [images, features].
        real: of real images; the first 2,000 are looked at.

    Returns:
        A float. 2,000 images that are as good as real have 0.95 or more.

    Raises:
        ValueError: for fewer than seven real images, or other numbers of
            features.
    """
    given, real = (np.asarray(x, "float32") for x in (features, real))
    real = real[:_MOST]
    if len(real) < _NEIGHBOURS + 2 or given.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"A coverage needs {_NEIGHBOURS + 2} real images at least, and the "
            f"same features. Received: {given.shape} and {real.shape}."
        )
    own = np.partition(_squares(real, real), _NEIGHBOURS, axis=1)
    nearest = _squares(real, given).min(axis=1)
    # The first of an image's own neighbours is itself.
    return float(np.mean(nearest <= own[:, _NEIGHBOURS]))


def closeness(features, real):
    """How close images are to real ones, by name: see the two functions."""
    return {
        "Frechet distance": frechet_distance(features, real),
        "coverage": coverage(features, real),
    }


def _squares(one, two):
    """Squared distances [of one, of two]."""
    # A common origin nearby keeps differences of large squares exact.
    centre = one.mean(0)
    one, two = one - centre, two - centre
    squares = (one**2).sum(1)[:, None] + (two**2).sum(1) - 2 * one @ two.T
    return np.maximum(squares, 0)
