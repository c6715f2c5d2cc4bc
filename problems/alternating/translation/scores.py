"""How good translations, tags and entities are."""

import warnings

from problems.alternating.translation import optional


def bleu(translations, references):
    """BLEU of a corpus by sacrebleu, 0..100: its default settings."""
    return _of_corpus("BLEU", translations, references)


def chrf(translations, references):
    """chrF of a corpus by sacrebleu, 0..100: its default settings."""
    return _of_corpus("CHRF", translations, references)


def _of_corpus(kind, translations, references):
    metrics = optional.module("sacrebleu.metrics")
    metric = getattr(metrics, kind)()
    return metric.corpus_score(list(translations), [list(references)]).score


def span_f1(true, told):
    """F1 of entities by seqeval, 0..1: kind and both ends must be right.

    Args:
        true, told: lists of sentences, each a list of tags.
    """
    metrics = optional.module("seqeval.metrics")
    with warnings.catch_warnings():
        # A corpus without entities has a score of 0, which it says.
        warnings.simplefilter("ignore")
        return float(metrics.f1_score(true, told))


def accuracy(true, told):
    """The share of tokens with the right tag."""
    right = sum(x == y for a, b in zip(true, told) for x, y in zip(a, b))
    return right / max(sum(map(len, true)), 1)
