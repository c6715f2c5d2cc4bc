"""Readers of corpora: sentence pairs, and sentences with a tag a token.

What is wrong in a file is a `CorpusError` that names the file and the line;
pairs with an empty side, which every published corpus has, are left out and
counted.
"""

import html
import pathlib
import re
import typing
import unicodedata
import xml.sax

# Elements of an IWSLT file of training data that hold text to translate, and
# those whose lines are left out. Others are of the text: "<i>So</i> it is."
_TEXTS = ("title", "description")
_MARKUP = ("url", "talkid", "keywords", "speaker", "reviewer", "translator")
_MARKUP += ("doc", "transcript", "content", "dtype", "date", "file", "refset")
_ELEMENT = re.compile(r"</?(\w+)\b[^>]*>(.*?)(?:</\1>)?$")
# Marks without a space before or after them, if they are tokens of a text.
_CLOSING, _OPENING = ".,;:!?)]}\u2026\u201c", "([{\u201e"
# Of CoNLL 2006, 2009 and U files: the form and the (language's own) tag; where
# 2006 and U files have none, the coarse (or universal) one before it.
_FORM, _TAG, _LEAST_COLUMNS = 1, 4, 5
_COARSE_TAG, _COLUMNS_WITH_COARSE = 3, 10
# Where 2009 files have no tag, that of a program.
_PREDICTED_TAG, _COLUMNS_WITH_PREDICTED = 5, 12
_NO_TAG = "_"
_GZIP = b"\x1f\x8b"
# References to what a file may define, and where they mean nothing.
_REFERENCE = re.compile(rb"&([A-Za-z_][\w.-]*);")
_NO_REFERENCES = re.compile(rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>", re.DOTALL)
_OF_XML = (b"amp", b"lt", b"gt", b"quot", b"apos")
# Of GermEval 2014: number, token, outer entities, inner entities.
_GERMEVAL_COLUMNS = 4


class CorpusError(ValueError):
    """A file is not what its format says, or does not fit another one."""

    def __init__(self, path, line, problem):
        super().__init__(f"{path}, line {line}: {problem}")


class Pair(typing.NamedTuple):
    """A sentence and its translation, texts."""

    source: str
    target: str


class Tagged(typing.NamedTuple):
    """A sentence as tokens, with a tag for each."""

    tokens: tuple
    tags: tuple

    @property
    def text(self):
        """The running text."""
        return joined(self.tokens)


class Corpus(typing.NamedTuple):
    """What a reader found.

    Attributes:
        items: a list of `Pair` or `Tagged`.
        empty: pairs, or tokens, that were left out: they had no text.
    """

    items: list
    empty: int = 0


def spaced(tokens):
    """Tokens with the spaces that stand before them in a text."""
    found, opens = [], False
    for token in tokens:
        closes = all(mark in _CLOSING for mark in token)
        # What begins a text has a space before it, as any word.
        found.append(token if found and (closes or opens) else " " + token)
        opens = all(mark in _OPENING for mark in token)
    return found


def joined(tokens):
    """Tokens as a text."""
    return "".join(spaced(tokens)).strip()


# Pairs.


def plain_pairs(source, target):
    """Reads two text files, line by line.

    Args:
        source, target: paths.

    Raises:
        CorpusError: if one is longer than the other, or is not UTF-8.
    """
    return _paired(source, target, lines(source), lines(target))


def iwslt_tagged_pairs(source, target):
    """Reads IWSLT training data: "train.tags.de-en.de" and its partner.

    Raises:
        CorpusError: if their lines are of different kinds, too.
    """
    first, second = (
        # The two sides may have other markup.
        [row for row in _iwslt_lines(path) if row[1] != "markup"]
        for path in (source, target)
    )
    kinds = [[kind for _, kind, _ in rows] for rows in (first, second)]
    for (number, kind, _), other in zip(second, kinds[0]):
        if kind != other:
            raise CorpusError(
                *(target, number),
                f"{kind} stands opposite of {other} in {source}. The two "
                "files must be of the same release.",
            )
    texts = [
        [(number, html.unescape(text)) for number, _, text in rows]
        for rows in (first, second)
    ]
    return _paired(source, target, *texts)


def iwslt_xml_pairs(source, target):
    """Reads IWSLT validation or test data: "IWSLT14.TED....de-en.de.xml".

    Raises:
        CorpusError: if it is no XML, or a segment has no partner.
    """
    first, second = _segments(source), _segments(target)
    for path, mine, other in (
        (source, first, second),
        (target, second, first),
    ):
        for key, (number, _) in mine.items():
            if key not in other:
                raise CorpusError(
                    *(path, number),
                    f"segment {key[1]} of document {key[0]} has no partner in "
                    "the other file.",
                )
    return _without_empty([(first[key][1], second[key][1]) for key in first])


def _paired(source, target, first, second):
    first, second = list(first), list(second)
    if len(first) != len(second):
        shorter, longer = sorted(
            [(len(first), source), (len(second), target)], key=lambda x: x[0]
        )
        rest = max(first, second, key=len)[shorter[0] :]
        raise CorpusError(
            *(longer[1], rest[0][0]),
            f"{shorter[1]} has no line for this one: it has {shorter[0]} "
            f"lines of text, this file {longer[0]}.",
        )
    pairs = [(text, other) for (_, text), (_, other) in zip(first, second)]
    return _without_empty(pairs)


def _without_empty(pairs):
    kept = [
        Pair(*map(_tidy, pair))
        for pair in pairs
        if all(text.strip() for text in pair)
    ]
    return Corpus(kept, len(pairs) - len(kept))


def _tidy(text):
    """A text with single spaces, its letters composed: one way to write it."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _iwslt_lines(path):
    """[(number, "text", a text's element or "markup", text)] of a file."""
    found = []
    for number, line in lines(path):
        match = _ELEMENT.match(line.strip())
        if match is None:
            found.append((number, "text", line))
        elif match[1].lower() in _TEXTS:
            found.append((number, match[1].lower(), match[2]))
        elif match[1].lower() in _MARKUP:
            found.append((number, "markup", ""))
        else:
            found.append((number, "text", line))
    return found


# Tags.


def plain_tags(path, entities=False):
    """Reads lines of token TAB tag, with an empty line between sentences.

    Args:
        path: of the file.
        entities: whether tags are of entities: O, B-NAME or I-NAME.

    Raises:
        CorpusError: for a line of another form, a wrong tag, or no UTF-8.
    """

    def columns(number, line):
        cells = line.split("\t")
        if len(cells) != 2:
            raise CorpusError(
                path,
                number,
                f"expected token TAB tag. Received: {_shown(line)}",
            )
        return cells

    return _sentences(path, columns, entities)


def conll_tags(path):
    """Reads tags of a CoNLL 2006, 2009 or U file, such as TIGER's.

    Rows of several words ("3-4") and of words that are not there ("3.1") repeat
    what other rows say, and are left out.

    Raises:
        CorpusError: for a line of another form, or no UTF-8.
    """

    # One set of tags for a file, whichever of its words have the others.
    rows = [line.split("\t") for _, line in lines(path)]
    coarse = [
        cells[_COARSE_TAG]
        for cells in rows
        if not cells[0].startswith("#") and not _is_repeated(cells)
        if len(cells) == _COLUMNS_WITH_COARSE and cells[_TAG] == _NO_TAG
    ]
    # Else the first word without a tag is an error.
    is_coarse = bool(coarse) and _NO_TAG not in coarse

    def columns(number, line):
        cells = line.split("\t")
        if len(cells) < _LEAST_COLUMNS:
            raise CorpusError(
                *(path, number),
                "expected columns number, form, lemma, ..., tag, separated "
                f"by tabs. Received: {_shown(line)}",
            )
        if _is_repeated(cells):
            return None
        tag = cells[_COARSE_TAG if is_coarse else _TAG]
        if tag == _NO_TAG and len(cells) >= _COLUMNS_WITH_PREDICTED:
            tag = cells[_PREDICTED_TAG]
        if tag == _NO_TAG:
            raise CorpusError(path, number, "the word has no tag.")
        # TIGER: "sentence_number".
        place = cells[0].rpartition("_")[2]
        return cells[_FORM], tag, int(place) if place.isdecimal() else None

    return _sentences(path, columns, comment="#")


def _shown(line):
    """What an error shows of a line."""
    return repr(line if len(line) <= 80 else line[:77] + "...")


def _is_repeated(cells):
    """Whether other rows have a row's words, or nobody has."""
    return bool(re.fullmatch(r"\d+[-.]\d+", cells[0]))


def germeval_entities(path):
    """Reads the outer entities of GermEval 2014 (TSV).

    Raises:
        CorpusError: for a line of another form, a wrong tag, or no UTF-8.
    """

    def columns(number, line):
        cells = line.split("\t")
        if len(cells) != _GERMEVAL_COLUMNS or not cells[0].isdecimal():
            raise CorpusError(
                *(path, number),
                "expected number, token, outer and inner entity, separated "
                f"by tabs. Received: {_shown(line)}",
            )
        return *cells[1:3], int(cells[0])

    return _sentences(path, columns, entities=True, comment="#")


def tiger_xml_tags(path):
    """Reads tags of a file in TIGER-XML.

    Raises:
        CorpusError: if it is no XML, or a terminal has no word or tag.
    """
    found, where = [], []

    def start(number, name, attributes):
        if name == "s":
            found.append([])
            where.append(number)
        elif name == "t":
            cells = [_tidy(attributes.get(x, "")) for x in ("word", "pos")]
            if not found or not all(cells):
                raise CorpusError(
                    path, number, "a terminal <t> must have word and pos."
                )
            found[-1].append(cells)

    _parse(path, start)
    if not found:
        raise CorpusError(path, 1, "the file has no sentences (<s>).")
    for number, rows in zip(where, found):
        if not rows:
            raise CorpusError(path, number, "a sentence <s> without words.")
    return Corpus([Tagged(*map(tuple, zip(*rows))) for rows in found])


def entities_of_names(corpus, tag="NE"):
    """A corpus of entities: each row of tokens with a tag is a name.

    Args:
        corpus: a `Corpus` of `Tagged`, such as part-of-speech tags.
        tag: of names, STTS's. Defaults to `"NE"`.
    """
    items = []
    for tokens, tags in corpus.items:
        before, found = "O", []
        for each in tags:
            part = "O" if each != tag else "BI"[before != "O"] + "-" + tag
            found.append(part)
            before = part
        items.append(Tagged(tokens, tuple(found)))
    return Corpus(items)


def _sentences(path, columns, entities=False, comment=None):
    """A `Corpus` of a file with a token a line.

    `columns` takes a line apart: token, tag, and the row's number where there
    are numbers; None leaves it out. GermEval has a few tokens of nothing but a
    space that does not break lines: no text, and no entity.
    """
    items, rows, empty, before = [], [], 0, None
    for number, line in lines(path):
        if not line.strip():
            if rows:
                items.append(Tagged(*map(tuple, zip(*rows))))
            rows, before = [], None
            continue
        if comment and not rows and line.startswith(comment):
            continue
        cells = columns(number, line)
        if cells is None:
            continue
        token, tag = map(_tidy, cells[:2])
        place = cells[2] if len(cells) > 2 else None
        if place is not None and before is not None and place <= before:
            raise CorpusError(
                *(path, number),
                f"row {place} follows row {before}: the empty line between "
                "two sentences is missing.",
            )
        before = place
        if entities and not token and tag == "O":
            empty += 1
            continue
        if not token or not tag:
            raise CorpusError(path, number, "a token or its tag is missing.")
        if entities:
            _check_entity(path, number, tag, rows[-1][1] if rows else "O")
        rows.append((token, tag))
    if rows:
        items.append(Tagged(*map(tuple, zip(*rows))))
    return Corpus(items, empty)


def _check_entity(path, number, tag, before):
    known = tag == "O" or (tag[:2] in ("B-", "I-") and len(tag) > 2)
    if not known:
        raise CorpusError(
            *(path, number),
            f"{tag!r} is no entity's tag: those are O, B-NAME and I-NAME.",
        )
    if tag.startswith("I-") and before[2:] != tag[2:]:
        raise CorpusError(
            path, number, f"{tag!r} continues no entity: it follows {before!r}."
        )


# Files.


def lines(path):
    """Yields (number from 1, text) of a file in UTF-8; `CorpusError`."""
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ValueError(
            f"There is no corpus {path} to read: {error.strerror}."
        ) from error
    if content.startswith(_GZIP):
        raise CorpusError(path, 1, "the file is compressed: gunzip it first.")
    content = content.removeprefix(b"\xef\xbb\xbf")
    # A lone carriage return ends no line: others, who count lines of the two
    # sides of a corpus, do not take it for an end either.
    found = content.split(b"\n")
    for number, line in enumerate(found[: None if found[-1] else -1], 1):
        try:
            yield number, line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(
                *(path, number),
                f"this is not UTF-8 ({error.reason}, byte {error.start}).",
            ) from error


def _segments(path):
    """{(document, segment): (line, text)} of an IWSLT file in XML."""
    found, position = {}, {"document": "", "key": None}

    def start(number, name, attributes):
        if name == "doc":
            position["document"] = attributes.get("docid", "")
        if name == "seg":
            key = position["document"], attributes.get("id", "")
            if key in found:
                raise CorpusError(
                    path, number, f"a second segment {key[1]} of {key[0]}."
                )
            position["key"] = key
            found[key] = number, ""

    def end(name):
        if name == "seg":
            position["key"] = None

    def text(part):
        key = position["key"]
        if key is not None:
            found[key] = found[key][0], found[key][1] + part

    _parse(path, start, end, text)
    return found


def _parse(path, start, end=None, text=None):
    """Reads XML: `start` gets (line, name, attributes) of each element."""

    class Handler(xml.sax.ContentHandler):
        def setDocumentLocator(self, locator):
            self.locator = locator

        def startElement(self, name, attrs):
            start(self.locator.getLineNumber(), name, attrs)

        def endElement(self, name):
            if end:
                end(name)

        def characters(self, content):
            if text:
                text(content)

    try:
        content = pathlib.Path(path).read_bytes()
        _check_references(path, content)
        xml.sax.parseString(content, Handler())
    except xml.sax.SAXParseException as error:
        raise CorpusError(
            path, error.getLineNumber(), f"no XML: {error.getMessage()}."
        ) from error
    except (LookupError, ValueError) as error:
        if isinstance(error, CorpusError):
            raise
        # An encoding that Python, or the parser, does not know.
        raise CorpusError(path, 1, f"cannot be read: {error}.") from error
    except OSError as error:
        raise ValueError(
            f"There is no corpus {path} to read: {error.strerror}."
        ) from error


def _check_references(path, content):
    """Raises CorpusError for &NAME; that the file does not define.

    The parser leaves them out without a word where a file names a DTD.
    """
    bare = _NO_REFERENCES.sub(lambda x: b"\n" * x[0].count(b"\n"), content)
    for match in _REFERENCE.finditer(bare):
        name = match[1]
        if name not in _OF_XML and b"<!ENTITY " + name + b" " not in content:
            raise CorpusError(
                *(path, bare[: match.start()].count(b"\n") + 1),
                f"&{name.decode()}; is not defined: write the letter itself.",
            )


def is_xml(path):
    """Whether a file is XML, by its name or its beginning."""
    if str(path).lower().endswith(".xml"):
        return True
    for _, line in lines(path):
        if line.strip():
            return line.lstrip().startswith(("<?xml", "<corpus"))
    return False
