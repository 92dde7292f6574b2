"""Parameters and their values: which of either has no counterpart, by name.

Runs in: cells. Standard library only. SQLite numbers the parameters of each statement by itself
(https://www.sqlite.org/lang_expr.html#varparam); an array of values goes through all statements.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping

from sandbox.calls import Bindings
from sandbox.names import short
from sandbox.refusal import Refusal
from sandbox.tokens import statements

#: SQLITE_MAX_VARIABLE_NUMBER.
_MOST = 32_766
_NUMBERED = re.compile(r"\?[0-9]+")


def check_names(sql: str, args: Mapping[str, object]) -> None:
    """Raise Refusal if a parameter has no value or a value no parameter, before anything is run."""
    names: set[str] = set()
    for at, statement in enumerate(_of_statements(sql)):
        for name in statement:
            if name[1:] not in args:
                raise Refusal(
                    "invalid_args",
                    f"no value for parameter {short(name)}",
                    parameter=short(name),
                    statement=at,
                    **_near(name[1:], args, "values"),
                )
        names.update(name[1:] for name in statement)
    for name in args:
        if name not in names:
            raise _superfluous(repr(short(name)), short(name), _near(name, names, "parameters"))


def _near(name: str, others: Collection[str], what: str) -> dict[str, str]:
    near = difflib.get_close_matches(name, others, n=1)
    return {"hint": f"of the {what}, {near[0]!r} is next to it"} if near else {}


def fault(sql: str, args: Bindings | None) -> Refusal:
    """Return what is wrong with values that SQLite could not bind."""
    values = len(args) if isinstance(args, list) else 0
    bound = 0
    for at, statement in enumerate(_of_statements(sql)):
        if bound + len(statement) > values:
            name = statement[values - bound]
            return Refusal(
                "invalid_args",
                f"no value for parameter {name}, number {values - bound + 1} of statement {at}:"
                f" {values} values were given",
                parameter=name,
                statement=at,
            )
        bound += len(statement)
    if values > bound:
        return _superfluous(f"at index {bound}", bound, {})
    return Refusal("invalid_args", "a value cannot be bound")


def _superfluous(which: str, value: str | int, hint: dict[str, str]) -> Refusal:
    words = f"the value {which} has no parameter in the SQL"
    return Refusal("invalid_args", words, argument=value, **hint)


def _of_statements(sql: str) -> Iterator[list[str]]:
    """Yield each statement's parameters by their numbers; a number nobody names is `?<number>`.

    One by one: each may have all 32,766, in a text of a few bytes.
    """
    for one in statements(sql):
        yield _of_statement([text for kind, text in one if kind == "param"])


def _of_statement(used: list[str]) -> list[str]:
    found: list[str] = []
    for text in used:
        if _NUMBERED.fullmatch(text):
            # Numbers beyond SQLite's own limit never get here: it does not prepare them.
            number = min(int(text[1:]), _MOST)
            found += [f"?{free}" for free in range(len(found) + 1, number + 1)]
        elif text == "?":
            found.append(f"?{len(found) + 1}")
        elif text not in found:
            found.append(text)
    return found
