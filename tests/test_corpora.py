"""Corpora of translation: formats, damage, splits, subwords, batches."""

import collections
import itertools

import numpy as np
import pytest

from problems.alternating.translation import (
    batches,
    corpora,
    data,
    optional,
    sources,
    splits,
    subwords,
)
from problems.alternating.translation.corpora import CorpusError, Pair, Tagged
from problems.alternating.translation.language import Language, _words

SENTENCES = [
    Tagged(
        ("Anna", "Weiß", "kam", ",", "sah", "."),
        ("NE", "NE", "VVFIN", "$,", "VVFIN", "$."),
    ),
    Tagged(("Das", "Café", "&", "Co", "."), tuple("ART NN KON NN $.".split())),
]
NAMES = [
    Tagged(SENTENCES[0].tokens, ("B-PER", "I-PER", "O", "O", "O", "O")),
    Tagged(SENTENCES[1].tokens, ("O", "B-ORG", "I-ORG", "I-ORG", "O")),
]
PAIRS = [
    Pair("Anna kam.", "Anna came."),
    Pair("Ein Café & Co.", "A café & Co."),
]


def _write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _escape(text):
    return text.replace("&", "&amp;")


def _tiger(sentences):
    body = "".join(
        f'<s id="s{i}"><graph root="x"><terminals>'
        + "".join(
            f'<t id="s{i}_{j}" word="{_escape(word)}" lemma="--" pos="{tag}"'
            ' morph="--" />\n'
            for j, (word, tag) in enumerate(zip(*each), 1)
        )
        + "</terminals><nonterminals/></graph></s>\n"
        for i, each in enumerate(sentences, 1)
    )
    return f"<?xml version='1.0'?>\n<corpus><body>{body}</body></corpus>"


def _rows(sentences, row):
    return "\n".join(
        "".join(row(i, *x) + "\n" for i, x in enumerate(zip(*each), 1))
        for each in sentences
    )


def _conll(columns):
    """CoNLL 2006 has 10 columns, 2009 more; TIGER numbers words 1_2."""
    more = ["_"] * (columns - 5)
    return lambda i, word, tag: "\t".join(
        [f"1_{i}", word, "_", "x", tag, *more]
    )


def _iwslt(texts):
    lines = [
        "<url>http://www.ted.com/1</url>",
        "<keywords>talks, TED</keywords>",
        "<talkid>1</talkid>",
        f"<title>{texts[0]}</title>",
        *texts[1:],
        "<url>http://www.ted.com/2</url>",
        " ",
    ]
    return "\n".join(lines) + "\n"


def _xml(texts):
    segments = "".join(
        f'<seg id="{i}"> {_escape(x)} </seg>\n' for i, x in enumerate(texts, 1)
    )
    head = '<mteval><srcset setid="x"><doc docid="7">\n'
    return f"{head}{segments}</doc></srcset></mteval>"


def test_corpora_are_read_as_they_were_written(tmp_path):
    for name, text in (
        ("tiger.xml", _tiger(SENTENCES)),
        ("2006.conll", _rows(SENTENCES, _conll(10))),
        ("2009.conll", "# a comment\n" + _rows(SENTENCES, _conll(15))),
        ("plain.tsv", _rows(SENTENCES, lambda i, *x: "\t".join(x))),
    ):
        found = sources.tagged(_write(tmp_path, name, text))
        assert found.items == SENTENCES, name
    header = "#\thttp://de.wikipedia.org [2009-10-17]\n"
    for name, text in (
        (
            "NER-de-train.tsv",
            header
            + _rows(NAMES, lambda i, word, tag: f"{i}\t{word}\t{tag}\tO"),
        ),
        ("plain.tsv", _rows(NAMES, lambda i, *x: "\t".join(x))),
    ):
        path = _write(tmp_path, name, text)
        assert sources.tagged(path, entities=True).items == NAMES, name
    derived = corpora.entities_of_names(corpora.Corpus(SENTENCES)).items
    assert derived[0].tags == ("B-NE", "I-NE", "O", "O", "O", "O")
    de, en = zip(*PAIRS)
    sides = [(_xml(de), _xml(en)), (_iwslt(de), _iwslt(en))]
    for read, texts in zip(
        (corpora.iwslt_xml_pairs, corpora.iwslt_tagged_pairs), sides
    ):
        paths = [_write(tmp_path, x, t) for x, t in zip(("a", "b"), texts)]
        assert read(*paths).items == PAIRS
    # An empty line of IWSLT's, on both sides, is counted.
    assert read(*paths).empty == 1


def test_a_folder_is_read_in_either_format(tmp_path):
    de, en = zip(*PAIRS)
    tags = _write(tmp_path, "tags.xml", _tiger(SENTENCES))
    for language, texts in (("de", de), ("en", en)):
        _write(tmp_path, f"train.{language}", "\n".join(texts) + "\n")
    found = sources.read(tmp_path, tags)
    assert found.items["translation"] == PAIRS and not found.tests
    assert found.items["entities"][0].tags[0] == "B-NE"
    for language, texts in (("de", de), ("en", en)):
        name = f"IWSLT14.TED.dev2010.de-en.{language}.xml"
        _write(tmp_path, name, _xml(texts))
    assert sources.read(tmp_path, tags).tests == {"translation": PAIRS}
    for language, texts in (("de", de), ("en", en)):
        _write(tmp_path, f"train.tags.de-en.{language}", _iwslt(texts))
    found = sources.read(tmp_path, tags)
    assert found.tests == {"translation": PAIRS} and found.empty == 1
    with pytest.raises(ValueError, match="no sentence pairs in"):
        sources.read(tmp_path / "none", tags)


def test_damaged_corpora_name_file_and_line(tmp_path):
    good = _write(tmp_path, "good", "a\nb\nc\n")
    short = _write(tmp_path, "short", "a\nb\n")
    bad = tmp_path / "bad"
    bad.write_bytes(b"a\nb\xff\n\xc3\n")
    marked = _write(tmp_path, "marked", "a\n<url>x</url>\nc\n")
    holes = _write(tmp_path, "holes", "a\n\n  \n")
    assert corpora.plain_pairs(good, holes) == ([Pair("a", "a")], 2)
    half = _write(tmp_path, "half.xml", _xml(["a"]))
    two = _write(tmp_path, "two.xml", _xml(["a", "b"]))
    cut = _write(tmp_path, "cut.xml", _xml(["a", "b"])[:-30])
    for read, files, message in (
        (corpora.plain_pairs, (good, short), "good, line 3: .*short has no"),
        (corpora.plain_pairs, (bad, good), "bad, line 2: this is not UTF-8"),
        (corpora.iwslt_tagged_pairs, (good, marked), "marked has no line for"),
        (corpora.iwslt_xml_pairs, (half, two), "two.xml, line 3: segment 2"),
        (corpora.iwslt_xml_pairs, (cut, two), "cut.xml, line 3: no XML"),
    ):
        with pytest.raises(CorpusError, match=message):
            read(*files)
    for read, text, message in (
        (corpora.plain_tags, "a\tNN\nb NN\n", "line 2: expected token TAB"),
        (corpora.plain_tags, "a\tNN\n\nb\t \n", "line 3: a token or its tag"),
        (corpora.conll_tags, "1\ta\t_\tx\tNN\n2\tb\n", "line 2: expected col"),
        (corpora.germeval_entities, "1\ta\tO\n", "line 1: expected number"),
        (
            corpora.germeval_entities,
            "1\ta\tB-PER\tO\n2\tb\tI-LOC\tO\n",
            "line 2: 'I-LOC' continues no entity: it follows 'B-PER'",
        ),
        (corpora.germeval_entities, "1\ta\tPER\tO\n", "line 1: 'PER' is no"),
        (corpora.tiger_xml_tags, "<corpus>\n<s><t word='a'/></s></corpus>",
         "line 2: a terminal"),
        (sources.tagged, "\n\n", "line 1: the file has no sentences"),
    ):  # fmt: skip
        with pytest.raises(CorpusError, match=message):
            read(_write(tmp_path, "tags", text))
    with pytest.raises(ValueError, match="no corpus .*nowhere"):
        corpora.conll_tags(tmp_path / "nowhere")


def test_equal_sentences_are_on_one_side_of_a_split():
    pairs = [Pair(f"s {i}", f"t {i}") for i in range(40)]
    # A chain: one source, another target, both linked to a third.
    pairs += [Pair("S 0", "other"), Pair("new", "Other "), Pair("s 1", "x")]
    tags = [Tagged(("s", str(i)), ("A", "B")) for i in range(0, 60, 2)]
    counts = {"pairs": (8, 8), "tags": (5, 5)}
    found = splits.split({"pairs": pairs, "tags": tags}, counts, 3)
    again = splits.split({"pairs": pairs, "tags": tags}, counts, 3)
    assert found == again
    where = {
        item: split
        for of_split in found.values()
        for split, items in of_split.items()
        for item in items
    }
    assert len(where) == len(pairs) + len(tags)
    assert len({where[p] for p in pairs if p in (pairs[0], *pairs[40:42])}) == 1
    assert where[pairs[1]] == where[pairs[42]] == "train"
    for i in range(0, 40, 2):
        assert where[pairs[i]] == where[tags[i // 2]]
    sizes = collections.Counter(where[p] for p in pairs)
    assert sizes["valid"] >= 8 and sizes["test"] >= 8
    # Published tests stay whole; what equals one is not trained on.
    tests = {"pairs": [Pair("S 5", "published")]}
    found = splits.split({"pairs": pairs, "tags": tags}, counts, 3, tests)
    assert found["pairs"]["test"] == tests["pairs"]
    assert pairs[5] not in sum(found["pairs"].values(), [])
    with pytest.raises(ValueError, match="'tags' has too few sentences"):
        splits.split({"pairs": pairs, "tags": tags[:9]}, counts, 3)


@pytest.fixture(scope="module")
def vocabulary():
    pytest.importorskip("tokenizers")
    pairs, *_ = Language().sentences(300, 0)
    return subwords.Subwords.learn([x for pair in pairs for x in pair], 300)


def test_tags_are_carried_to_subwords_exactly(vocabulary):
    _, tags, entities = Language().sentences(50, 1)
    for of_task in (tags, entities):
        encoded = vocabulary.encode_tokens(of_task)
        whole = vocabulary.encode([each.text for each in of_task])
        for each, (numbers, owners), other in zip(of_task, encoded, whole):
            assert numbers == other
            assert vocabulary.decode(numbers) == each.text
            carried = subwords.carried(each.tags, owners)
            firsts = subwords.firsts(owners)
            assert [carried[i] for i in firsts] == list(each.tags)
            assert len(firsts) == len(each.tokens)
            for i, (tag, owner) in enumerate(zip(carried, owners)):
                if i not in firsts:
                    inside = each.tags[owner].replace("B-", "I-")
                    assert tag == inside
    assert any(len(n) > len(set(o)) for n, o in encoded)
    again = subwords.Subwords.from_json(vocabulary.to_json())
    assert again.encode(["der Takot."]) == vocabulary.encode(["der Takot."])


def test_batches_are_functions_of_two_numbers():
    rng = np.random.default_rng(0)
    sources_ = [[*rng.integers(4, 9, n), 3] for n in rng.integers(1, 30, 97)]
    sources_.append([5] * 10_000)
    targets = [[10 + i] for i in range(98)]
    stream = batches.Stream(sources_, targets, 2, (8, 16, 32), 10)
    assert stream.left_out == 1 and len(stream.kept) == 97
    first = [stream.batch(4, i) for i in range(2 * stream.batches_per_epoch)]
    seen = collections.Counter(
        row
        for b in first[: stream.batches_per_epoch]
        for row in b.targets[:, 0]
    )
    assert {*seen} == {*range(10, 107)} and max(seen.values()) <= 2
    shapes = {b.source.shape for b in first}
    assert shapes == {(10, 8), (10, 16), (10, 32)}
    again = batches.Stream(sources_, targets, 2, (8, 16, 32), 10)
    for i in (17, 3, 17):
        for x, y in zip(again.batch(4, i), first[i]):
            np.testing.assert_array_equal(x, y)
    order = [b.targets[0, 0] for b in first]
    assert order[: len(order) // 2] != order[len(order) // 2 :]
    assert any(np.any(x != y) for x, y in zip(stream.batch(5, 0), first[0]))
    whole = np.concatenate([p for p, _ in stream.whole()])
    assert sorted(whole) == list(range(97))
    with pytest.raises(ValueError, match="is longer than 4 subwords"):
        batches.Stream([[5] * 9], [[1]], 2, (4,), 10)


def test_the_generated_language_is_exact():
    language = Language(nouns=9, verbs=6, adjectives=4, adverbs=3, names=3)
    pairs, tags, entities = language.sentences(400, 7)
    assert language.sentences(400, 7)[0] == pairs
    assert language.sentences(400, 8)[0] != pairs
    meaning = collections.defaultdict(set)
    for pair, parts, kinds in zip(pairs, tags, entities):
        assert pair.source == parts.text == kinds.text
        meaning[pair.source].add(pair.target)
        for tag, kind in zip(parts.tags, kinds.tags):
            assert (tag == "NE") == (kind != "O")
        # Names stay as they are, those of persons turned round.
        names = [w for w, t in zip(parts.tokens, parts.tags) if t == "NE"]
        told = [w for w in pair.target.rstrip(".").split() if w[0].isupper()]
        assert sorted(names) == sorted(told)
        finite = [t for t in parts.tags if t in ("VVFIN", "VAFIN", "VMFIN")]
        assert len(finite) == 1 + ("KOUS" in parts.tags)
    # A source has one translation.
    assert max(map(len, meaning.values())) == 1
    nouns = {w for t in tags for w, x in zip(*t) if x == "NN"}
    verbs = {w for t in tags for w, x in zip(*t) if x == "VVFIN"}
    assert nouns & verbs
    with pytest.raises(ValueError, match="`nouns` must be a positive integer"):
        Language(nouns=0)
    with pytest.raises(ValueError, match="`ambiguous` must be a share"):
        Language(ambiguous=2)


def test_data_leave_out_what_is_too_long():
    pytest.importorskip("tokenizers")
    made = sources.generated({}, 200, 200, 0)
    made.items["translation"].append(Pair("sie " * 10_000, "she"))
    found = data.Data(made, (20, 20), 300, (16, 40), 8, 0)
    left_out = [x.left_out for x in found.streams["translation"].values()]
    assert sum(left_out) >= 1
    assert f"translation {'/'.join(map(str, left_out))}, tags" in found.told()
    train = found.streams["entities"]["train"]
    assert len(train.kept) + train.left_out <= 160
    assert found.outputs["tags"] == 2 + len(found.labels["tags"])
    stream = found.streams["tags"]["test"]
    for places, batch in stream.whole():
        for place, row in zip(places, batch.targets):
            true, told = found.tags_of("tags", "test", place, row)
            assert true == told


def test_a_digest_tells_data_apart():
    pytest.importorskip("tokenizers")

    def digest(change=lambda items: None):
        made = sources.generated({}, 100, 100, 0)
        change(made.items)
        return data.Data(made, (20, 20), 300, (40,), 8, 0).digest

    def capital(items):
        # In no split is anything else; subwords are the same.
        pair = items["translation"][3]
        items["translation"][3] = pair._replace(target=pair.target.upper())

    def tag(items):
        each = items["tags"][3]
        tags = (items["tags"][4].tags[0], *each.tags[1:])
        items["tags"][3] = each._replace(tags=tags[::-1])

    found = [digest(), digest(capital), digest(tag)]
    assert digest() == found[0] and len({*found}) == 3


def test_a_missing_library_is_one_sentence():
    with pytest.raises(ValueError, match=r"lopt-tf\[translation\]"):
        optional.module("no_such_library")


def test_odd_lines_of_published_corpora(tmp_path):
    blank = "1\tAnna\tB-PER\tO\n2\t\u00a0\tO\tO\n3\tkam\tO\tO\n"
    found = corpora.germeval_entities(_write(tmp_path, "blank", blank))
    assert found.items == [Tagged(("Anna", "kam"), ("B-PER", "O"))]
    assert found.empty == 1
    with pytest.raises(CorpusError, match="line 2: a token or its tag"):
        lost = blank.replace("\tO\tO\n3", "\tB-LOC\tO\n3")
        corpora.germeval_entities(_write(tmp_path, "lost", lost))
    # Line 2 has a carriage return, line 3 ends with one.
    stray = [_write(tmp_path, x, "") for x in ("stray", "other")]
    stray[0].write_bytes(b"eins\nzw\rei\ndrei\r\n")
    stray[1].write_bytes(b"one\ntwo\nthree")
    assert corpora.plain_pairs(*stray).items == [
        Pair("eins", "one"),
        Pair("zw ei", "two"),
        Pair("drei", "three"),
    ]
    text = '<doc docid="1">\n<url>x</url>\n{}\n</doc>\n'
    sides = [
        _write(tmp_path, name, text.format(line))
        for name, line in (("a", "<i>So</i> ist es."), ("b", "So it is."))
    ]
    assert corpora.iwslt_tagged_pairs(*sides).items == [
        Pair("<i>So</i> ist es.", "So it is.")
    ]
    universal = "1\tAnna\tAnna\tPROPN\t_" + "\t_" * 5 + "\n"
    path = _write(tmp_path, "u.conllu", "# a\n" + universal)
    assert sources.tagged(path).items == [Tagged(("Anna",), ("PROPN",))]
    short = _write(tmp_path, "short.tsv", "#\tX\na\tNN\n")
    assert sources.tagged(short).items[0].tokens == ("#", "a")
    for encoding in ("foo", "shift_jis"):
        odd = f"<?xml version='1.0' encoding='{encoding}'?>\n<corpus/>"
        with pytest.raises(CorpusError, match="line 1: "):
            sources.tagged(_write(tmp_path, "odd.xml", odd))


def test_as_many_sentences_as_were_asked_for(tmp_path):
    pairs, tags, _ = Language().sentences(300, 0)
    for language, side in (("de", 0), ("en", 1)):
        texts = "\n".join(pair[side] for pair in pairs)
        _write(tmp_path, f"train.tags.de-en.{language}", texts)
    path = _write(tmp_path, "tags.tsv", _rows(tags, lambda i, *x: "\t".join(x)))
    most = {"pairs": 100, "tagged": 50, "valid": 20, "test": 30}
    found = sources.read(tmp_path, path, most=most)
    counts = [len(each) for each in found.items.values()]
    assert counts == [150, 100, 100]
    for language, side in (("de", 0), ("en", 1)):
        name = f"IWSLT14.TED.tst2010.de-en.{language}.xml"
        _write(tmp_path, name, _xml([pair[side] for pair in pairs[200:]]))
    found = sources.read(tmp_path, path, most=most)
    # Nothing is drawn for tests that are there.
    assert len(found.items["translation"]) == 120
    assert len(found.tests["translation"]) == 100


def test_sentences_of_files_are_drawn(tmp_path):
    pairs, tags, entities = Language().sentences(300, 0)
    items = sorted(tags, key=lambda each: each.tokens)
    kept = sources._drawn(items, 100, 5)
    places = [items.index(each) for each in kept]
    assert places == sorted(places) and len(places) == 100
    assert places[-1] > 250
    assert sources._drawn(items, 300, 5) == items
    # A tagger sees plain sentences from everywhere, too.
    names = [f"n{i}" for i in range(100)]
    found = data.balanced(
        [Tagged((name,), ("O",)) for name in names]
        + [Tagged(("x",), ("B-PER",))] * 10,
        0,
    )
    plain = [names.index(x.tokens[0]) for x in found if x.tags == ("O",)]
    assert len(plain) == 10 and max(plain) > 50
    with pytest.raises(ValueError, match="cannot be a file of entities"):
        sources.tagged(tmp_path / "tiger.xml", entities=True)


def test_a_vocabulary_has_words_of_both_languages():
    pytest.importorskip("tokenizers")
    made = sources.generated({}, 200, 3000, 0)
    found = data.Data(made, (20, 20), 800, (60,), 8, 0)
    pairs = found.pairs["valid"]
    of_word = [
        sum(map(len, found.subwords.encode(texts)))
        / sum(len(text.split()) for text in texts)
        for texts in zip(*pairs)
    ]
    assert max(of_word) < 1.3 * min(of_word), of_word
    # Repetition is within a language, and each text counts once.
    assert [*data._alike("abca", "x")] == [*"abc", *"xxx"]
    # Nobody could learn entities from sentences that are all too long.
    tags = ("B-PER",) + 79 * ("O",)
    made.items["entities"] = [
        Tagged((f"n{i}", *words), own)
        for i in range(100)
        for words, own in (((), ("O",)), (79 * ("x",), tags))
    ]
    with pytest.raises(ValueError, match="of at most 60 subwords has an"):
        data.Data(made, (20, 20), 800, (60,), 8, 0)


def test_words_of_large_lexicons_are_short():
    words = list(
        itertools.islice(_words(np.random.default_rng(0), "bdfg", "aei"), 1000)
    )
    assert len({*words}) == 1000
    # 4 x 3 x 4 x 3 x 4 words of two syllables, of which half are taken.
    assert [len(word) for word in words[:280]] == [5] * 280
    assert {len(word) for word in words} == {5, 7}
    for seed in (-1, 1.5, "a", None):
        with pytest.raises(ValueError, match="`seed` must be a non-negative"):
            Language(seed=seed)


def test_marks_of_a_vocabulary_are_text():
    pytest.importorskip("tokenizers")
    texts = ["ein <s>alter</s> Hut <pad> der", "<unk> ist </s> Text"]
    vocabulary = subwords.Subwords.learn(texts * 20, 80)
    again = subwords.Subwords.from_json(vocabulary.to_json())
    for each in (vocabulary, again):
        for text, numbers in zip(texts, each.encode(texts)):
            assert min(numbers) > subwords.END
            assert each.decode(numbers) == text
