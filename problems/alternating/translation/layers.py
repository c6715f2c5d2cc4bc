"""What recurrent networks and transformers have in common: masks, starts."""

import keras
from keras import ops

# Keras' default, uniform within .05, learns more slowly (measured).
EMBEDDING_DEVIATION = 0.2


def embedding(count, width):
    """An embedding layer; padding is a row like others, masked elsewhere."""
    return keras.layers.Embedding(
        *(count, width),
        keras.initializers.RandomNormal(stddev=EMBEDDING_DEVIATION),
    )


def mask_of(source):
    """Which places [B, S] of sources are no padding, booleans."""
    return ops.not_equal(source, 0)
