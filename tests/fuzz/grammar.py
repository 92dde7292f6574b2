"""SQL made up from grammar.txt: mostly sound, now and then broken, with its `args`."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import apsw
from hypothesis import strategies as st

#: What each new database is given first, so that the grammar's names are there.
TABLES = """
CREATE TABLE t(a INTEGER PRIMARY KEY, b, c DEFAULT 'none');
CREATE TABLE u(a UNIQUE, b TEXT COLLATE NOCASE, c REFERENCES t(a) ON DELETE SET NULL);
CREATE TABLE w(a PRIMARY KEY, b NUMERIC, c, d AS (abs(b)) STORED) WITHOUT ROWID;
CREATE TABLE s(a INTEGER PRIMARY KEY, b TEXT, c ANY) STRICT;
CREATE VIRTUAL TABLE f USING fts5(a, b, c);
CREATE VIRTUAL TABLE r USING rtree(a, b, c);
CREATE TABLE n1(a, b, c);
CREATE VIEW v AS SELECT t.a, u.b, t.c FROM t LEFT JOIN u ON u.a = t.b;
CREATE TRIGGER g0 INSTEAD OF INSERT ON v BEGIN INSERT INTO t(b, c) VALUES(new.b, new.c); END;
CREATE TRIGGER g4 INSTEAD OF UPDATE ON v BEGIN UPDATE t SET b = new.b WHERE a = old.a; END;
CREATE TRIGGER g5 INSTEAD OF DELETE ON v BEGIN DELETE FROM t WHERE a = old.a; END;
INSERT INTO t(b, c) VALUES(1, 'one two'), (2.5, '{"a": [1]}'), (NULL, x'00ff'), ('x', 'X');
INSERT INTO u VALUES(1, 'one', 1), ('two', 'it''s', NULL), (x'aa', '', 2);
INSERT INTO w(a, b) VALUES(1, 2), ('k', '3'), (2.5, NULL);
INSERT INTO s VALUES(1, 'one', 1), (2, 'two', 'three');
INSERT INTO f VALUES('one two three', 'b', 'c'), ('one', 'two', 'three');
INSERT INTO r VALUES(1, 0, 10), (2, -5, 5);
"""

_DEEPEST = 7
_PART = re.compile(r"\{([a-z_0-9]+)( ;|[?,])?\}")
_TOKEN = re.compile(r"'(?:[^']|'')*'|\w+|\s+|.", re.DOTALL)
_JUNK = ["'", '"', "(", ")", ",", ";", ".", "*", "/*", "--", "[", "`", "\0", "\ufeff", "\ud800"]
_JUNK += ["é", "?", "@", "NULL", "SELECT", "9e999", "x'0", "\\", "\n"]
_GAPS = ["\n", "\t", " /* a ' comment */ ", "/**/", " -- and ; another\n", " \ufeff ", "\f"]


class Call(NamedTuple):
    """One call as it will be sent."""

    sql: str
    args: Any

    @property
    def body(self) -> bytes:
        args = {} if self.args is None else {"args": self.args}
        return json.dumps({"sql": self.sql} | args).encode()


def _parts(alternative: str) -> list[str | tuple[str, str]]:
    """An alternative as pieces of text and (rule, mark)."""
    found: list[str | tuple[str, str]] = []
    at = 0
    for match in _PART.finditer(alternative):
        found += [alternative[at : match.start()], (match[1], (match[2] or "").strip())]
        at = match.end()
    return [*found, alternative[at:]]


def _from_sqlite() -> dict[str, list[str]]:
    """The rules that SQLite itself knows best: every function, every pragma."""
    connection = apsw.Connection(":memory:")
    functions = connection.execute("SELECT DISTINCT name, narg, type FROM pragma_function_list")
    rules: dict[str, list[str]] = {"scalar": [], "aggregate_call": [], "pragma_name": []}
    for name, count, kind in sorted(functions):
        if name.startswith("-"):
            continue
        counts = [count] if count >= 0 else range(max(0, -count - 1), max(0, -count - 1) + 4)
        rule = rules["scalar" if kind == "s" else "aggregate_call"]
        rule += [f"{name}({', '.join(['{expr}'] * count)})" for count in counts]
    rules["aggregate_call"] += ["count(*)", "sum(a)", "max({expr})"] * 5
    pragmas = connection.execute("SELECT name FROM pragma_pragma_list")
    rules["pragma_name"] += [name for (name,) in pragmas]
    connection.close()
    return rules


def _read_rules() -> dict[str, list[list[str | tuple[str, str]]]]:
    rules = _from_sqlite()
    name = ""
    for line in Path(__file__).with_suffix(".txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("        "):
            rules[name][-1] += " " + line.strip()
        elif line.startswith("    "):
            rules[name].append(line.strip())
        else:
            name = line
            assert name not in rules, name
            rules[name] = []
    return {name: [_parts(alternative) for alternative in rules[name]] for name in rules}


GRAMMAR = _read_rules()


def _used() -> set[str]:
    """The names of all rules that an alternative leads to."""
    return {
        part[0]
        for rule in GRAMMAR.values()
        for alternative in rule
        for part in alternative
        if isinstance(part, tuple)
    }


assert _used() | {"call"} == GRAMMAR.keys()


def sweep() -> list[Call]:
    """Every function with every kind of value, and every pragma: chance would take long."""
    made = [f"PRAGMA {name}" for (name,) in GRAMMAR["pragma_name"]]
    for parts in GRAMMAR["scalar"] + GRAMMAR["aggregate_call"]:
        for value in ("NULL", "-1", "'{\"a\": 1}'", "x'00ff'"):
            call = "".join(part if isinstance(part, str) else value for part in parts)
            made.append(f"SELECT {call} FROM t LIMIT 1")
    return [Call(sql, None) for sql in made]


_upto = [st.integers(0, most) for most in range(600)]


def _expand(draw: st.DrawFn, rule: str, depth: int) -> str:
    alternatives = GRAMMAR[rule]
    chosen = 0 if depth > _DEEPEST else draw(_upto[len(alternatives) - 1])
    text = ""
    for part in alternatives[chosen]:
        if isinstance(part, str):
            text += part
            continue
        name, mark = part
        if mark == "":
            text += _expand(draw, name, depth + 1)
        elif mark == "?":
            text += _expand(draw, name, depth + 1) if draw(_upto[2]) == 0 else ""
        else:
            count = 1 + (draw(_upto[2]) if depth < _DEEPEST else 0)
            text += f"{mark} ".join(_expand(draw, name, depth + 1) for _ in range(count))
    return text


def _broken(draw: st.DrawFn, sql: str) -> str:
    """The text with one to three tokens dropped, doubled, swapped, foreign, or cut off anywhere."""
    tokens = _TOKEN.findall(sql)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(tokens) - 2)))
        match draw(_upto[5]):
            case 0:
                del tokens[at : at + 1]
            case 1:
                tokens[at:at] = tokens[at : at + 4]
            case 2:
                tokens[at : at + 2] = reversed(tokens[at : at + 2])
            case 3:
                tokens.insert(at, draw(st.sampled_from(_JUNK)))
            case 4:
                return sql[: draw(st.integers(0, len(sql)))]
            case 5:
                tokens[at : at + 1] = [_expand(draw, "expr", 5)]
    return "".join(tokens)


def _dressed(draw: st.DrawFn, sql: str) -> str:
    """The same SQL with comments and odd white space between some of its tokens."""
    tokens = _TOKEN.findall(sql)
    for at, token in enumerate(tokens):
        if token == " " and draw(_upto[3]) == 0:
            tokens[at] = draw(st.sampled_from(_GAPS))
    return "".join(tokens)


_values = st.sampled_from(
    [
        1,
        -1,
        0,
        2.5,
        "text",
        "",
        "😀\x00",
        None,
        True,
        1 << 62,
        1 << 70,
        1e308,
        {"base64": "AP8="},
        {"base64": "?"},
        {"float": "Infinity"},
        {"float": "1"},
        [1],
        {},
    ]
)


def _args(draw: st.DrawFn, sql: str) -> Any:
    """Values for the call's parameters: mostly as many as it has, now and then others."""
    if draw(_upto[29]) == 0:
        return draw(st.lists(_values, max_size=3) | st.dictionaries(st.text(max_size=3), _values))
    simple = st.sampled_from([1, 2.5, "text", None, {"base64": "AP8="}])
    if re.search("[:@$]p[123]", sql):
        return {mark: draw(simple) for mark in (":p1", "p2", "$p3")}
    count = len(set(re.findall(r"\?1", sql))) + len(re.findall(r"\?(?!1)", sql))
    return [draw(simple) for _ in range(count)] if count else None


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """A call of the grammar: two in three as it is, the others dressed or broken."""
    sql = _expand(draw, "call", 0)
    match draw(_upto[8]):
        case 0:
            sql = _broken(draw, sql)
        case 1 | 2:
            sql = _dressed(draw, sql)
    return Call(sql, _args(draw, sql))
