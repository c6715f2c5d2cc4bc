"""Transformer encoder and decoder (Vaswani et al., 2017) of Keras layers.

Layers are normalised before each part. Positions are learned.
"""

import keras
from keras import ops

from problems.alternating.translation import layers

HEADS = 4
# Of the inner layer, in widths (chosen: about the size of the LSTM).
_INNER = 2


class _Block(keras.layers.Layer):
    """Self-attention, attention to encodings (of decoders), two dense layers.

    Args:
        width: of the values.
        dropout: share of units that rest in training.
        crossing: whether it attends to encodings.
    """

    def __init__(self, width, dropout, crossing):
        super().__init__()
        self.crossing = crossing

        def attention():
            return keras.layers.MultiHeadAttention(
                HEADS, width // HEADS, dropout=dropout
            )

        norm = keras.layers.LayerNormalization
        self.own = attention()
        self.own_norm, self.inner_norm = norm(), norm()
        self.inner = keras.layers.Dense(_INNER * width, activation="relu")
        self.outer = keras.layers.Dense(width)
        self.dropout = keras.layers.Dropout(dropout)
        if crossing:
            self.cross, self.cross_norm = attention(), norm()

    def call(self, x, own_mask, encoded=None, mask=None, training=False):
        """Values [B, T, width]; masks [B, 1 or T, T] and [B, 1, S]."""

        def rest(values):
            return self.dropout(values, training=training)

        y = self.own_norm(x)
        x = x + rest(self.own(y, y, attention_mask=own_mask, training=training))
        if self.crossing:
            y = self.cross(
                self.cross_norm(x),
                encoded,
                attention_mask=mask,
                training=training,
            )
            x = x + rest(y)
        return x + rest(self.outer(self.inner(self.inner_norm(x))))


class _Stack(keras.layers.Layer):
    """Embeddings with positions, then blocks, then a normalisation."""

    def __init__(self, symbols, width, depth, dropout, longest, crossing):
        super().__init__()
        self.embedding = layers.embedding(symbols, width)
        self.positions = layers.embedding(longest, width)
        self.blocks = [_Block(width, dropout, crossing) for _ in range(depth)]
        self.norm = keras.layers.LayerNormalization()
        self.dropout = keras.layers.Dropout(dropout)

    def call(
        self,
        numbers,
        own_mask,
        encoded=None,
        mask=None,
        added=None,
        training=False,
    ):
        x = self.embedding(numbers)
        x = x + self.positions(ops.arange(numbers.shape[1]))
        if added is not None:
            x = x + added
        x = self.dropout(x, training=training)
        for block in self.blocks:
            x = block(x, own_mask, encoded, mask, training=training)
        return self.norm(x)


class TransformerEncoder(keras.layers.Layer):
    """Args as of `RecurrentEncoder`, and `longest`: places of a source."""

    def __init__(self, symbols, width, depth, dropout, longest):
        super().__init__(name="encoder")
        self.stack = _Stack(symbols, width, depth, dropout, longest, False)

    def call(self, source, training=False):
        """Encodings [B, S, width] of sources [B, S]."""
        mask = layers.mask_of(source)[:, None]
        return self.stack(source, mask, training=training)


class TransformerDecoder(keras.layers.Layer):
    """Args as of `RecurrentDecoder`, and `longest`: places of a target."""

    def __init__(
        self, outputs, width, depth, dropout, longest, aligned=False, **kwargs
    ):
        super().__init__(**kwargs)
        self.aligned = aligned
        self.stack = _Stack(outputs, width, depth, dropout, longest, True)
        self.output_layer = keras.layers.Dense(outputs)

    def call(self, encoded, mask, inputs, training=False):
        """Logits [B, T, outputs] of what follows `inputs` [B, T]."""
        length = inputs.shape[1]
        causal = ops.tril(ops.ones([1, length, length], "bool"))
        x = self.stack(
            *(inputs, causal, encoded, mask[:, None]),
            added=encoded if self.aligned else None,
            training=training,
        )
        return self.output_layer(x)

    def start(self, encoded, mask, length):
        """The state before the first symbol: the symbols so far."""
        return [ops.zeros([encoded.shape[0], length], "int32")]

    def step(self, state, encoded, mask, symbols, place):
        """(logits [B, outputs], next state) after symbols [B] at a place."""
        (before,) = state
        here = ops.equal(ops.arange(before.shape[1]), place)
        inputs = ops.where(here[None], symbols[:, None], before)
        # All places anew: short sentences do not repay a cache.
        logits = self(encoded, mask, inputs)
        return ops.take(logits, place, axis=1), [inputs]
