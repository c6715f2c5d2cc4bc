"""A generated language pair: translation, tags and entities are exact.

The source has what makes German hard to translate: articles and adjectives
agree with gender, case and number; the finite verb comes second and the rest
of it last; verbs have prefixes that stand at the end of the clause and change
the meaning; anything may come first; subordinate clauses end with their verbs.
The target is as plain as English. Words are made of syllables. Some verbs look
like nouns, so that only the place in the sentence tells them apart. Names stay
as they are, but persons, not towns and firms, have theirs the other way round.
"""

import dataclasses
import itertools

import numpy as np

from problems.alternating.supervised import check_positive, check_seed
from problems.alternating.translation.corpora import Pair, Tagged, joined

_GENDERS = 3
# By case (nominative, accusative, dative): masculine, feminine, neuter, plural.
_DEFINITE = (
    ("der", "die", "das", "die"),
    ("den", "die", "das", "die"),
    ("dem", "der", "dem", "den"),
)
_INDEFINITE = (
    ("ein", "eine", "ein"),
    ("einen", "eine", "ein"),
    ("einem", "einer", "einem"),
)
_STRONG = (("er", "e", "es"), ("en", "e", "es"), ("en", "en", "en"))
_PLURALS = ("e", "en", "er")
_PREPOSITIONS = (("mit", "with"), ("von", "from"), ("bei", "near"))
_CONJUNCTIONS = (("weil", "because"), ("wenn", "if"), ("dass", "that"))
# Places of a clause's parts before one of them comes first.
_SUBJECT, _ADVERB = 0, 1
_PREFIXES = ("an", "aus", "vor", "zu")


@dataclasses.dataclass(frozen=True)
class Language:
    """Grammar and lexicon; equal settings, equal sentences.

    Attributes:
        nouns, verbs, adjectives, adverbs: how many of each. A third of the
            verbs can take a prefix, and mean something else with each.
        names: how many of persons, of towns and of firms.
        ambiguous: the share of verbs with a form that is a noun, too.
        subordinate: the share of sentences with a subordinate clause.
        seed: of the words.
    """

    nouns: int = 60
    verbs: int = 30
    adjectives: int = 20
    adverbs: int = 12
    names: int = 15
    ambiguous: float = 0.5
    subordinate: float = 0.15
    seed: int = 0

    def __post_init__(self):
        counts = ("nouns", "verbs", "adjectives", "adverbs", "names")
        check_positive(
            int, most=5000, **{name: getattr(self, name) for name in counts}
        )
        check_seed(seed=self.seed)
        for name in ("ambiguous", "subordinate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"`{name}` must be a share from 0 to 1. Received: "
                    f"{name}={getattr(self, name)!r}"
                )

    def sentences(self, count, seed):
        """Draws sentences.

        Args:
            count: how many.
            seed: an integer or a list of them.

        Returns:
            Three lists: `Pair`, `Tagged` with parts of speech (STTS) and
            `Tagged` with entities, each of the same sentences.
        """
        grammar = _Grammar(self)
        rng = np.random.default_rng(seed)
        pairs, tags, entities = [], [], []
        for _ in range(count):
            source, target = grammar.sentence(rng)
            words, parts, kinds = map(tuple, zip(*source))
            pairs.append(Pair(joined(words), joined(target)))
            tags.append(Tagged(words, parts))
            entities.append(Tagged(words, kinds))
        return pairs, tags, entities


class _Grammar:
    """The lexicon of a `Language`, and sentences of it.

    Phrases of the source are lists of (word, tag, entity), of the target lists
    of words.
    """

    def __init__(self, language):
        self.language = language
        rng = np.random.default_rng([language.seed, 1])
        source = _words(rng, "bdfgklmnprst", ("ei", "a", "o", "u", "ie", "ä"))
        target = _words(rng, "bcdfghlmprstvw", ("a", "ea", "i", "o", "oo", "e"))

        def entries(number):
            return [(next(source), next(target)) for _ in range(number)]

        self.nouns = entries(language.nouns)
        self.adjectives = entries(language.adjectives)
        self.adverbs = entries(language.adverbs)
        self.verbs = entries(language.verbs)
        for place in range(int(language.ambiguous * len(self.verbs))):
            # "fangt" is what it does, and a thing.
            noun = place % len(self.nouns)
            self.nouns[noun] = self.verbs[place][0] + "t", self.nouns[noun][1]
        self.particles = {
            (place, prefix): next(target)
            for place in range(len(self.verbs) // 3)
            for prefix in _PREFIXES
        }
        self.names = {
            kind: [next(source).capitalize() for _ in range(language.names)]
            for kind in ("PER", "LOC", "ORG")
        }

    def sentence(self, rng):
        source, target = self._clause(rng, main=True)
        if rng.random() < self.language.subordinate:
            word, translation = _pick(rng, _CONJUNCTIONS)
            below, other = self._clause(rng, main=False)
            source += [_plain(",", "$,"), _plain(word, "KOUS"), *below]
            target += [translation, *other]
        return source + [_plain(".", "$.")], target + ["."]

    def _clause(self, rng, main):
        subject, translated, plural = self._subject(rng)
        finite, rest, verb = self._verb(rng, plural)
        objects, translated_object = self._phrase(rng, 1)
        adverb, translated_adverb = _pick(rng, self.adverbs)
        further, translated_further = [], []
        if rng.random() < 0.4:
            further, translated_further = self._place(rng)
        target = [*translated, *verb, *translated_object]
        target += [*translated_further, translated_adverb]
        parts = [subject, [_plain(adverb, "ADV")], objects]
        if further:
            parts.append(further)
        if not main:
            # Everything else, then the verb: prefixes stay with it.
            if rest and rest[0][1] == "PTKVZ":
                finite = [_plain(rest[0][0] + finite[0][0], "VVFIN")]
                rest = []
            return [*itertools.chain(*parts), *rest, *finite], target
        # Whatever comes first, the verb is second.
        place = rng.choice(len(parts), p=_chances(len(parts)))
        if place == _ADVERB and _is_person(subject) and _is_person(objects):
            # The two would meet, and nobody could tell where one ends.
            place = _SUBJECT
        first = parts.pop(place)
        return [*first, *finite, *itertools.chain(*parts), *rest], target

    def _verb(self, rng, plural):
        """(finite part, what comes last) of the source, target."""
        place = int(rng.integers(len(self.verbs)))
        stem, meaning = self.verbs[place]
        prefix = ""
        if (place, _PREFIXES[0]) in self.particles and rng.random() < 0.7:
            prefix = _pick(rng, _PREFIXES)
            meaning = self.particles[place, prefix]
        form = rng.integers(3)
        if form == 0:
            finite = _plain(stem + ("en" if plural else "t"), "VVFIN")
            last = [_plain(prefix, "PTKVZ")] if prefix else []
            return [finite], last, [meaning + ("" if plural else "s")]
        if form == 1:
            finite = _plain("haben" if plural else "hat", "VAFIN")
            last = [_plain(f"{prefix}ge{stem}t", "VVPP")]
            return [finite], last, ["have" if plural else "has", meaning + "ed"]
        finite = _plain("wollen" if plural else "will", "VMFIN")
        last = [_plain(f"{prefix}{stem}en", "VVINF")]
        return [finite], last, ["want" if plural else "wants", "to", meaning]

    def _subject(self, rng):
        draw = rng.random()
        if draw < 0.2:
            # "sie" is one or several: the verb tells.
            word, meaning, plural = _pick(
                rng,
                (
                    ("er", "he", False),
                    ("sie", "she", False),
                    ("sie", "they", True),
                ),
            )
            return [_plain(word, "PPER")], [meaning], plural
        if draw < 0.45:
            source, target = self._name(rng, _pick(rng, ("PER", "ORG")))
            return source, target, False
        plural = bool(rng.random() < 0.4)
        return *self._phrase(rng, 0, plural), plural

    def _place(self, rng):
        """ "in" a town, or another preposition with a person or a thing."""
        if rng.random() < 0.5:
            source, target = self._name(rng, "LOC")
            return [_plain("in", "APPR"), *source], ["in", *target]
        word, meaning = _pick(rng, _PREPOSITIONS)
        source, target = self._phrase(rng, 2)
        return [_plain(word, "APPR"), *source], [meaning, *target]

    def _phrase(self, rng, case, plural=None):
        if plural is None:
            if rng.random() < 0.15:
                return self._name(rng, "PER")
            plural = bool(rng.random() < 0.4)
        place = int(rng.integers(len(self.nouns)))
        noun, meaning = self.nouns[place]
        gender = place % _GENDERS
        definite = plural or rng.random() < 0.6
        if definite:
            article = _DEFINITE[case][3 if plural else gender]
            weak = not plural and (case == 0 or (case == 1 and gender > 0))
            ending = "e" if weak else "en"
        else:
            article = _INDEFINITE[case][gender]
            ending = _STRONG[case][gender]
        source = [_plain(article, "ART")]
        target = ["the" if definite else "a"]
        if rng.random() < 0.5:
            adjective, translation = _pick(rng, self.adjectives)
            source.append(_plain(adjective + ending, "ADJA"))
            target.append(translation)
        source.append(_plain(noun + _PLURALS[gender] * plural, "NN"))
        return source, [*target, meaning + "s" * plural]

    def _name(self, rng, kind):
        count = 2 if rng.random() < 0.4 else 1
        words = [_pick(rng, self.names[kind]) for _ in range(count)]
        marks = ["B-" + kind, "I-" + kind]
        source = [(w, "NE", m) for w, m in zip(words, marks)]
        return source, words[::-1] if kind == "PER" else words


def _is_person(words):
    return words[0][2] == "B-PER"


def _plain(word, tag):
    return word, tag, "O"


def _pick(rng, entries):
    return entries[int(rng.integers(len(entries)))]


def _chances(count):
    """Of what comes first: the subject in half of the sentences."""
    return [0.5, *[0.5 / (count - 1)] * (count - 1)]


def _words(rng, consonants, vowels):
    """Yields different words of two syllables, or more when these run out."""
    seen, count = set(), 2
    while True:
        # One in two tries finds a new one, at the least.
        while 2 * len(seen) > _count_words(consonants, vowels, count):
            count += 1
        word = "".join(
            f"{_pick(rng, consonants)}{_pick(rng, vowels)}"
            for _ in range(count)
        ) + _pick(rng, consonants)
        if word not in seen:
            seen.add(word)
            yield word


def _count_words(consonants, vowels, syllables):
    return (len(consonants) * len(vowels)) ** syllables * len(consonants)
