"""LSTM encoder, and LSTM decoder with attention (Luong et al., 2015)."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from problems.alternating.translation import layers

# How much less a place counts for each step away, at the start (chosen).
_SLOPE = 0.2


class RecurrentEncoder(keras.layers.Layer):
    """Residual LSTM layers; the first reads in both directions.

    The first is residual, too, where embeddings are as wide as it: attention
    finds words sooner by what they are than by what was read of them.

    Args:
        symbols: of the vocabulary.
        embedding, width: of subwords, and of the layers (even).
        depth: how many layers.
        dropout: share of units that rest in training.
    """

    def __init__(self, symbols, embedding, width, depth, dropout):
        super().__init__(name="encoder")
        self.embedding = layers.embedding(symbols, embedding)
        lstm = keras.layers.LSTM
        self.forward = lstm(width // 2, return_sequences=True)
        self.backward = lstm(width // 2, return_sequences=True)
        self.further = [
            lstm(width, return_sequences=True) for _ in range(depth - 1)
        ]
        self.dropout = keras.layers.Dropout(dropout)

    def call(self, source, training=False):
        """Encodings [B, S, width] of sources [B, S]."""
        lengths = ops.sum(ops.cast(layers.mask_of(source), "int32"), 1)
        x = self.dropout(self.embedding(source), training=training)
        # Reversed within its length, a row's padding stays behind.
        reverse = tf.reverse_sequence(x, lengths, seq_axis=1)
        reverse = self.backward(reverse)
        reverse = tf.reverse_sequence(reverse, lengths, seq_axis=1)
        y = ops.concatenate([self.forward(x), reverse], -1)
        x = x + y if x.shape[-1] == y.shape[-1] else y
        for layer in self.further:
            x = x + layer(self.dropout(x, training=training))
        return self.dropout(x, training=training)


class RecurrentDecoder(keras.layers.Layer):
    """LSTM layers, then global attention, then a softmax.

        h_t = LSTM(h_{t-1}, y_{t-1} + W_s s_t)
        a_t = softmax(h_t' W s + b),  c_t = sum a_t s
        p(y_t) = softmax(W_o tanh(W_c [c_t; h_t]))

    s are the encodings. b is learned for each distance of two places (not in
    the paper), and begins with near places above far ones: else attention finds
    where to look by chance, in some starts after a whole training. Only
    decoders of tags see s_t, the encoding of the subword that they tag next.
    (It is added: XLA takes three times as long for an LSTM whose input is twice
    as wide, [y; s].) The states begin with zeros (chosen): attention is the one
    way from the source to its translation. From a layer of the mean of s,
    scarce pairs were learned by heart before attention had found a word.

    Args:
        outputs: how many symbols or tags.
        embedding, width, depth, dropout: as of `RecurrentEncoder`.
        longest: distances beyond it count as this one.
        aligned: whether the outputs are tags. Defaults to `False`.
    """

    def __init__(
        self,
        outputs,
        embedding,
        width,
        depth,
        dropout,
        longest,
        aligned=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.aligned = aligned
        self.longest = longest
        self.embedding = layers.embedding(outputs, embedding)
        self.recurrent = [
            keras.layers.LSTM(width, return_sequences=True, return_state=True)
            for _ in range(depth)
        ]
        dense = keras.layers.Dense
        self.align = dense(embedding, use_bias=False) if aligned else None
        self.score = dense(width, use_bias=False)
        self.combine = dense(width, activation="tanh", use_bias=False)
        self.output_layer = dense(outputs)
        self.dropout = keras.layers.Dropout(dropout)
        distances = np.abs(np.arange(-longest, longest + 1))
        self.nearness = self.add_weight(
            shape=distances.shape,
            initializer=lambda shape, dtype: ops.cast(
                -_SLOPE * distances, dtype
            ),
            name="nearness",
        )

    def call(self, encoded, mask, inputs, training=False):
        """Logits [B, T, outputs] of what follows `inputs` [B, T]."""
        state = self.start(encoded, mask, None)
        aligned = encoded if self.aligned else None
        # Keras' own trainings may not know lengths beforehand.
        places = ops.arange(ops.shape(inputs)[1], dtype="int32")
        return self._run(
            encoded, mask, inputs, aligned, state, places, training
        )[0]

    def start(self, encoded, mask, length):
        """The state before the first symbol, a list."""
        shape = ops.shape(encoded)[0], self.recurrent[0].units
        states = 2 * len(self.recurrent)
        return [ops.zeros(shape, encoded.dtype) for _ in range(states)]

    def step(self, state, encoded, mask, symbols, place):
        """(logits [B, outputs], next state) after symbols [B] at a place."""
        aligned = encoded[:, place][:, None] if self.aligned else None
        here = ops.convert_to_tensor(place)[None]
        logits, state = self._run(
            encoded, mask, symbols[:, None], aligned, state, here, False
        )
        return logits[:, 0], state

    def _near(self, places, length):
        """What scores [T, S] of places [T] get for their distances."""
        distance = ops.arange(length, dtype="int32")[None] - places[:, None]
        number = ops.clip(distance + self.longest, 0, 2 * self.longest)
        return ops.take(self.nearness, number)

    def _run(self, encoded, mask, inputs, aligned, state, places, training):
        x = self.embedding(inputs)
        if aligned is not None:
            x = x + self.align(aligned)
        after = []
        for number, layer in enumerate(self.recurrent):
            x = self.dropout(x, training=training)
            first = state[2 * number : 2 * number + 2]
            y, *last = layer(x, initial_state=first)
            x = x + y if number else y
            after += last
        scores = ops.matmul(self.score(x), ops.swapaxes(encoded, 1, 2))
        near = self._near(places, ops.shape(encoded)[1])
        # `step` is no call of a layer, which would cast weights.
        scores = scores + ops.cast(near, scores.dtype)
        scores = ops.where(mask[:, None], scores, -1e9)
        context = ops.matmul(ops.softmax(scores), encoded)
        x = self.combine(ops.concatenate([context, x], -1))
        return self.output_layer(self.dropout(x, training=training)), after
