"""Recurrent cells: GRU and LSTM on arrays [..., features, n]."""

import numpy as np
from keras import ops


def normal(rng, out_size, in_size):
    """A matrix before meta-training: 0.5 / sqrt(fan in) * normal."""
    return rng.normal(0.0, 0.5 / np.sqrt(in_size), (out_size, in_size))


def gru_weights(rng, size, inputs):
    """A GRU's meta-parameters before meta-training; it begins slow."""
    return {
        "gates": normal(rng, 2 * size, inputs + size),
        "gates_bias": np.full((2 * size, 1), 2.2),
        "candidate": normal(rng, size, inputs + size),
        "candidate_bias": np.zeros((size, 1)),
    }


def lstm_weights(rng, size, inputs):
    """An LSTM's meta-parameters before meta-training."""
    return {
        "gates": normal(rng, 4 * size, inputs + size),
        "gates_bias": np.zeros((4 * size, 1)),
    }


def affine(weights, name, values):
    """W values + b."""
    return ops.matmul(weights[name], values) + weights[f"{name}_bias"]


def _affine(weights, name, inputs, hidden):
    """W [inputs, hidden] + b."""
    values = ops.concatenate([inputs, hidden], axis=-2)
    return affine(weights, name, values)


def gru(weights, name, inputs, hidden, bias=None):
    """One step of a GRU: the new hidden state [..., H, n].

    Args:
        weights: dict of meta-parameters, with those of the cell `name`.
        name: the cell's name.
        inputs: [..., features, n].
        hidden: [..., H, n].
        bias: an extra bias [..., 3 H, n] (reset, update, candidate).
    """
    size = hidden.shape[-2]
    gates = _affine(weights, f"{name}/gates", inputs, hidden)
    if bias is not None:
        gates = gates + bias[..., : 2 * size, :]
    gates = ops.sigmoid(gates)
    reset, update = gates[..., :size, :], gates[..., size:, :]
    candidate = _affine(weights, f"{name}/candidate", inputs, reset * hidden)
    if bias is not None:
        candidate = candidate + bias[..., 2 * size :, :]
    return update * hidden + (1 - update) * ops.tanh(candidate)


def lstm(weights, name, inputs, hidden):
    """One step of an LSTM: the new cell and hidden states [..., 2 H, n].

    The gates' rows are input, new value, forget, output; 1 is added to the
    forget gate, as in TensorFlow's LSTMCell.

    Args:
        weights, name, inputs: as for `gru`.
        hidden: cell state above hidden state, [..., 2 H, n].
    """
    size = hidden.shape[-2] // 2
    cell, output = hidden[..., :size, :], hidden[..., size:, :]
    gates = _affine(weights, f"{name}/gates", inputs, output)
    enter, new, forget, leave = (
        gates[..., i * size : (i + 1) * size, :] for i in range(4)
    )
    cell = ops.sigmoid(forget + 1) * cell + ops.sigmoid(enter) * ops.tanh(new)
    return ops.concatenate([cell, ops.sigmoid(leave) * ops.tanh(cell)], axis=-2)
