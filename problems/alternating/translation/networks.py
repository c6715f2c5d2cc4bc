"""The encoder, the decoders of the three tasks, and their initial weights."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from problems.alternating.translation import layers, recurrent, transformer
from problems.alternating.translation.sources import TASKS

ARCHITECTURES = ("lstm", "transformer")
# Counts changes of what the same settings make.
VERSIONS = {"lstm": 3, "transformer": 0}


def check_width(architecture, width):
    """Raises ValueError if an architecture cannot be so wide."""
    fits = {
        "lstm": ("even: half of it reads each way", width % 2 == 0),
        "transformer": (
            f"a multiple of {transformer.HEADS}, its heads",
            width % transformer.HEADS == 0,
        ),
    }
    must, holds = fits[architecture]
    if not holds:
        raise ValueError(
            f"`width` of the architecture {architecture!r} must be {must}. "
            f"Received: width={width!r}"
        )


def make(
    architecture, symbols, outputs, *, embedding, width, depth, dropout, longest
):
    """One encoder that all tasks share, and a decoder for each.

    Args:
        architecture: "lstm" or "transformer", which has no `embedding` of its
            own.
        symbols: of the vocabulary.
        outputs: {task: how many symbols or tags}.
        embedding, width, depth, dropout: see `recurrent.RecurrentEncoder`.
        longest: places of the longest sentences.

    Returns:
        {"encoder": layer, "translation_decoder": layer, ...}, built.
    """
    if architecture == "lstm":
        kinds = recurrent.RecurrentEncoder, recurrent.RecurrentDecoder
        own = embedding, width, depth, dropout
        sizes = *own, longest
    else:
        kinds = transformer.TransformerEncoder, transformer.TransformerDecoder
        own = sizes = width, depth, dropout, longest
    encoder, decoder = kinds
    found = {"encoder": encoder(symbols, *own)}
    for task in TASKS:
        name = f"{task}_decoder"
        found[name] = decoder(
            *(outputs[task], *sizes), aligned=task != TASKS[0], name=name
        )
    # Layers are built when they are first called.
    source = ops.ones([1, longest], "int32")
    encoded = found["encoder"](source)
    for task in TASKS:
        found[f"{task}_decoder"](encoded, layers.mask_of(source), source)
    return found


_INITIALIZERS = {
    "kernel": keras.initializers.GlorotUniform,
    "recurrent_kernel": keras.initializers.Orthogonal,
    "embeddings": lambda seed: keras.initializers.RandomNormal(
        stddev=layers.EMBEDDING_DEVIATION, seed=seed
    ),
}


def initialize(networks, seed):
    """Draws weights anew; biases, scales and distances stay as built.

    Args:
        networks: a list of layers.
        seed: an integer.
    """
    variables = [v for net in networks for v in net.trainable_variables]
    for number, variable in enumerate(variables):
        kind = _INITIALIZERS.get(variable.name)
        if kind is not None:
            draw = np.random.default_rng([seed, number]).integers(2**31)
            variable.assign(kind(seed=int(draw))(variable.shape))


def loss_of(task):
    """The loss of a task: mean negative log likelihood of the targets.

    Returns:
        A function of (model, batch, training), for an objective.
    """

    def loss(model, batch, training):
        return _mean_loss(*logits(model, task, batch, training))

    return loss


def logits(model, task, batch, training=False):
    """(logits [B, T, outputs], targets [B, T]) of a `Batch`."""
    source = tf.convert_to_tensor(batch.source)
    encoded = model.encoder(source, training=training)
    found = getattr(model, f"{task}_decoder")(
        *(encoded, layers.mask_of(source), tf.convert_to_tensor(batch.inputs)),
        training=training,
    )
    return found, tf.convert_to_tensor(batch.targets)


def _mean_loss(found, targets):
    total, _, count = sums(found, targets)
    return total / tf.maximum(count, 1.0)


def sums(found, targets):
    """Sums over targets that are no padding: losses, hits, how many."""
    weights = tf.cast(targets > 0, tf.float32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        targets, tf.cast(found, tf.float32)
    )
    hits = tf.cast(tf.argmax(found, -1, tf.int32) == targets, tf.float32)
    return tuple(tf.reduce_sum(x * weights) for x in (losses, hits, 1.0))
