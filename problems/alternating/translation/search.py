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
    greedy_wins = tf.where(ended == have_ended, scores >= their, ended)
    return _chosen(greedy_wins, (outputs, scores), (others, their))


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
    # Of those that have come to their end: others may crowd them out later.
    best = tf.zeros([count, length], tf.int32), tf.fill([count], -np.inf)

    def body(place, state, totals, outputs, symbols, done, lengths, best):
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
            now = _best(outputs, totals / lengths, done)
            best = _chosen(best[1] >= now[1], best, now)
        return place + 1, state, totals, outputs, symbols, done, lengths, best

    found = tf.while_loop(
        lambda place, *rest: ~tf.reduce_all(rest[4]),
        body,
        (
            *(tf.constant(0), list(state), totals, outputs, symbols, done),
            *(lengths, best),
        ),
        maximum_iterations=length,
    )
    _, _, totals, outputs, _, _, lengths, best = found
    ended = best[1] > -np.inf
    all_beams = tf.ones([count, beams], tf.bool)
    others = _best(outputs, totals / tf.maximum(lengths, 1.0), all_beams)
    outputs, scores = _chosen(ended, best, others)
    return outputs, scores, ended


def _best(outputs, scores, is_candidate):
    """(outputs, score) of each sentence's best candidate; -inf for none."""
    is_candidate &= scores > _NEVER / 2 / outputs.shape[-1]
    scores = tf.where(is_candidate, scores, -np.inf)
    place = tf.argmax(scores, 1, tf.int32)
    return tuple(
        tf.gather(array, place, batch_dims=1) for array in (outputs, scores)
    )


def _chosen(is_first, first, second):
    """Row by row, one of two (outputs, scores)."""
    return (
        tf.where(is_first[:, None], first[0], second[0]),
        tf.where(is_first, first[1], second[1]),
    )


def _allowed(chances, done, end, first):
    """Log probabilities; who is done says nothing, at no cost."""
    symbols = tf.range(chances.shape[-1])
    allowed = symbols >= first
    if end is not None:
        allowed |= symbols == end
    silent = tf.where(symbols == 0, 0.0, _NEVER)
    return tf.where(done[..., None], silent, tf.where(allowed, chances, _NEVER))
