"""CSV and TSV that come in, after RFC 4180: what was quoted is text.

Runs in: cells, on bytes of whoever calls. Standard library only.

Our own CSV quotes text and nothing else (encoders.py), so quotes say what a value is; but csv keeps
no quotes. Each quoted field is therefore given a mark behind the quote that opens it. An unquoted
field that happens to begin with a mark is given another, so that any text can come.

Others quote everything. Where no data field is unquoted the quotes say nothing, and what they hold
is read as if it were unquoted.
"""

import codecs
import csv
import re
from collections.abc import Iterator, Sequence

from sandbox.calls import Value
from sandbox.columns import (
    ESCAPE,
    QUOTED,
    Clock,
    Incoming,
    Kind,
    Reader,
    check_name,
    kinds_of,
    not_utf8,
    plain,
    reader,
    refused,
    type_of,
)

_BATCH = 1000
_CHUNK = 1 << 16

# A value may have 1 MiB, and a BLOB is a third longer in base64. It is the process's, and nothing
# else in a cell reads CSV.
csv.field_size_limit(2 << 20)


class _Survey:
    """What the columns were found to hold."""

    def __init__(self, width: int) -> None:
        self.kinds = [0] * width
        self.all_quoted = True
        self._any = False

    def add(self, columns: list[tuple[str, ...]]) -> None:
        """Look at a batch of every column."""
        if self.all_quoted and not all(word[:1] == QUOTED for words in columns for word in words):
            self.all_quoted = False
            # All before were quoted, and now that says that they were text.
            self.kinds = [Kind.TEXT if self._any else 0] * len(columns)
        self._any = True
        for at, words in enumerate(columns):
            if not self.kinds[at] & Kind.WORD:
                self.kinds[at] |= kinds_of(_bare(words) if self.all_quoted else words)


def read(body: bytes, delimiter: str, look_at_clock: Clock) -> Incoming:
    """Return the rows in a body. Raises Refusal."""
    records = _records(body, delimiter, look_at_clock)
    line, header = next(records, (1, []))
    if not header:
        raise refused("the first line must name the columns", line)
    names = [plain(word) for word in header]
    taken: set[bytes] = set()
    for name in names:
        check_name(name, taken, line)
    survey = _Survey(len(names))
    for _, batch in _batches(records, len(names), look_at_clock):
        survey.add(batch)

    def rows(as_text: frozenset[int]) -> Iterator[tuple[int, list[Value]]]:
        readers = [
            _reader(kinds, as_text=at in as_text, all_quoted=survey.all_quoted)
            for at, kinds in enumerate(survey.kinds)
        ]
        again = _records(body, delimiter, look_at_clock)
        next(again)
        for lines, batch in _batches(again, len(names), look_at_clock):
            columns = [read(words) for read, words in zip(readers, batch, strict=True)]
            yield from zip(lines, map(list, zip(*columns, strict=True)), strict=True)

    return Incoming(names, [type_of(kinds) for kinds in survey.kinds], rows)


def _reader(kinds: int, *, as_text: bool, all_quoted: bool) -> Reader:
    if not all_quoted:
        return reader(kinds, as_text=as_text)
    if as_text or type_of(kinds) == "TEXT":
        return _unquoted  # an empty one is text too
    read = reader(kinds, as_text=False)
    return lambda words: read(_bare(words))


def _unquoted(words: Sequence[str]) -> list[str]:
    return [word[1:] for word in words]


def _bare(words: Sequence[str]) -> list[str]:
    """Return quoted words as they would be had they not been quoted."""
    found = _unquoted(words)
    together = "".join(found)
    if QUOTED in together or ESCAPE in together:
        return [ESCAPE + word if word[:1] in {QUOTED, ESCAPE} else word for word in found]
    return found


def _batches(
    records: Iterator[tuple[int, list[str]]], width: int, look_at_clock: Clock
) -> Iterator[tuple[list[int], list[tuple[str, ...]]]]:
    """Yield the records in batches: the lines where they begin, and each column's words."""
    lines: list[int] = []
    batch: list[list[str]] = []
    for line, record in records:
        if len(record) != width:
            if not record and width > 1:
                continue
            if record:
                raise refused(f"{len(record):,} values for {width:,} columns", line)
            record = [""]  # noqa: PLW2901 - a single null has nothing on its line
        lines.append(line)
        batch.append(record)
        if len(batch) == _BATCH:
            look_at_clock()
            yield lines, list(zip(*batch, strict=True))
            lines, batch = [], []
    if batch:
        yield lines, list(zip(*batch, strict=True))


def _records(body: bytes, delimiter: str, look_at_clock: Clock) -> Iterator[tuple[int, list[str]]]:
    """Yield each record's words, marked, and the line where it begins."""
    chunks = _marked(_chunks(body, look_at_clock), delimiter)
    records = csv.reader(_lines(chunks), delimiter=delimiter, strict=True)
    line = 1
    try:
        for record in records:
            yield line, record
            line = records.line_num + 1
    except csv.Error as error:
        told = str(error)
        if told.startswith("new-line"):
            told = "a carriage return without a line feed"
        raise refused(told, line) from None


def _chunks(body: bytes, look_at_clock: Clock) -> Iterator[str]:
    """Yield the text piece by piece, each up to the end of a line where there is one."""
    start = len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0
    while start < len(body):
        look_at_clock()
        end = start + _CHUNK
        if end < len(body):
            end = body.rfind(b"\n", start, end) + 1 or _between_characters(body, end)
        try:
            yield body[start:end].decode()
        except UnicodeDecodeError as error:
            raise not_utf8(body.count(b"\n", 0, start + error.start) + 1) from None
        start = end


def _between_characters(body: bytes, at: int) -> int:
    for back in range(4):
        if body[at - back] & 0xC0 != 0x80:  # noqa: PLR2004 - a byte that goes on with a character
            return at - back
    return at  # it is not UTF-8


def _marked(chunks: Iterator[str], delimiter: str) -> Iterator[str]:
    """Yield the text with marks. Between two quotes that open, or close, there is one of the other
    kind, so every second piece stands outside.
    """
    ends = (delimiter, "\n")
    to_escape = re.compile(rf"(?<=[{delimiter}\n])(?=[{QUOTED}{ESCAPE}])")
    inside = False
    before = "\n"
    lines = 1
    for chunk in chunks:
        pieces = chunk.split('"')
        if QUOTED in chunk or ESCAPE in chunk:
            for at in range(inside, len(pieces), 2):
                pieces[at] = to_escape.sub(ESCAPE, pieces[at])
            if not inside and before in ends and chunk[0] in {QUOTED, ESCAPE}:
                pieces[0] = ESCAPE + pieces[0]
        for at in range(inside, len(pieces) - 1, 2):
            outside = pieces[at] or (before if at == 0 else "")
            if outside.endswith(ends):
                pieces[at + 1] = QUOTED + pieces[at + 1]
            elif outside not in {"", '"'}:  # two quotes within a field are one
                line = lines + "".join(pieces[: at + 1]).count("\n")
                raise refused("a quote within a value that is not quoted", line)
        inside ^= len(pieces) % 2 == 0
        before = chunk[-1]
        lines += chunk.count("\n")
        yield '"'.join(pieces)


def _lines(chunks: Iterator[str]) -> Iterator[str]:
    begun: list[str] = []
    for chunk in chunks:
        *whole, rest = chunk.split("\n")
        for line in whole:
            if begun:
                yield "".join([*begun, line, "\n"])
                begun = []
            else:
                yield line + "\n"
        if rest:
            begun.append(rest)
    if begun:
        yield "".join(begun)
