"""Bytes become rows: each form and each rule, and what hostile bytes are told."""

import csv
import functools
import gzip
import io
import json
import math
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.calls import Value
from sandbox.encoders import encoder
from sandbox.forms import Form
from sandbox.readers import Written, read, unpack
from sandbox.refusal import Refusal

CSV, TSV, NDJSON, JSON = Written
BIG = 1 << 63
NONE: frozenset[int] = frozenset()

#: Without the time of day, which would be in the names of tests.
compress = functools.partial(gzip.compress, mtime=0)


def still() -> None:
    """A clock that never runs out."""


def values(written: Written, body: bytes, as_text: frozenset[int] = NONE) -> list[list[Value]]:
    return [row for _, row in read(written, body, still).rows(as_text)]


def exactly(rows: list[Any]) -> str:
    """Rows to compare: 1, 1.0 and True are not the same, nor are 0.0 and -0.0."""
    return repr([list(row) for row in rows])


def refusal(written: Written, body: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        list(read(written, body, still).rows(NONE))
    assert caught.value.code == "invalid_rows"
    return caught.value


@pytest.mark.parametrize(
    ("word", "value", "kind"),
    [
        ("0", 0, "INTEGER"),
        ("-12", -12, "INTEGER"),
        (str(BIG - 1), BIG - 1, "INTEGER"),
        (str(-BIG), -BIG, "INTEGER"),
        (str(BIG), str(BIG), "TEXT"),
        ("9" * 5000, "9" * 5000, "TEXT"),
        ("007", "007", "TEXT"),
        ("+1", "+1", "TEXT"),
        ("1_0", "1_0", "TEXT"),
        (" 1", " 1", "TEXT"),
        ("\u0661", "\u0661", "TEXT"),
        ("-0", -0.0, "REAL"),
        ("1.0", 1.0, "REAL"),
        ("-.5", -0.5, "REAL"),
        ("1e5", 1e5, "REAL"),
        ("1E-300", 1e-300, "REAL"),
        ("1.7976931348623157e308", 1.7976931348623157e308, "REAL"),
        ("1e999", "1e999", "TEXT"),
        ("0." + "1" * 500, "0." + "1" * 500, "TEXT"),
        ("1.", "1.", "TEXT"),
        ("01.5", "01.5", "TEXT"),
        ("nan", "nan", "TEXT"),
        ("inf", "inf", "TEXT"),
        ("Infinity", math.inf, "REAL"),
        ("-Infinity", -math.inf, "REAL"),
        ("base64:AAE=", b"\0\1", "BLOB"),
        ("base64:", b"", "BLOB"),
        ("base64:!", "base64:!", "TEXT"),
        ("base64:\u00e4", "base64:\u00e4", "TEXT"),
        ("", None, "TEXT"),
        ("word", "word", "TEXT"),
        ("\1", "\1", "TEXT"),
        ("\2\1x", "\2\1x", "TEXT"),
        ('""', "", "TEXT"),
        ('"1"', "1", "TEXT"),
        ('"a""b"', 'a"b', "TEXT"),
        ('"a,\r\n"""', 'a,\r\n"', "TEXT"),
        ('"\1"', "\1", "TEXT"),
        ('"\2"', "\2", "TEXT"),
    ],
)
def test_a_word_of_csv_has_one_meaning(word: str, value: Value, kind: str) -> None:
    # The 5 beside it is not quoted, so quotes have a meaning in this file.
    body = f"a,b\r\n{word},5\r\n".encode()
    found = read(CSV, body, still)
    assert exactly([row for _, row in found.rows(NONE)]) == exactly([[value, 5]])
    assert found.types == [kind, "INTEGER"]


@pytest.mark.parametrize(
    ("words", "kind", "read_as"),
    [
        (["1", "", "2"], "INTEGER", [1, None, 2]),
        (["1.5", "", "-0.0"], "REAL", [1.5, None, -0.0]),
        (["1", "1.5", ""], "NUMERIC", [1, 1.5, None]),
        (["1", "Infinity"], "NUMERIC", [1, math.inf]),
        (["1", str(BIG - 1), "1e3"], "NUMERIC", [1, BIG - 1, 1000.0]),
        (["-0", "1"], "NUMERIC", [-0.0, 1]),
        (["base64:AA==", ""], "BLOB", [b"\0", None]),
        (["1", "2", "n/a"], "TEXT", ["1", "2", "n/a"]),
        (["base64:AA==", "n/a", ""], "TEXT", ["base64:AA==", "n/a", None]),
        (["x", '"y,z"', "3"], "TEXT", ["x", "y,z", "3"]),
        (["x", '"1"', "3"], "TEXT", ["x", "1", "3"]),
        (["007", "1"], "TEXT", ["007", "1"]),
        (["1", '"2"', "3.0", ""], "", [1, "2", 3.0, None]),
        (["1", "base64:AA=="], "", [1, b"\0"]),
        (['"1\n2"', "3"], "", ["1\n2", 3]),
        (['"\1"', "3"], "", ["\1", 3]),
        (["", ""], "TEXT", [None, None]),
        (['"a"', ""], "TEXT", ["a", None]),
    ],
)
def test_a_column_of_csv_has_the_type_of_all_its_values(
    words: list[str], kind: str, read_as: list[Value]
) -> None:
    body = "a,b\n" + "".join(f"{word},5\n" for word in words)
    found = read(CSV, body.encode(), still)
    assert found.types[0] == kind
    assert exactly([row for _, row in found.rows(NONE)]) == exactly([[one, 5] for one in read_as])


@pytest.mark.parametrize(
    ("words", "kind", "read_as"),
    [
        (["1", "2"], "INTEGER", [1, 2]),
        (["1", ""], "INTEGER", [1, None]),
        (["1.5", "2"], "NUMERIC", [1.5, 2]),
        (["base64:AA=="], "BLOB", [b"\0"]),
        (["base64:AA==", "1"], "", [b"\0", 1]),
        (["x", "", "1"], "TEXT", ["x", "", "1"]),
        (["", ""], "TEXT", ["", ""]),
        (["1\n2", "3"], "TEXT", ["1\n2", "3"]),
        (["\1", "\0022", "3"], "TEXT", ["\1", "\0022", "3"]),
        (["\1", "3"], "TEXT", ["\1", "3"]),
    ],
)
def test_where_all_is_quoted_the_quotes_say_nothing(
    words: list[str], kind: str, read_as: list[Value]
) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *([one, "z"] for one in words)])
    found = read(CSV, text.getvalue().encode(), still)
    assert found.types == [kind, "TEXT"]
    assert exactly([row for _, row in found.rows(NONE)]) == exactly([[v, "z"] for v in read_as])


def test_one_word_without_quotes_anywhere_gives_all_quotes_their_meaning() -> None:
    body = b'"a","b"\n' + b'"1","2"\n' * 3000
    assert read(CSV, body, still).types == ["INTEGER", "INTEGER"]
    found = read(CSV, body + b'"1",3\n', still)
    assert found.types == ["TEXT", ""]
    *_, (line, last) = found.rows(NONE)
    assert (line, last) == (3002, ["1", 3])


def test_words_for_a_column_of_text_stay_words() -> None:
    body = b"a,b,c\n1.50,1e5,base64:AA==\n,Infinity,\n"
    assert exactly(values(CSV, body, frozenset({0, 1, 2}))) == exactly(
        # A BLOB is no word that affinity would change: it is one in a column of text too.
        [["1.50", "1e5", b"\0"], [None, "Infinity", None]]
    )
    assert exactly(values(CSV, body, frozenset({0}))) == exactly(
        [["1.50", 1e5, b"\0"], [None, math.inf, None]]
    )
    quoted = b'a,b\n"1.50","2.50"\n"",""\n'
    assert values(CSV, quoted, frozenset({0})) == [["1.50", 2.5], ["", None]]


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b"a,b\n1,2\n", [(2, [1, 2])]),
        (b"a,b\r\n1,2", [(2, [1, 2])]),
        (b"\xef\xbb\xbfa,b\n1,2\n", [(2, [1, 2])]),
        (b'\xef\xbb\xbf"a","b"\n1,2\n', [(2, [1, 2])]),
        (b"a,b\n", []),
        (b"a,b", []),
        (b"a,b\n\n1,2\r\n\r\n3,4\n\n", [(3, [1, 2]), (5, [3, 4])]),
        (b"a\n\n1\n", [(2, [None]), (3, [1])]),
        (b'a,b\n"x\n\ny",1\n"z",2\n', [(2, ["x\n\ny", 1]), (5, ["z", 2])]),
        (b"a,b\n1,\xc3\xa4\n", [(2, [1, "\u00e4"])]),
        (b"a,b\nx\0y,\xe2\x80\xa8\n", [(2, ["x\0y", "\u2028"])]),
        (b"\1a,b\n\1x,2\n", [(2, ["\1x", 2])]),
    ],
)
def test_the_lines_of_csv(body: bytes, rows: list[tuple[int, list[Value]]]) -> None:
    found = read(CSV, body, still)
    assert list(found.rows(NONE)) == rows
    assert len(found.columns) == len(found.types)


def test_a_name_may_begin_with_what_marks_quotes() -> None:
    assert read(CSV, b'\1a,\2b,"\1c"\n', still).columns == ["\1a", "\2b", "\1c"]


def test_tsv_is_csv_with_tabs() -> None:
    found = read(TSV, b'a\t"b,\t"\n1,5\t"x\ty"\n\t7\n', still)
    assert found.columns == ["a", "b,\t"]
    assert list(found.rows(NONE)) == [(2, ["1,5", "x\ty"]), (3, [None, 7])]


@pytest.mark.parametrize("size", [65_533, 65_534, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("text", ['"', "\n", "\r\n", ",", "\1", "\U0001f600", 'a,"b\n'])
def test_where_the_text_is_cut_into_pieces_does_not_matter(size: int, text: str) -> None:
    row = ["x" * (size - 10), text * 5, text, 1]
    body = encoder(Form.CSV, list("abcd"), objects=False)
    assert values(CSV, body.head + body.encode([tuple(row)] * 2)) == [row, row]
    # Nothing to cut at: one line without an end.
    plain = text.replace("\n", "").replace("\r", "").replace('"', "").replace(",", "")
    assert values(CSV, f"a,b\n{'x' * size}{plain * 20},".encode()) == [
        ["x" * size + plain * 20, None]
    ]


@pytest.mark.parametrize(
    ("body", "line", "detail"),
    [
        (b"", 1, "the first line must name the columns"),
        (b"\n1\n", 1, "the first line must name the columns"),
        (b"a,,c\n", 1, "a column has no name"),
        (b"a,A\n", 1, "two columns are named A"),
        (b'a,"a"\n', 1, "two columns are named a"),
        (b"a\0\n", 1, "a column's name has a character that no name can have"),
        (",".join(f"c{at}" for at in range(1001)).encode(), 1, "there are more than 1,000 columns"),
        (b"a,b,c,d\n1,2,3,4\n1,2,3\n", 3, "3 values for 4 columns"),
        (b'a,b\n"x\ny",1\n1,2,3\n', 4, "3 values for 2 columns"),
        (b"a\n1,2\n", 2, "2 values for 1 columns"),
        (b'a,b\n1,2\n1,"x\n\n', 3, "unexpected end of data"),
        (b'a,b\n1,"x"y\n', 2, "',' expected after '\"'"),
        (b'a,b\n1,x"y"\n', 2, "a quote within a value that is not quoted"),
        (b'a,b\n1,2\n\n1, "y"\n', 4, "a quote within a value that is not quoted"),
        (
            b"a,b\n" + b"1,2\n" * 50_000 + b'1,x"\n',
            50_002,
            "a quote within a value that is not quoted",
        ),
        (b"a,b\n1,2\r1,2\n", 2, "a carriage return without a line feed"),
        (b"a,b\n1,2\n1,\xff\n", 3, "the text is not UTF-8"),
        (b"a,b\n" + b"1,2\n" * 50_000 + b"1,\xff\n", 50_002, "the text is not UTF-8"),
        (b"a,b\n1," + b"\x80" * 200_000, 2, "the text is not UTF-8"),
        (b"a,b\n1," + b"x" * (3 << 20), 2, "field larger than field limit (2097152)"),
    ],
)
def test_csv_that_is_none_is_refused_with_its_line(body: bytes, line: int, detail: str) -> None:
    found = refusal(CSV, body)
    assert (found.fields, found.detail) == ({"line": line}, detail)


def test_names_differ_as_sqlite_has_it() -> None:
    assert read(CSV, "\u00e4,\u00c4\n".encode(), still).columns == ["\u00e4", "\u00c4"]
    names = [f"c{at}" for at in range(1000)]
    assert read(CSV, ",".join(names).encode(), still).columns == names


@pytest.mark.parametrize(
    ("item", "value", "kind"),
    [
        ("null", None, "TEXT"),
        ("true", 1, "INTEGER"),
        ("false", 0, "INTEGER"),
        (str(BIG - 1), BIG - 1, "INTEGER"),
        (str(-BIG), -BIG, "INTEGER"),
        ("1.0", 1.0, "REAL"),
        ("-0.0", -0.0, "REAL"),
        ("1e5", 1e5, "REAL"),
        ('"1"', "1", "TEXT"),
        ('"\\ud83d\\ude00\\u0000"', "\U0001f600\0", "TEXT"),
        ('{"base64": "AAE="}', b"\0\1", "BLOB"),
        ('{"base64": ""}', b"", "BLOB"),
        ('{"base64": 1}', '{"base64":1}', "TEXT"),
        ('{"base64": "AA==", "x": 1}', '{"base64":"AA==","x":1}', "TEXT"),
        ('{"float": "-Infinity"}', -math.inf, "REAL"),
        ('{"float": "1"}', '{"float":"1"}', "TEXT"),
        ('[1, {"\u00e4": [null, 1.5]}]', '[1,{"\u00e4":[null,1.5]}]', "TEXT"),
        ("{}", "{}", "TEXT"),
        (f"[{BIG * 4}]", f"[{BIG * 4}]", "TEXT"),
    ],
)
def test_a_value_of_json_has_one_meaning(item: str, value: Value, kind: str) -> None:
    row = f'{{"a": {item}}}'
    for written, body in (
        (NDJSON, row),
        (JSON, f"[{row}]"),
        (JSON, f'{{"rows": [{row}]}}'),
        (JSON, f'{{"columns": ["a"], "rows": [[{item}]]}}'),
    ):
        found = read(written, body.encode(), still)
        assert exactly([row for _, row in found.rows(NONE)]) == exactly([[value]])
        assert (found.columns, found.types) == (["a"], [kind])


@pytest.mark.parametrize(
    ("items", "kind"),
    [
        ([1, None, 2], "INTEGER"),
        ([1, 1.5], "NUMERIC"),
        ([1, "1"], ""),
        (["1", "x"], "TEXT"),
        ([{"base64": ""}, "x"], ""),
        ([{"base64": ""}, None], "BLOB"),
        ([], "TEXT"),
    ],
)
def test_a_column_of_json_has_the_type_of_all_its_values(items: list[Any], kind: str) -> None:
    body = json.dumps({"columns": ["a"], "rows": [[item] for item in items]})
    assert read(JSON, body.encode(), still).types == [kind]


@pytest.mark.parametrize(
    ("written", "body", "columns", "rows"),
    [
        (
            NDJSON,
            b'\xef\xbb\xbf{"b":1}\r\n\n \n{"a":2,"b":3}\n{}',
            ["b", "a"],
            [(1, [1, None]), (4, [3, 2]), (5, [None, None])],
        ),
        (
            JSON,
            b'\xef\xbb\xbf [ {"b":1},\n\n{"a":2} ] ',
            ["b", "a"],
            [(1, [1, None]), (2, [None, 2])],
        ),
        (JSON, b'{"rows":[[1,2]],"columns":["b","a"]}', ["b", "a"], [(1, [1, 2])]),
        (JSON, b'{"columns":["b"],"rows":[{"a":1}]}', ["b", "a"], [(1, [None, 1])]),
        (JSON, b'{"columns":["b"],"rows":[],"rows_affected":0}', ["b"], []),
    ],
)
def test_columns_are_the_keys_in_order_of_appearance(
    written: Written, body: bytes, columns: list[str], rows: list[tuple[int, list[Value]]]
) -> None:
    found = read(written, body, still)
    assert found.columns == columns
    assert list(found.rows(NONE)) == rows


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("item", "detail"),
    [
        (str(BIG).encode(), "an integer does not fit 64 bits"),
        (str(-BIG - 1).encode(), "an integer does not fit 64 bits"),
        (b"9" * 5000, "a number is too long"),
        (b"1e999", "a number does not fit a float"),
        (b"0." + b"1" * 500, "a number does not fit a float"),
        (b"[1e999]", "a number does not fit a float"),
        (b"NaN", "it is not JSON: NaN"),
        (b"[-Infinity]", "it is not JSON: -Infinity"),
        (b'{"x":1,"x":1}', "an object has 'x' twice"),
        (b'"\\ud800"', "a string has half of a character"),
        (b'["\\ud800"]', "a string has half of a character"),
        (b'{"base64":"!"}', "the text of `base64` is not base64"),
        (DEEP, "a value is nested too deeply"),
        (b'{"a":' * 100_000, "a value is nested too deeply"),
        (b"'x'", "it is not JSON: Expecting value"),
        (b"1 2", "it is not JSON"),
        (b'"\n"', "it is not JSON"),
        (b"\xff", "the text is not UTF-8"),
    ],
)
def test_a_value_that_json_has_not_is_refused_with_its_line(item: bytes, detail: str) -> None:
    for written, body, line in (
        (NDJSON, b'{"a":1}\n\n{"a":%b}' % item, 3),
        (JSON, b'[{"a":1},{"a":%b}]' % item, 2),
        (JSON, b'{"rows":[{"a":1},{"a":%b}]}' % item, 2),
    ):
        found = refusal(written, body)
        assert found.detail.startswith(detail)
        if item not in {b"\xff", b'"\n"'}:  # a line feed is the end of a line; bytes have no row
            assert found.fields == {"line": line}


def test_a_value_that_can_be_read_and_not_written_is_refused() -> None:
    for depth in range(100, 1200, 50):
        body = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
        try:
            assert values(NDJSON, body) == [["[" * depth + "]" * depth]]
        except Refusal as told:
            assert told.detail == "a value is nested too deeply"  # noqa: PT017
            break
    else:
        pytest.fail("nothing was too deep")


@pytest.mark.parametrize(
    ("written", "body", "line", "detail"),
    [
        (NDJSON, b"", 1, "there are no columns"),
        (NDJSON, b"{}\n", 1, "there are no columns"),
        (NDJSON, b'{"a":1}\n[1]', 2, "a row must be an object"),
        (NDJSON, b'{"a":1}\n{"a":1}{"a":1}', 2, "it is not JSON: something follows its end"),
        (NDJSON, b'{"a":1}\n{"A":1}', 2, "two columns are named A"),
        (NDJSON, b'{"a":1}\n{"":1}', 2, "a column has no name"),
        (NDJSON, b'{"a":1}\n{"\\ud800":1}', 2, "a column's name has a character"),
        (NDJSON, b'{"a":1}\n\n\xff', 3, "the text is not UTF-8"),
        (NDJSON, b'{"a":1}\n\xef\xbb\xbf{"a":1}', 2, "it is not JSON"),
        (JSON, b"", 1, "it must be an array of objects, or an object that has `rows`"),
        (JSON, b"1", 1, "it must be an array of objects, or an object that has `rows`"),
        (JSON, b"[]", 1, "there are no columns"),
        (JSON, b"{}", 1, "it has no `rows`"),
        (JSON, b'{"rows":1}', 1, "`rows` must be an array"),
        (JSON, b'{"rows":[],"columns":"a"}', 1, "`columns` must be an array of strings"),
        (JSON, b'{"rows":[],"columns":[1]}', 1, "`columns` must be an array of strings"),
        (JSON, b'{"rows":[],"rows":[]}', 1, "an object has 'rows' twice"),
        (JSON, b'{"rows":[],"columns":["a","A"]}', 1, "two columns are named A"),
        (JSON, b'{"columns":["a","b"],"rows":[[1,2],[1]]}', 2, "1 values for 2 columns"),
        (JSON, b'{"rows":[[1]]}', 1, "a row must be an object"),
        (JSON, b'[{"a":1},[1]]', 2, "a row must be an object"),
        (JSON, b'[{"a":1}', 1, "it is not JSON: `,` is missing"),
        (JSON, b'[{"a":1},', 2, "it is not JSON: Expecting value"),
        (JSON, b'[{"a":1},]', 2, "it is not JSON: Expecting value"),
        (JSON, b'[{"a":1}]x', 1, "it is not JSON: something follows its end"),
        (JSON, b'{"rows":[{"a":1}]}x', 1, "it is not JSON: something follows its end"),
        (JSON, b'{"rows":[{"a":1}]', 1, "it is not JSON: `,` is missing"),
        (JSON, b'{"rows":[{"a":1}],}', 1, "it is not JSON: a key is missing"),
        (JSON, b'{"x" 1}', 1, "it is not JSON: `:` is missing"),
        (JSON, b'[{"a":1},\n\xff]', 2, "the text is not UTF-8"),
    ],
)
def test_json_that_has_no_rows_is_refused_with_its_line(
    written: Written, body: bytes, line: int, detail: str
) -> None:
    found = refusal(written, body)
    assert found.fields == {"line": line}
    assert found.detail.startswith(detail)


def test_there_are_at_most_a_thousand_keys() -> None:
    lines = [json.dumps({f"c{at}": 1}).encode() for at in range(1001)]
    assert len(read(NDJSON, b"\n".join(lines[:1000]), still).columns) == 1000
    found = refusal(NDJSON, b"\n".join(lines))
    assert (found.fields["line"], found.detail) == (1001, "there are more than 1,000 columns")


@pytest.mark.parametrize(
    ("written", "body"),
    [
        (CSV, "{0},{0}\n"),
        (CSV, 'a\n"x"{0}\n'),
        (CSV, 'a\n{0}"\n'),
        (NDJSON, '{{"{0}":1,"{0}":1}}'),
        (NDJSON, '{{"a":{0}}}'),
        (JSON, '{{"{0}":1,"{0}":1}}'),
        (JSON, '[{{"a":{{"base64":"{0}"}}}}]'),
    ],
)
def test_a_refusal_tells_little_of_what_came(written: Written, body: str) -> None:
    assert len(refusal(written, body.format("zz!" * 10_000).encode()).detail) < 200


TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from('\1\2",\r\n\t0'), max_size=12)
VALUES = st.one_of(
    st.none(),
    st.integers(-BIG, BIG - 1),
    st.floats(allow_nan=False),
    TEXTS,
    st.binary(max_size=8),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[tuple[Any, ...]]]:
    width = draw(st.integers(1, 4))
    rows = draw(st.lists(st.tuples(*[VALUES] * width), min_size=1, max_size=8))
    return [f"c{at}" for at in range(width)], rows


@given(tables())
def test_what_we_write_as_csv_is_read_as_it_was(table: tuple[list[str], list[Any]]) -> None:
    names, rows = table
    # Without this there may be nothing but quotes.
    names, rows = [*names, "n"], [(*row, 5) for row in rows]
    written = encoder(Form.CSV, names, objects=False)
    found = read(CSV, written.head + written.encode(rows), still)
    assert found.columns == names
    assert exactly([row for _, row in found.rows(NONE)]) == exactly(rows)


@given(tables())
def test_what_we_write_as_json_is_read_as_it_was(table: tuple[list[str], list[Any]]) -> None:
    names, rows = table
    lines = encoder(Form.NDJSON, names, objects=True).encode(rows)
    objects = b"[%b]" % encoder(Form.JSON, names, objects=True).encode(rows)
    arrays = encoder(Form.JSON, names, objects=False).encode(rows)
    answer = b'{"columns":%b,"rows":[%b]}' % (json.dumps(names).encode(), arrays)
    for written, body in ((NDJSON, lines), (JSON, objects), (JSON, answer)):
        found = read(written, body, still)
        assert found.columns == names
        assert exactly([row for _, row in found.rows(NONE)]) == exactly(rows)


@given(st.lists(st.lists(TEXTS.filter(lambda text: "\r" not in text), min_size=2, max_size=2)))
def test_what_python_writes_as_csv_has_its_words(rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["a", "b"], *rows])
    found = values(CSV, text.getvalue().encode(), frozenset({0, 1}))
    assert [[word or "" for word in row] for row in found if row] == rows


FRAGMENTS = st.sampled_from(
    [b"a,b\n", b'"', b",", b"\n", b"\r", b"\1", b"1", b"{", b"}", b"[", b"]", b'"a":', b'"rows":']
)


@given(
    st.sampled_from(list(Written)),
    st.binary(max_size=60) | st.lists(FRAGMENTS | st.binary(max_size=3)).map(b"".join),
    st.sampled_from([b"", b"a,b\n", b'{"a":1}\n', b'[{"a":']),
)
def test_bytes_are_rows_or_are_refused(written: Written, body: bytes, before: bytes) -> None:
    try:
        found = read(written, before + body, still)
        for line, row in found.rows(NONE):
            assert line > 0
            assert len(row) == len(found.columns) == len(found.types)
    except Refusal as told:
        assert told.code == "invalid_rows"  # noqa: PT017
        assert told.fields["line"] > 0  # noqa: PT017


@pytest.mark.parametrize(
    ("written", "body"),
    [
        (CSV, b"a,b\n" + b"1,2\n" * 20_000),
        (CSV, b"a\n" + b"\n" * 20_000),
        (TSV, b"a\tb\n" + b'"1"\t"2"\n' * 20_000),
        (NDJSON, b'{"a":1}\n' * 20_000),
        (JSON, b"[" + b'{"a":1},' * 20_000 + b"{}]"),
        (NDJSON, b'{"a":"%b"}\n' % (b"x" * 70_000) * 20),
        (JSON, b"[" + b'{"a":"%b"},' % (b"x" * 70_000) * 20 + b"{}]"),
        (JSON, b'{"columns":["a"],"rows":[' + b"[1]," * 20_000 + b"[1]]}"),
    ],
)
def test_the_clock_is_looked_at_every_thousand_rows_and_after_long_ones(
    written: Written, body: bytes
) -> None:
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1

    rows = read(written, body, look).rows(NONE)
    assert looks >= 20
    looks = 0
    assert sum(1 for _ in rows) >= 20
    assert looks >= 20

    def over() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        read(written, body, over)


def test_blank_lines_do_not_keep_the_clock_from_being_looked_at() -> None:
    looks: list[None] = []
    read(CSV, b"a,b\n" + b"\n" * 1_000_000, lambda: looks.append(None))
    assert len(looks) >= 10


@pytest.mark.parametrize(
    ("written", "head", "line"),
    [
        (CSV, b"a,b,c\n", b'12345,"some text",1.5\n'),
        (NDJSON, b"", b'{"a":12345,"b":"some text"}\n'),
    ],
)
def test_rows_are_not_all_held_at_once(written: Written, head: bytes, line: bytes) -> None:
    body = head + line * (1_500_000 // len(line))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read(written, body, still).rows(NONE)) > 40_000
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


def test_gzip_of_one_member_and_of_several() -> None:
    one, two = b"a,b\n" * 1000, b"1,2\n"
    assert unpack(compress(one), 4000) == one
    assert unpack(compress(one) + compress(b"") + compress(two), 4004) == one + two
    noise = bytes(zlib.crc32(b"%d" % at) & 0xFF for at in range(50_000))
    assert unpack(compress(noise) * 2, 100_000) == noise * 2


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the gzip ends too soon"),
        (compress(b"a,b\n" * 9000)[:-1], "the gzip ends too soon"),
        (compress(b"a,b\n") + compress(b"a")[:12], "the gzip ends too soon"),
        (compress(b"a")[:-8] + b"\0" * 8, "the body is not gzip"),
        (compress(b"a") + b"x", "the gzip ends too soon"),
        (compress(b"a") + b"xyz", "the body is not gzip"),
        (compress(b"a") + b"\0" * 9000, "the body is not gzip"),
        (zlib.compress(b"a"), "the body is not gzip"),
        (b"a,b\n1,2\n", "the body is not gzip"),
    ],
)
def test_what_is_no_gzip_is_refused(body: bytes, detail: str) -> None:
    with pytest.raises(Refusal) as caught:
        unpack(body, 100_000)
    assert (caught.value.code, caught.value.detail) == ("invalid_rows", detail)


@pytest.mark.parametrize("body", [compress(b"x" * 100_001), compress(b"x" * 50_001) * 2])
def test_what_is_too_much_unpacked_is_refused_as_what_is_too_much(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        unpack(body, 100_000)
    assert (caught.value.code, caught.value.detail) == (
        "body_too_large",
        "at most 100000 bytes, unpacked",
    )


def test_gzip_may_fill_its_room_to_the_last_byte() -> None:
    assert len(unpack(compress(b"x" * 100_000), 100_000)) == 100_000
    assert unpack(compress(b"") * 3, 0) == b""


def test_a_gigabyte_of_zeros_is_not_unpacked() -> None:
    packer = zlib.compressobj(wbits=31)
    mebibyte = bytes(1 << 20)
    bomb = b"".join(packer.compress(mebibyte) for _ in range(1024)) + packer.flush()
    tracemalloc.start()
    try:
        begun = time.process_time()
        with pytest.raises(Refusal, match="unpacked"):
            unpack(bomb, 10 << 20)
        assert time.process_time() - begun < 1
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(Refusal, match="unpacked"):
            unpack(bomb, 1000)
        assert tracemalloc.get_traced_memory()[1] - before < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_body_of_the_smallest_members_takes_no_more_than_its_length() -> None:
    # If each copied all that follows it, this would be 10 TB.
    body = compress(b"", mtime=0) * ((10 << 20) // 20)
    begun = time.process_time()
    assert unpack(body, 1) == b""
    assert time.process_time() - begun < 8
