"""Corpora as they come: entities, other letters, other columns, comments."""

import collections
import gzip
import unicodedata

import numpy as np
import pytest

from problems.alternating.translation import (
    batches,
    corpora,
    data,
    sources,
    subwords,
)
from problems.alternating.translation.corpora import CorpusError, Pair, Tagged
from problems.alternating.translation.language import Language


def _write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _segment(text, beginning=""):
    segment = f'<doc docid="1"><seg id="1">{text}</seg></doc>'
    return f"{beginning}\n<mteval>{segment}</mteval>"


def test_no_letter_of_xml_is_lost(tmp_path):
    outside = '<!DOCTYPE mteval SYSTEM "mteval.dtd">'
    inside = '<!DOCTYPE mteval [<!ENTITY auml "ä">]>'
    good = _write(tmp_path, "good.xml", _segment("a &amp; b"))
    for beginning in ("", outside):
        lost = _write(tmp_path, "lost", _segment("M&auml;dchen", beginning))
        with pytest.raises(CorpusError, match="lost, line 2: &auml; is not"):
            corpora.iwslt_xml_pairs(lost, good)
    told = _write(tmp_path, "told", _segment("M&auml;dchen", inside))
    assert corpora.iwslt_xml_pairs(told, good).items == [
        Pair("Mädchen", "a & b")
    ]
    quoted = _segment("<!-- &x; --><![CDATA[&y;]]>", outside)
    quoted = _write(tmp_path, "quoted", quoted)
    assert corpora.iwslt_xml_pairs(quoted, good).items[0].source == "&y;"
    terminal = '<corpus><s>\n<t word="M&auml;d" pos="NN"/></s></corpus>'
    path = _write(tmp_path, "tiger", f"<!DOCTYPE c SYSTEM 'x'>\n{terminal}")
    with pytest.raises(CorpusError, match="tiger, line 3: &auml; is not"):
        corpora.tiger_xml_tags(path)
    path = _write(tmp_path, "empty", "<corpus><body></body></corpus>")
    with pytest.raises(CorpusError, match="empty, line 1: the file has no"):
        sources.tagged(path)


def test_letters_are_composed(tmp_path):
    pytest.importorskip("tokenizers")
    words = "Mädchen größer über"
    apart = unicodedata.normalize("NFD", words)
    assert apart != words
    one, other = (_write(tmp_path, x, f"{apart}\n") for x in "ab")
    assert corpora.plain_pairs(one, other).items == [Pair(words, words)]
    rows = "".join(f"{word}\tNN\n" for word in apart.split())
    (found,) = corpora.plain_tags(_write(tmp_path, "tags", rows)).items
    assert found.text == words
    vocabulary = subwords.Subwords.learn([words] * 50, 60)
    assert vocabulary.encode([apart]) == vocabulary.encode([words])
    assert vocabulary.decode(vocabulary.encode([apart])[0]) == words


def test_tokens_have_the_subwords_of_their_text():
    pytest.importorskip("tokenizers")
    for tokens in (("...", "und"), ("“", "so", "”"), (",", "da", ")")):
        text = corpora.joined(tokens)
        vocabulary = subwords.Subwords.learn([text] * 50, 60)
        tagged = Tagged(tokens, ("X",) * len(tokens))
        ((numbers, _),) = vocabulary.encode_tokens([tagged])
        assert [numbers] == vocabulary.encode([text])


def test_columns_of_conll_files(tmp_path):
    def read(text):
        return sources.tagged(_write(tmp_path, "tags", text))

    # A 2009 file whose tags are a program's.
    row = "{}\t{}\tx\tx\t{}\t{}" + "\t_" * 8 + "\n"
    text = row.format(1, "a", "_", "NN") + row.format(2, "b", "ADV", "NN")
    assert read(text).items == [Tagged(("a", "b"), ("NN", "ADV"))]
    # A U file in which one word has no tag of the language's own.
    row = "{}\t{}\tx\t{}\t{}" + "\t_" * 5 + "\n"
    text = row.format(1, "a", "NOUN", "NN") + row.format(2, "b", "ADV", "_")
    assert read(text).items == [Tagged(("a", "b"), ("NOUN", "ADV"))]
    comment = "# text = a\tb\tc\n"
    assert read(comment + text).items == read(text).items
    for wrong, message in (
        (row.format(1, "a", "_", "_"), "line 1: the word has no tag"),
        # Nor has it another column of tags.
        (
            row.format(1, "a", "_", "NN") + row.format(2, "b", "_", "_"),
            "line 2: the word has no tag",
        ),
        (text + text, "line 3: row 1 follows row 2: the empty line"),
    ):
        with pytest.raises(CorpusError, match=message):
            read(wrong)
    names = "#\thttp://x\t[2009]\n1\ta\tB-PER\tO\n2\tb\tI-PER\tO\n"
    path = _write(tmp_path, "names", names)
    expected = [Tagged(("a", "b"), ("B-PER", "I-PER"))]
    assert sources.tagged(path, entities=True).items == expected
    path = _write(tmp_path, "names", names + "1\tc\tO\tO\n")
    with pytest.raises(CorpusError, match="line 4: row 1 follows row 2"):
        sources.tagged(path, entities=True)


def test_files_are_told_by_what_is_in_them(tmp_path):
    text = (
        '<?xml version="1.0"?>\n<corpus><s><t word="a" pos="NN"/></s></corpus>'
    )
    for name in ("x.XML", "x.tiger"):
        found = sources.tagged(_write(tmp_path, name, text))
        assert found.items == [Tagged(("a",), ("NN",))]
    # A token may be a mark.
    found = sources.tagged(_write(tmp_path, "marks", "<\t$(\n#\t$(\n"))
    assert found.items == [Tagged(("<", "#"), ("$(", "$("))]
    path = tmp_path / "x.xml.gz"
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(CorpusError, match="compressed: gunzip it first"):
        sources.tagged(path)


def test_training_lines_of_iwslt(tmp_path):
    one = "<URL>x</URL>\n<translator>y</translator>\nR&amp;D\nb\n"
    other = "<url>x</url>\nr &quot;d&quot;\nc\n"
    paths = [
        _write(tmp_path, x, text) for x, text in (("a", one), ("b", other))
    ]
    found = corpora.iwslt_tagged_pairs(*paths)
    assert found.items == [Pair("R&D", 'r "d"'), Pair("b", "c")]
    paths[1].write_text("<title>t</title>\nc\n")
    with pytest.raises(CorpusError, match="b, line 1: title stands opposite"):
        corpora.iwslt_tagged_pairs(*paths)


def test_pairs_like_a_published_test_are_counted():
    pytest.importorskip("tokenizers")
    made = sources.generated({}, 60, 60, 0)
    pairs = made.items["translation"]
    tests = {"translation": [Pair(pairs[0].source.upper(), "x")]}
    found = data.Data(
        *(made._replace(tests=tests), (5, 5), 100, (200,), 8, 0),
    )
    left = sum(len(x) for x in found.pairs.values()) - 1
    assert found.shared >= 1 and left == len(pairs) - found.shared
    assert f"{found.shared} too like a test sentence" in found.told()


def test_few_long_sentences_are_not_trained_on_for_a_whole_batch():
    rows = [[5] * 3] * 20 + [[6] * 12] * 2
    stream = batches.Stream(rows, rows, 2, (4, 16), 8)
    epoch = [stream.batch(0, i) for i in range(stream.batches_per_epoch)]
    long = [x for x in epoch if x.source.shape[1] == 16]
    (batch,) = long
    assert batch.source.shape == (8, 16)
    assert (batch.targets[:, 0] == 6).sum() == 2
    assert all(not part[2:].any() for part in map(_sorted_rows, batch))


def _sorted_rows(array):
    return array[np.argsort(-array.sum(axis=1), kind="stable")]


def test_names_never_meet():
    settings = {"nouns": 3, "verbs": 1, "adjectives": 1, "adverbs": 1}
    language = Language(names=2, subordinate=0.0, **settings)
    pairs, _, entities = language.sentences(6000, 0)
    meaning = collections.defaultdict(set)
    for pair, kinds in zip(pairs, entities):
        meaning[pair.source].add((pair.target, kinds.tags))
        tags = " ".join(kinds.tags)
        assert "I-PER B-PER" not in tags and "B-PER B-PER" not in tags
    # Whoever knows the language can tell them.
    assert max(map(len, meaning.values())) == 1
