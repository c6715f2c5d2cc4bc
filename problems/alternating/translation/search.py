"""Greedy and beam search, for any decoder with `start` and `step`."""

import numpy as np
import tensorflow as tf

_NEVER = -1e9


def search(decoder, encoded, mask, length, start, beams=1, end=None, first=0):
    """The best outputs that were found, and their scores.

    A score is the mean log probability of the outputs. Outputs that have come
    to their end are better than any that have not: a loop of likely symbols
    has a high mean. A beam may lose what greedy search finds; therefore that
    is compared with it, too, and a beam is never worse.

    Args:
        decoder: with the methods `start` and `step`.
        encoded, mask: of the sources [B, S, H], [B, S].
        length: the most outputs, an integer.
        start: the symbol before the first one.
        beams: candidates of each sentence. Defaults to `1`: greedy search.
        end: the symbol after which a sentence is complete. Defaults to `None`:
            none is.
        first: symbols below this one are never chosen, but for `end`. Defaults
            to `0`.

    Returns:
        outputs: integers [B, length]; 0 behind the end.
        scores: [B].
    """
    given = decoder, encoded, mask, length, start
    outputs, scores, ended = _search(*given, 1, end, first)
    if beams == 1:
        return outputs, scores
    others, their, have_ended = _search(*given, beams, end, first)
    better = tf.where(ended == have_ended, their > scores, have_ended)
    return (
        tf.where(better[:, None], others, outputs),
        tf.where(better, their, scores),
    )


def _search(decoder, encoded, mask, length, start, beams, end, first):
    """Outputs, scores, and whether they have come to their end."""
    count = encoded.shape[0]
    encoded, mask = (tf.repeat(x, beams, axis=0) for x in (encoded, mask))
    state = decoder.start(encoded, mask, length)
    # All beams begin alike: only the first one counts.
    totals = tf.tile(tf.constant([[0.0] + [_NEVER] * (beams - 1)]), [count, 1])
    outputs = tf.zeros([count, beams, length], tf.int32)
    symbols = tf.fill([count, beams], start)
    done = tf.zeros([count, beams], tf.bool)
    lengths = tf.zeros([count, beams])

    def body(place, state, totals, outputs, symbols, done, lengths):
        logits, state = decoder.step(
            state, encoded, mask, tf.reshape(symbols, [-1]), place
        )
        chances = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        width = chances.shape[-1]
        chances = tf.reshape(chances, [count, beams, width])
        chances = _allowed(chances, done, end, first)
        totals, chosen = tf.math.top_k(
            tf.reshape(totals[..., None] + chances, [count, -1]), beams
        )
        parents, symbols = chosen // width, chosen % width
        rows = parents + beams * tf.range(count)[:, None]
        state = [tf.gather(x, tf.reshape(rows, [-1])) for x in state]
        outputs, done, lengths = (
            tf.gather(x, parents, batch_dims=1)
            for x in (outputs, done, lengths)
        )
        here = tf.range(length) == place
        outputs = tf.where(here, symbols[..., None], outputs)
        lengths += tf.where(done, 0.0, 1.0)
        if end is not None:
            done |= symbols == end
        return place + 1, state, totals, outputs, symbols, done, lengths

    found = tf.while_loop(
        lambda place, *rest: ~tf.reduce_all(rest[4]),
        body,
        (tf.constant(0), list(state), totals, outputs, symbols, done, lengths),
        maximum_iterations=length,
    )
    _, _, totals, outputs, _, done, lengths = found
    scores = totals / tf.maximum(lengths, 1.0)
    ended = tf.reduce_any(done, 1)
    is_candidate = done | ~ended[:, None]
    best = tf.argmax(tf.where(is_candidate, scores, -np.inf), 1, tf.int32)
    return (
        tf.gather(outputs, best, batch_dims=1),
        tf.gather(scores, best, batch_dims=1),
        ended,
    )


def _allowed(chances, done, end, first):
    """Log probabilities; who is done says nothing, at no cost."""
    symbols = tf.range(chances.shape[-1])
    allowed = symbols >= first
    if end is not None:
        allowed |= symbols == end
    silent = tf.where(symbols == 0, 0.0, _NEVER)
    return tf.where(done[..., None], silent, tf.where(allowed, chances, _NEVER))
