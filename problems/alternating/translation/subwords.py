"""Subwords (byte pair encoding) of both languages, and tags carried to them."""

import unicodedata

from problems.alternating.translation import corpora, optional

# Numbers of the symbols that every vocabulary begins with.
PAD, UNKNOWN, START, END = range(4)
_SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
_LEAST_SYMBOLS = 32


class Subwords:
    """One vocabulary for both languages; punctuation stands alone.

    No subword reaches over a space or a punctuation mark, so that each belongs
    to one token. `decode` restores a text exactly, its letters composed (NFC),
    but for unknown ones.

    Args:
        tokenizer: a `tokenizers.Tokenizer`.
    """

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        # "</s>" in a text is text.
        tokenizer.encode_special_tokens = True

    @classmethod
    def learn(cls, texts, symbols):
        """Learns a vocabulary.

        Args:
            texts: of the training part, both languages.
            symbols: the size of the vocabulary, at least 32; it is smaller if
                the texts have not enough different subwords, and larger if
                they have more different letters.
        """
        if symbols < _LEAST_SYMBOLS:
            raise ValueError(
                f"`symbols` must be at least {_LEAST_SYMBOLS}. Received: "
                f"symbols={symbols!r}"
            )
        tokenizers = optional.module("tokenizers")
        tokenizer = tokenizers.Tokenizer(
            tokenizers.models.BPE(unk_token=_SPECIAL[UNKNOWN])
        )
        parts = tokenizers.pre_tokenizers
        # Texts bring their own first space: see `_spaced`.
        tokenizer.pre_tokenizer = parts.Sequence(
            [parts.Punctuation(), parts.Metaspace(prepend_scheme="never")]
        )
        tokenizer.decoder = tokenizers.decoders.Metaspace(
            prepend_scheme="never"
        )
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=symbols,
            special_tokens=list(_SPECIAL),
            show_progress=False,
        )
        tokenizer.train_from_iterator(map(_spaced, texts), trainer)
        return cls(tokenizer)

    def __len__(self):
        return self._tokenizer.get_vocab_size()

    def encode(self, texts):
        """The subwords of each text, lists of integers, without an end."""
        spaced = [_spaced(text) for text in texts]
        return [found.ids for found in self._tokenizer.encode_batch(spaced)]

    def decode(self, numbers):
        """The text of subwords, up to the first end."""
        numbers = list(numbers)
        if END in numbers:
            numbers = numbers[: numbers.index(END)]
        return self._tokenizer.decode(numbers).strip()

    def encode_tokens(self, sentences):
        """Subwords of tokens, as the running text would have them.

        Args:
            sentences: a list of `Tagged`.

        Returns:
            For each: (subwords, which token each belongs to), two lists.
        """
        spaced = [
            part for each in sentences for part in corpora.spaced(each.tokens)
        ]
        encoded = iter(self._tokenizer.encode_batch(spaced))
        found = []
        for each in sentences:
            numbers, owners = [], []
            for place in range(len(each.tokens)):
                own = next(encoded).ids
                numbers += own
                owners += [place] * len(own)
            found.append((numbers, owners))
        return found

    def to_json(self):
        """The vocabulary as a text that `from_json` reads."""
        return self._tokenizer.to_str()

    @classmethod
    def from_json(cls, text):
        """The vocabulary that `to_json` told."""
        return cls(optional.module("tokenizers").Tokenizer.from_str(text))


def carried(tags, owners):
    """The tags of subwords: those of the tokens that they belong to.

    Of an entity's first token, whose tag begins with B-, the subwords after
    the first continue it: I-.

    Args:
        tags: of the tokens, texts.
        owners: which token each subword belongs to, ascending.
    """
    found, before = [], None
    for owner in owners:
        tag = tags[owner]
        if owner == before and tag.startswith("B-"):
            tag = "I-" + tag[2:]
        found.append(tag)
        before = owner
    return found


def firsts(owners):
    """The place of the first subword of each token."""
    return [i for i, x in enumerate(owners) if i == 0 or owners[i - 1] != x]


def _spaced(text):
    return " " + " ".join(unicodedata.normalize("NFC", text).split())
