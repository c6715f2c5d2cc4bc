"""Where sentences come from: the generated pair, or files in known formats."""

import glob
import pathlib
import typing

import numpy as np

from problems.alternating.translation import corpora
from problems.alternating.translation.language import Language

TASKS = ("translation", "tags", "entities")


class Sources(typing.NamedTuple):
    """Sentences of the three tasks.

    Attributes:
        items: {task: list of `Pair` or `Tagged`}.
        tests: the same of published test sets, {} if there are none.
        empty: pairs, and tokens of entities' files, without text: left out.
    """

    items: dict
    tests: dict
    empty: int = 0


def generated(language, pairs, tagged, seed):
    """Sentences of a `Language`: other ones for each task.

    Args:
        language: {argument of `Language`: value}.
        pairs, tagged: sentences of translation, and of each other task.
        seed: of the sentences, an integer.
    """
    made = Language(**language)
    counts = (pairs, tagged, tagged)
    items = {
        task: made.sentences(count, [seed, place])[place]
        for place, (task, count) in enumerate(zip(TASKS, counts))
    }
    return Sources(items, {})


def read(folder, tags, entities="", languages=("de", "en"), most=None, seed=0):
    """Sentences of files.

    Args:
        folder: of the pairs: IWSLT's release ("train.tags.de-en.de") or
            "train.de" and "train.en", line by line; "IWSLT*.de.xml" beside
            them, each with its partner, as test sentences.
        tags: a file of part-of-speech tags: TIGER-XML, CoNLL, or token TAB tag.
        entities: a file of entities: GermEval 2014, or token TAB tag. Defaults
            to `""`: the names among the tags, if they are STTS.
        languages: of sources and targets, how the files' names end. Defaults
            to `("de", "en")`.
        most: how many sentences to take: {"pairs", "tagged", "valid", "test":
            integers}, of which those of the last two are of each task.
            Published tests need none. Defaults to `None`: all.
        seed: of their draw, an integer. Defaults to `0`.

    Raises:
        CorpusError: for what is wrong in a file.
        ValueError: if a file is missing.
    """
    found, tests = _pairs(pathlib.Path(folder), languages)
    parts = tagged(tags)
    if entities:
        names = tagged(entities, entities=True)
    else:
        names = corpora.entities_of_names(parts)
        if not any("B-NE" in each.tags for each in names.items):
            raise ValueError(
                f"{tags} has no names (tag NE) to make entities of. Name a "
                "file of entities."
            )
    items = [found.items, parts.items, names.items]
    if most:
        apart = most["valid"] + most["test"]
        of_pairs = most["valid"] if tests.items else apart
        ends = most["pairs"] + of_pairs, *[most["tagged"] + apart] * 2
        items = [
            _drawn(each, count, [seed, place])
            for place, (each, count) in enumerate(zip(items, ends))
        ]
    return Sources(
        dict(zip(TASKS, items)),
        {TASKS[0]: tests.items} if tests.items else {},
        found.empty + tests.empty + names.empty,
    )


def _drawn(items, count, seed):
    """So many of a list, in its order: files may be sorted."""
    if count >= len(items):
        return items
    places = np.random.default_rng(seed).permutation(len(items))[:count]
    return [items[place] for place in sorted(places)]


def tagged(path, entities=False):
    """The `Corpus` of a file of tags or entities, in whatever format."""
    if corpora.is_xml(path):
        if entities:
            raise ValueError(
                f"{path} cannot be a file of entities: XML is read for its "
                "parts of speech alone. Entities are in TSV, as GermEval has "
                "them, or token TAB tag."
            )
        return corpora.tiger_xml_tags(path)
    columns = _columns(path)
    if entities and columns == 4:
        return corpora.germeval_entities(path)
    if not entities and columns > 4:
        return corpora.conll_tags(path)
    return corpora.plain_tags(path, entities)


def _columns(path):
    """Columns of a file's first line with a token."""
    found = None
    for _, line in corpora.lines(path):
        if line.strip():
            columns = line.count("\t") + 1
            if not line.startswith("#"):
                return columns
            # "#" may be a token, too.
            found = found or columns
    if found is None:
        raise corpora.CorpusError(path, 1, "the file has no sentences.")
    return found


def _pairs(folder, languages):
    """(`Corpus`, `Corpus` of test sentences) of a folder."""
    source, target = languages
    names = [f"train.tags.{source}-{target}.{x}" for x in languages]
    plain = [folder / f"train.{x}" for x in languages]
    paths = [folder / name for name in names]
    tests = corpora.Corpus([])
    if paths[0].exists():
        found = corpora.iwslt_tagged_pairs(*paths)
    elif plain[0].exists():
        found = corpora.plain_pairs(*plain)
    else:
        raise ValueError(
            f"There are no sentence pairs in {folder}: neither {names[0]} "
            f"nor train.{source}."
        )
    pattern = glob.escape(str(folder)) + f"/IWSLT*.{source}.xml"
    for path in sorted(glob.glob(pattern)):
        partner = path.removesuffix(f"{source}.xml") + f"{target}.xml"
        more = corpora.iwslt_xml_pairs(path, partner)
        tests = corpora.Corpus(
            tests.items + more.items, tests.empty + more.empty
        )
    return found, tests
