"""SQL cut into tokens as SQLite's own tokenizer does (src/tokenize.c in SQLite's source tree).

Runs in: cells. Standard library only. What is in a string or a comment is data.
"""

import itertools
import re
from typing import NamedTuple

# Alternatives in the order SQLite tries them; an open comment or string runs to the end. A vertical
# tab is space behind other space alone. A variable may have Tcl's `::` and a suffix in brackets.
_TOKEN = re.compile(
    r"""
      (?P<space>   [ \t\n\f\r][ \t\n\v\f\r]* | \ufeff | --[^\n]* | /\*(?:.*?\*/|.*\Z) )
    | (?P<string>  '(?:[^']|'')*(?:'|\Z) )
    | (?P<quoted>  "(?:[^"]|"")*(?:"|\Z) | `(?:[^`]|``)*(?:`|\Z) | \[[^\]]*(?:\]|\Z) )
    | (?P<param>   \?[0-9]* | [:@$](?:[A-Za-z0-9_$]|[^\x00-\x7f]|::)+(?:\([^\s)]*\))? )
    | (?P<word>    (?:[A-Za-z_$]|[^\x00-\x7f])(?:[A-Za-z0-9_$]|[^\x00-\x7f])* )
    | (?P<other>   . )
    """,
    re.VERBOSE | re.DOTALL,
)


_VERBS = frozenset({"INSERT", "REPLACE", "UPDATE", "DELETE"})


class Token(NamedTuple):
    """One significant piece of SQL: `kind` is string, quoted, param, word or other."""

    kind: str
    text: str

    @property
    def name(self) -> str:
        """The identifier it would be, in lower case and without its quotes."""
        if self.kind == "quoted":
            mark = "]" if self.text[0] == "[" else self.text[0]
            return self.text[1:].removesuffix(mark).replace(mark * 2, mark).lower()
        return self.text.lower()


def tokens(sql: str) -> list[Token]:
    """Return the SQL's tokens without white space and comments. Accepts any text."""
    return [
        Token(match.lastgroup or "", match.group())
        for match in _TOKEN.finditer(sql)
        if match.lastgroup != "space"
    ]


def statements(sql: str) -> list[list[Token]]:
    """Return the tokens of each statement, without the semicolons that end them."""
    found: list[list[Token]] = []
    current: list[Token] = []
    for token in tokens(sql):
        if token.text == ";" and not _is_inside_a_trigger(current):
            if current:
                found.append(current)
            current = []
        else:
            current.append(token)
    return [*found, current] if current else found


def _is_inside_a_trigger(begun: list[Token]) -> bool:
    """Say whether a semicolon ends only a statement inside: END is the last of a trigger's own."""
    words = [token.text.upper() for token in begun[:3]]
    if words[1:2] in (["TEMP"], ["TEMPORARY"]):
        del words[1]
    return words[:2] == ["CREATE", "TRIGGER"] and begun[-1].text.upper() != "END"


def first_word(sql: str) -> str:
    """Return the statement's first keyword in upper case, or an empty string."""
    for match in _TOKEN.finditer(sql):
        if match.lastgroup == "word":
            return match.group().upper()
        if match.lastgroup != "space" and match.group() != ";":
            return ""
    return ""


def verb(sql: str) -> str:
    """Return what a statement does, in upper case: its first word, or what follows its WITH."""
    word = first_word(sql)
    if word != "WITH":
        return word
    found = tokens(sql)
    for token, after in itertools.pairwise(found):
        if token.kind == "word" and token.text.upper() in _VERBS and after.text != "(":
            return token.text.upper()
    return word


def is_blank(sql: str, start: int) -> bool:
    """Say whether only white space, comments and semicolons follow."""
    for match in _TOKEN.finditer(sql, start):
        if match.lastgroup != "space" and match.group() != ";":
            return False
    return True
