"""The blocklist: the polite first answer to SQL that names what is not to be had here.

Runs in: cells. Standard library only. A word inside a string or a comment is data (tokens.py).
What is refused is the use, not the letters: a table or column may be called `edit`. The
authorizer and the jail are what hold; nothing depends on this list being complete.
"""

import re

from sandbox.tokens import Token, tokens

#: Called, these reach files or other databases wherever an SQLite build has them.
_FUNCTIONS = frozenset(
    {"load_extension", "readfile", "writefile", "edit", "zipfile", "unzip", "fts5"}
)
_FUNCTION_PREFIX = "fts5_"
_TABLE = "sqlite_dbpage"

#: After these a name followed by "(" is being defined or filled, not called.
_NAMES_FOLLOW = frozenset({"TABLE", "VIEW", "EXISTS", "INTO", "REFERENCES", "WITH", "RECURSIVE"})
#: After these a double-quoted word is a table, elsewhere SQLite may take it for a string.
_TABLES_FOLLOW = frozenset({"FROM", "JOIN", "INTO", "UPDATE", "TABLE", "USING", "."})

_SUSPECTS = re.compile(
    r"attach|detach|load_extension|readfile|writefile|edit|zipfile|unzip|fts5|sqlite_dbpage",
    re.IGNORECASE,
)


def forbidden(sql: str) -> str | None:
    """Return the first forbidden keyword used, spelled as the contract does, or None."""
    if not _SUSPECTS.search(sql):
        return None
    found = tokens(sql)
    begin = 0
    for at, token in enumerate(found):
        if token.text == ";":
            begin = at + 1
        elif token.kind in ("quoted", "word"):
            keyword = (
                _statement(found, begin, at) or _call(found, begin, at) or _page(found, at, token)
            )
            if keyword:
                return keyword
    return None


def is_refused(function: str) -> bool:
    """Say whether calling a function is a forbidden use."""
    return function.lower() in _FUNCTIONS or function.lower().startswith(_FUNCTION_PREFIX)


def _statement(found: list[Token], begin: int, at: int) -> str | None:
    """ATTACH or DETACH where a statement begins, also behind EXPLAIN [QUERY PLAN]."""
    word = found[at].text.upper()
    if found[at].kind != "word" or word not in ("ATTACH", "DETACH"):
        return None
    before = [token.text.upper() for token in found[begin : min(at, begin + 4)]]
    return word if before in ([], ["EXPLAIN"], ["EXPLAIN", "QUERY", "PLAN"]) else None


def _call(found: list[Token], begin: int, at: int) -> str | None:
    """One of the functions, bare or quoted, followed by an opening bracket."""
    name = found[at].name
    if name not in _FUNCTIONS and not name.startswith(_FUNCTION_PREFIX):
        return None
    if at + 1 >= len(found) or found[at + 1].text != "(":
        return None
    first = at
    while first - begin >= 2 and found[first - 1].text == ".":  # noqa: PLR2004 - schema.name
        first -= 2
    before = found[first - 1].text.upper() if first > begin else ""
    words = [token.text.upper() for token in found[begin : begin + 3]]
    defined = (
        before in _NAMES_FOLLOW
        or (before == "USING" and name == "fts5")
        or (before == "ON" and words[:1] == ["CREATE"] and "INDEX" in words)
        or (before == "," and _is_table_expression(found, at + 1))
    )
    return None if defined else name


def _is_table_expression(found: list[Token], bracket: int) -> bool:
    """Say whether `(columns) AS [[NOT] MATERIALIZED] (` follows: a further part of a WITH."""
    at = bracket + 1
    while at < len(found) and (found[at].kind in ("word", "quoted") or found[at].text == ","):
        at += 1
    words = [token.text.upper() for token in found[at : at + 5]]
    after = [word for word in words[2:] if word not in ("NOT", "MATERIALIZED")]
    return words[:2] == [")", "AS"] and after[:1] == ["("]


def _page(found: list[Token], at: int, token: Token) -> str | None:
    """The raw page table, wherever it can only be a name."""
    if token.name != _TABLE:
        return None
    if token.text.startswith('"'):
        before = found[at - 1].text.upper() if at else ""
        return _TABLE if before in _TABLES_FOLLOW else None
    return _TABLE
