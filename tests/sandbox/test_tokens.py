"""SQL in tokens: without loss, as SQLite cuts it."""

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.tokens import first_word, is_blank, statements, tokens, verb

#: Each begins with white space or a slash: it joins with no token before it.
GAPS = [
    " ",
    "\n",
    "\t\r\n",
    "\f",
    " \ufeff",
    "/**/",
    " /* it's */",
    " -- ATTACH '\n",
    " /* edit( */ ",
]

pieces = st.sampled_from(
    "attach edit load_extension x _a $b é ' '' 'a' 'a''b' \" \"a\" ` [ ] [a] ( ) ; . , -- /* */ /"
    " * - 1 x'00' fts5_a explain \ufeff \0 \x0b \u00a0 \ud800".split(" ")
) | st.sampled_from([" ", "\n", "\t", "-- a\n", "/* b */"])
any_text = st.text() | st.lists(pieces, max_size=12).map("".join)


@given(text=any_text)
def test_any_text_is_taken_apart(text: str) -> None:
    assert isinstance(tokens(text), list)
    assert isinstance(first_word(text), str)
    assert isinstance(verb(text), str)


def without_gap(text: str) -> str:
    """Return the text after the white space and comments that it begins with."""
    while True:
        if text[:1] and text[0] in " \t\n\f\r":
            text = text.lstrip(" \t\n\v\f\r")  # the vertical tab not by itself
        elif text.startswith("\ufeff"):
            text = text[1:]
        elif text.startswith("--"):
            _, end, rest = text.partition("\n")
            text = end + rest
        elif text.startswith("/*"):
            text = text[2:].partition("*/")[2]
        else:
            return text


@given(text=any_text)
def test_tokens_joined_again_are_the_text_without_comments_and_spaces(text: str) -> None:
    rest = text
    for token in tokens(text):
        rest = without_gap(rest)
        assert rest.startswith(token.text)
        rest = rest[len(token.text) :]
    assert without_gap(rest) == ""


@given(
    texts=st.lists(
        st.sampled_from(["'a''b'", '"a""b"', "`a``b`", "[a b]", "word", "é", "$x", "(", ";", "."])
    ),
    gap=st.sampled_from(GAPS),
)
def test_tokens_come_back_as_they_were_put_together(texts: list[str], gap: str) -> None:
    assert [token.text for token in tokens(gap.join(texts))] == texts


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('"A""b"', 'a"b'),
        ("`A``b`", "a`b"),
        ("[A b]", "a b"),
        ('"open', "open"),
        ("[open", "open"),
        ('"', ""),
        ("Word", "word"),
        ('""', ""),
    ],
)
def test_a_name_is_without_quotes_and_in_lower_case(text: str, name: str) -> None:
    assert [token.name for token in tokens(text)] == [name]


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("select 1", "SELECT"),
        (" ;; /* a */ -- b\n\ufeff Insert into t", "INSERT"),
        ("", ""),
        ("-- select", ""),
        ("'select'", ""),
        ("(select 1)", ""),
        ('"select"', ""),
    ],
)
def test_first_word_is_the_statements_keyword(sql: str, word: str) -> None:
    assert first_word(sql) == word


@pytest.mark.parametrize(
    ("rest", "blank"),
    [
        ("", True),
        (" ;\n; -- a", True),
        ("/* open", True),
        ("\ufeff", True),
        (" select 1", False),
        ("; 1", False),
        ("\u00a0", False),
        ("\x0b", False),
        ("'", False),
    ],
)
def test_is_blank_says_whether_a_statement_follows(rest: str, blank: bool) -> None:
    assert is_blank("SELECT 1" + rest, len("SELECT 1")) is blank


# --- parameters ---


@pytest.mark.parametrize(
    "text", ["?", "?1", "?123", ":a", "@a", "$a", ":1", "$a::b", "$a::b(c)", ":é", "@_x$"]
)
def test_a_parameter_is_one_token_as_it_is_to_sqlite(text: str) -> None:
    ((kind, found),) = tokens(text)
    assert (kind, found) == ("param", text)
    cursor = apsw.Connection(":memory:").cursor()
    cursor.exec_trace = lambda cursor, *_: names.append(cursor.bindings_names) or False
    names: list[tuple[str | None, ...]] = []
    with pytest.raises(apsw.ExecTraceAbort):
        cursor.execute(f"SELECT {text}", [1] * 123 if text == "?123" else [1])
    assert len(names[0]) == (int(text[1:]) if text[1:].isdigit() and text[0] == "?" else 1)


@pytest.mark.parametrize("text", [":", "@", "$", ": a", "'?'", '"?"', "-- ?", "/* :a */", "a:"])
def test_other_marks_are_none(text: str) -> None:
    assert all(kind != "param" for kind, _ in tokens(text))


# --- statements ---


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("", 0),
        (" ; ;; -- ;", 0),
        ("SELECT 1", 1),
        ("SELECT 1; SELECT ';';", 2),
        ("CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END; SELECT 3", 2),
        ("create temp trigger t after insert on a begin select 1; end; select 3", 2),
        ("CREATE TABLE trigger(a); SELECT 1; SELECT 2", 3),
    ],
)
def test_statements_end_with_their_semicolon(sql: str, count: int) -> None:
    assert len(statements(sql)) == count


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("insert into t values(1)", "INSERT"),
        ("WITH a AS (SELECT replace(b, 'c', 'd') FROM e) INSERT INTO t SELECT * FROM a", "INSERT"),
        ("with a as (select 1) update t set b = 1", "UPDATE"),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "WITH"),
        ("SELECT 1", "SELECT"),
    ],
)
def test_a_verb_is_what_a_statement_does(sql: str, word: str) -> None:
    assert verb(sql) == word
