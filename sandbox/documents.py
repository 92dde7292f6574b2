"""NDJSON and JSON that come in: objects, or an answer as a call gets it.

Runs in: cells, on bytes of whoever calls. Standard library only.

Rows are read one at a time and by the standard library: to it an integer is never a float, it tells
of keys that are there twice, and it can begin anywhere in a text.
"""

import codecs
import io
import json
import math
import re
from base64 import b64decode
from collections.abc import Callable, Generator, Iterator
from typing import Any, NoReturn

from sandbox.calls import INFINITIES, INT64, Value
from sandbox.columns import (
    LONGEST_NUMBER,
    Clock,
    Incoming,
    Kind,
    check_name,
    is_text,
    not_utf8,
    refused,
    type_of,
)
from sandbox.names import short
from sandbox.refusal import Refusal

#: Rows as JSON has them, each with its line or number.
Items = Callable[[], Iterator[tuple[int, Any]]]

#: The clock is looked at after so many rows, or so many times 64 bytes of them.
_LOOK_EVERY = 1000
_KINDS = {int: Kind.INTEGER, float: Kind.REAL, bytes: Kind.BLOB, str: Kind.TEXT}
_SPACE = re.compile(r"[ \t\r\n]*")


def read_lines(body: bytes, look_at_clock: Clock) -> Incoming:
    """Return the rows in NDJSON. Raises Refusal."""

    def items() -> Iterator[tuple[int, Any]]:
        since = 0
        for line, piece in enumerate(io.BytesIO(body), 1):
            since += 1 + (len(piece) >> 6)
            if since >= _LOOK_EVERY:
                look_at_clock()
                since = 0
            text = _text(piece, line)
            at = _space(text, 0)
            if at < len(text):
                item, at = _parse(text, at, line)
                _expect_end(text, at, line)
                yield line, item

    return _incoming(items, None)


def read_document(body: bytes, look_at_clock: Clock) -> Incoming:
    """Return the rows in one JSON array, or in an object that has `rows`. Raises Refusal."""
    text = _text(body, 1)
    start = _space(text, 0)
    names = None
    in_object = text[start : start + 1] == "{"

    def items() -> Iterator[tuple[int, Any]]:
        count, end = yield from _array(text, start, look_at_clock)
        if not in_object:  # what comes after the rows there has been read
            _expect_end(text, end, max(count, 1))

    if in_object:
        start, names = _members(text, start, look_at_clock)
    elif text[start : start + 1] != "[":
        raise refused("it must be an array of objects, or an object that has `rows`", 1)
    return _incoming(items, names)


def _incoming(items: Items, named: list[str] | None) -> Incoming:
    """Return the rows among these, all of which are looked at once now."""
    kinds: dict[str, int] = {}
    taken: set[bytes] = set()
    for name in named or []:
        check_name(name, taken, 1)
        kinds[name] = 0
    for line, item in items():
        for name, one in _pairs(item, named, line):
            if name not in kinds:
                check_name(name, taken, line)
                kinds[name] = 0
            value = _value(one, line)
            if value is not None:
                kinds[name] |= _KINDS[type(value)]
    if not kinds:
        raise refused("there are no columns", 1)
    columns = list(kinds)

    def rows(_: frozenset[int]) -> Iterator[tuple[int, list[Value]]]:
        for line, item in items():
            row = dict(_pairs(item, named, line))
            yield line, [_value(row.get(name), line) for name in columns]

    return Incoming(columns, [type_of(found) for found in kinds.values()], rows)


def _pairs(item: Any, named: list[str] | None, line: int) -> Any:
    """Return a row's columns, each with what it has there."""
    if isinstance(item, dict):
        return item.items()
    if not isinstance(item, list) or named is None:
        raise refused("a row must be an object", line)
    if len(item) != len(named):
        raise refused(f"{len(item):,} values for {len(named):,} columns", line)
    return zip(named, item, strict=True)


def _value(item: Any, line: int) -> Value:
    """Return what SQLite gets for a value: as in `args` (calls.py), else the text of its JSON."""
    if isinstance(item, dict | list):
        return _of_object(item, line)
    if isinstance(item, str):
        if not (item.isascii() or is_text(item)):
            raise refused("a string has half of a character", line)
        return item
    if isinstance(item, int):
        if item not in INT64:
            raise refused("an integer does not fit 64 bits; send it as a string", line)
        return int(item)  # true is 1
    found: Value = item  # a float or null
    return found


def _of_object(item: Any, line: int) -> Value:
    if isinstance(item, dict) and len(item) == 1:
        ((form, said),) = item.items()
        if form == "base64" and isinstance(said, str):
            try:
                return b64decode(said, validate=True)
            except ValueError:
                raise refused("the text of `base64` is not base64", line) from None
        if form == "float" and isinstance(said, str) and said in INFINITIES:
            return INFINITIES[said]
    try:
        text = json.dumps(item, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise refused("a value is nested too deeply", line) from None
    return _value(text, line)


def _members(text: str, at: int, look_at_clock: Clock) -> tuple[int, list[str] | None]:
    """Return where an object's `rows` begin, and its `columns`."""
    start = count = 0
    names: list[str] | None = None
    seen: set[str] = set()
    at = _space(text, at + 1)
    while text[at : at + 1] != "}":
        if seen:
            at = _expect(text, at, ",", count)
        if text[at : at + 1] != '"':
            raise refused("it is not JSON: a key is missing", max(count, 1))
        key, at = _parse(text, at, max(count, 1))
        if key in seen:
            raise refused(f"an object has {short(key)!a} twice", max(count, 1))
        seen.add(key)
        at = _expect(text, at, ":", count)
        if key == "rows":
            if text[at : at + 1] != "[":
                raise refused("`rows` must be an array", 1)
            start = at
            count, at = _skip(text, at, look_at_clock)
        else:
            value, at = _parse(text, at, max(count, 1))
            if key == "columns":
                names = _names(value)
        at = _space(text, at)
    _expect_end(text, at + 1, max(count, 1))
    if not start:
        raise refused("it has no `rows`", 1)
    return start, names


def _names(value: Any) -> list[str]:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return value
    raise refused("`columns` must be an array of strings", 1)


def _array(
    text: str, at: int, look_at_clock: Clock
) -> Generator[tuple[int, Any], None, tuple[int, int]]:
    """Yield an array's items with their numbers; return how many there are, and where it ends."""
    number = since = 0
    at = _space(text, at + 1)
    while text[at : at + 1] != "]":
        if number:
            at = _expect(text, at, ",", number)
        number += 1
        begun = at
        item, at = _parse(text, at, number)
        since += 1 + ((at - begun) >> 6)
        if since >= _LOOK_EVERY:
            look_at_clock()
            since = 0
        yield number, item
        at = _space(text, at)
    return number, at + 1


def _skip(text: str, at: int, look_at_clock: Clock) -> tuple[int, int]:
    """Return how many items an array has, and where it ends."""
    items = _array(text, at, look_at_clock)
    while True:
        try:
            next(items)
        except StopIteration as end:
            found: tuple[int, int] = end.value
            return found


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _expect(text: str, at: int, mark: str, line: int) -> int:
    at = _space(text, at)
    if text[at : at + 1] != mark:
        raise refused(f"it is not JSON: `{mark}` is missing", max(line, 1))
    return _space(text, at + 1)


def _expect_end(text: str, at: int, line: int) -> None:
    if _space(text, at) < len(text):
        raise refused("it is not JSON: something follows its end", line)


def _text(body: bytes, line: int) -> str:
    # Not by the codec of that name, which Python would look for on a disk that the jail has closed.
    if line == 1:
        body = body.removeprefix(codecs.BOM_UTF8)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(line + body.count(b"\n", 0, error.start)) from None


def _parse(text: str, at: int, line: int) -> tuple[Any, int]:
    """Return the JSON value that begins there, and where it ends."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise refused(f"it is not JSON: {error.msg}", line) from None
    except RecursionError:
        raise refused("a value is nested too deeply", line) from None
    except Refusal as refusal:
        refusal.fields["line"] = line
        raise
    except ValueError:
        raise refused("a number is too long", line) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise refused(f"an object has {short(key)!a} twice", 0)
            seen.add(key)
    return found


def _float(digits: str) -> float:
    found = math.inf if len(digits) > LONGEST_NUMBER else float(digits)
    if math.isinf(found):
        raise refused("a number does not fit a float", 0)
    return found


def _constant(name: str) -> NoReturn:
    raise refused(f"it is not JSON: {name}", 0)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
