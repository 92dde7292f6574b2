"""A call as it came: its SQL, its values and how its caller wants it run and answered.

Runs in: cells. The front desk has checked names and types (walkin/bodies.py); what is new here are
the values to bind, which have the one form that encoders.py says, the same in both directions.
"""

import binascii
import json
import math
from base64 import b64decode
from typing import Any, NamedTuple

import orjson

from sandbox.forms import MAX_ROWS, MAX_ROWS_BYTES, Form
from sandbox.names import quoted
from sandbox.refusal import Refusal

Value = None | int | float | str | bytes
Bindings = list[Value] | dict[str, Value]

#: For a table that a model is to read.
_MARKDOWN_CAPS = {"max_rows": 200, "max_bytes": 32_768, "max_cell_bytes": 1000}

INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}
INT64 = range(-(1 << 63), 1 << 63)


class Shape(NamedTuple):
    """How the rows are written, and how much of them."""

    form: Form = Form.JSON
    objects: bool = False
    integers_as_text: bool = False
    max_rows: int = MAX_ROWS
    max_bytes: int = MAX_ROWS_BYTES
    max_cell_bytes: int | None = None
    #: The caller has asked for caps of his own, and is told what they cut.
    budgeted: bool = False


class Call(NamedTuple):
    """One call."""

    sql: str
    args: Bindings | None = None
    #: One statement, once for each of these.
    many: list[Bindings] | None = None
    each: bool = False
    atomic: bool = False
    readonly: bool = False
    stats: bool = False
    explain: bool = False
    shape: Shape = Shape()
    #: The tables that it may read, in small letters (names.folded); all, if it is None.
    tables: frozenset[bytes] | None = None
    #: It has no option and wants JSON: what most calls are.
    is_plain: bool = False
    #: Under which its answer is kept, and what it is kept for; empty: it is not.
    key: bytes = b""
    print: bytes = b""


def decode(body: bytes, form: Form = Form.JSON) -> Call:
    """Return the call in a body that the front desk has checked. Raises Refusal."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:  # it bears less than the standard library
        said = _read_exactly(body)
    if len(said) == 1 and form is Form.JSON:
        return Call(said["sql"], is_plain=True)
    if said.get("args") is not None or said.get("many") is not None:
        said = _read_exactly(body)
    args = said.get("args")
    bound = None if args is None else _bindings(args)
    if len(said) == 2 and "args" in said and form is Form.JSON:  # noqa: PLR2004 - sql is the other
        return Call(said["sql"], bound, is_plain=True)
    many = said.get("many")
    return Call(
        said["sql"],
        bound,
        None if many is None else [_set(values, at) for at, values in enumerate(many)],
        each=bool(said.get("each")),
        atomic=bool(said.get("atomic")),
        readonly=bool(said.get("readonly")),
        stats=bool(said.get("stats")),
        explain=bool(said.get("explain")),
        shape=_shape(said, form),
    )


def _read_exactly(body: bytes) -> Any:
    """Return what the JSON says by the standard library, to which an integer is never a float."""
    try:
        return json.loads(body)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError):
        raise Refusal("invalid_args", "a number too long or a value too deep") from None


def whole_table(name: str, form: Form) -> Call:
    """Return the call that reads a table from end to end."""
    return Call(f"SELECT * FROM {quoted(name)}", readonly=True, shape=_shape({}, form))  # noqa: S608


def _shape(said: dict[str, Any], form: Form) -> Shape:
    caps = {name: said[name] for name in _MARKDOWN_CAPS if said.get(name) is not None}
    budgeted = bool(caps) or form is Form.MARKDOWN
    if form is Form.MARKDOWN:
        caps = _MARKDOWN_CAPS | caps
    return Shape(
        form,
        objects=said.get("rows") == "objects",
        integers_as_text=said.get("integers") == "string",
        budgeted=budgeted,
        **caps,
    )


def _set(values: Any, at: int) -> Bindings:
    try:
        return _bindings(values)
    except Refusal as refusal:
        refusal.fields["set"] = at
        raise


def _bindings(args: Any) -> Bindings:
    if isinstance(args, dict):
        named = {_bare(name): _value(item, name) for name, item in args.items()}
        if len(named) < len(args):
            raise Refusal("invalid_args", "a parameter is named twice")
        return named
    return [_value(item, at) for at, item in enumerate(args)]


def _bare(name: str) -> str:
    """Return a parameter's name without the mark that SQL has before it."""
    return name[1:] if name[:1] in {":", "@", "$"} else name


def _value(item: Any, where: str | int) -> Value:
    """Return what SQLite binds for one JSON value."""
    if isinstance(item, int) and item not in INT64:
        raise Refusal("invalid_args", f"{where!r} does not fit a 64-bit integer")
    if item is None or isinstance(item, int | float | str):
        return item
    if isinstance(item, dict) and len(item) == 1:
        (form, text), *_ = item.items()
        if form == "base64" and isinstance(text, str):
            try:
                return b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                raise Refusal("invalid_args", f"{where!r} is not base64") from None
        if form == "float" and isinstance(text, str) and text in INFINITIES:
            return INFINITIES[text]
    raise Refusal(
        "invalid_args",
        f'{where!r} must be a number, a string, null, true, false, {{"base64": "..."}} or '
        '{"float": "Infinity"}',
    )
