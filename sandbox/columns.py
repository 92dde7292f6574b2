"""Columns of rows that come in: their names, what their words are, and the types that follow.

Runs in: cells, on bytes of whoever calls. Pure functions; standard library only.

In CSV a word is what stands between two delimiters. What it is, is decided for a batch of a column
at once where that can be done by one regular expression, and word by word elsewhere.
"""

import math
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from sandbox import policy
from sandbox.calls import INFINITIES, INT64, Value
from sandbox.names import folded, short
from sandbox.refusal import Refusal

MAX_COLUMNS = policy.LIMITS["COLUMN"]

#: What a word begins with that was quoted; see separated.py.
QUOTED = "\x01"
#: What an unquoted word has before it that itself begins with one of these two.
ESCAPE = "\x02"

#: float() takes long over more digits than anybody means.
LONGEST_NUMBER = 400
_BLOB = "base64:"

_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_REAL = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

# The same for a whole column, a word a line, any of them empty; what might not fit is left out.
_SMALL = r"0|-?[1-9][0-9]{0,17}"
_SHORT = (
    r"-?(?:0|[1-9][0-9]{0,17})?\.[0-9]{1,30}(?:[eE][+-]?[0-9]{1,2})?"
    r"|-?(?:0|[1-9][0-9]{0,17})[eE][+-]?[0-9]{1,2}|-?Infinity"
)
_INTEGERS = re.compile(rf"(?:(?:{_SMALL})?\n)*+")
_REALS = re.compile(rf"(?:(?:{_SHORT})?\n)*+")
_NUMBERS = re.compile(rf"(?:(?:{_SHORT}|{_SMALL})?\n)*+")


class Incoming(NamedTuple):
    """Rows that come in."""

    columns: list[str]
    #: For a table to be made: INTEGER, REAL, TEXT, BLOB or nothing where they are mixed.
    types: list[str]
    #: The rows, each with the line where it begins (in a JSON array, its number), both from 1. The
    #: argument: the indexes of columns whose target has TEXT affinity, where unquoted numbers of
    #: CSV stay as they are written.
    rows: Callable[[frozenset[int]], Iterator[tuple[int, list[Value]]]]


class Kind:
    """What values of a column are, as bits; null is none. Plain integers: an enum's `|` is slow."""

    INTEGER = 1
    REAL = 2
    BLOB = 4
    TEXT = 8
    #: Text that is not quoted.
    WORD = 16


Reader = Callable[[Sequence[str]], Sequence[Value]]
#: Raises when the time is over.
Clock = Callable[[], None]


def refused(detail: str, line: int) -> Refusal:
    """Return the refusal of rows."""
    return Refusal("invalid_rows", detail, line=line)


def not_utf8(line: int) -> Refusal:
    """Return the refusal of bytes that are no text."""
    return refused("the text is not UTF-8", line)


def check_name(name: str, taken: set[bytes], line: int) -> None:
    """Refuse a name that no further column can have; else note it in `taken`."""
    if not name:
        raise refused("a column has no name", line)
    if "\0" in name or not is_text(name):
        raise refused("a column's name has a character that no name can have", line)
    key = folded(name)
    if key in taken:
        raise refused(f"two columns are named {short(name)}", line)
    if len(taken) == MAX_COLUMNS:
        raise refused(f"there are more than {MAX_COLUMNS:,} columns", line)
    taken.add(key)


def is_text(value: str) -> bool:
    """Return whether it has no half of a character: JSON's escapes can write one."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def type_of(kinds: int) -> str:
    """Return the type of a column that has values of these kinds."""
    if not kinds or kinds == Kind.TEXT or kinds & Kind.WORD:
        # Where one word is text, others that look like numbers (1, 2, n/a) are words too.
        return "TEXT"
    if kinds == Kind.INTEGER:
        return "INTEGER"
    if kinds == Kind.BLOB:
        return "BLOB"
    if kinds == Kind.INTEGER | Kind.REAL:
        return "NUMERIC"  # as a REAL, an integer beyond 2**53 would be another one
    return "REAL" if kinds == Kind.REAL else ""


def kinds_of(words: Sequence[str]) -> int:
    """Return the kinds that words of one column have; what is unquoted and empty has none."""
    column = "\n".join(words) + "\n"
    # A quoted word may have a line feed of its own, and then two words in it.
    if column.count("\n") == len(words):
        if len(column) == len(words):
            return 0
        if _INTEGERS.fullmatch(column):
            return Kind.INTEGER
        if _REALS.fullmatch(column):
            return Kind.REAL
        if _NUMBERS.fullmatch(column):
            return Kind.INTEGER | Kind.REAL
    kinds = 0
    for word in words:
        if word:
            kinds |= _kind(word)
            if kinds & Kind.WORD:  # nothing else counts any more
                break
    return kinds


def _kind(word: str) -> int:
    if word[0] == QUOTED:
        return Kind.TEXT
    value = _typed(word)
    if isinstance(value, str):
        return Kind.WORD
    if isinstance(value, bytes):
        return Kind.BLOB
    return Kind.INTEGER if isinstance(value, int) else Kind.REAL


def _typed(word: str) -> int | float | str | bytes:
    """Return what an unquoted word stands for; itself if that is text."""
    if word.startswith(_BLOB):
        try:
            return b64decode(word[len(_BLOB) :], validate=True)
        except ValueError:
            return word
    return INFINITIES[word] if word in INFINITIES else _number(word)


def _number(word: str) -> int | float | str:
    if len(word) > LONGEST_NUMBER:
        return word
    if _INTEGER.fullmatch(word):
        number = int(word)
        return number if number in INT64 else word
    # Digits alone are none, as they would lose some; but -0 is.
    if _REAL.fullmatch(word):
        real = float(word)
        return word if math.isinf(real) else real
    return word


def plain(word: str) -> str:
    """Return a word without the mark before it."""
    return word[1:] if word[:1] in {QUOTED, ESCAPE} else word


def reader(kinds: int, *, as_text: bool) -> Reader:
    """Return what reads words of a column that has these kinds."""
    if as_text or type_of(kinds) == "TEXT":
        return _as_text_and_blobs if kinds & Kind.BLOB and not kinds & Kind.WORD else _as_text
    if kinds == Kind.INTEGER:
        return _as_integers
    return _as_reals if kinds == Kind.REAL else _as_they_are


def _as_text(words: Sequence[str]) -> list[Value]:
    return [plain(word) if word else None for word in words]


def _as_text_and_blobs(words: Sequence[str]) -> list[Value]:
    """Affinity changes numbers to text and leaves a BLOB alone, so one is as good here as there."""
    found: list[Value] = []
    for word in words:
        value = _typed(word) if word.startswith(_BLOB) else plain(word)
        found.append(value if word else None)
    return found


def _as_integers(words: Sequence[str]) -> list[Value]:
    return [int(word) if word else None for word in words]


def _as_reals(words: Sequence[str]) -> list[Value]:
    return [float(word) if word else None for word in words]


def _as_they_are(words: Sequence[str]) -> list[Value]:
    return [(word[1:] if word[0] == QUOTED else _typed(word)) if word else None for word in words]
