"""The blocklist: refuses the use of a word, never its letters, and reads SQL as SQLite does."""

import time

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandbox.blocklist import forbidden
from sandbox.tokens import tokens
from tests.sandbox.test_tokens import GAPS, any_text

REFUSED = {
    # a statement of its own, first or later
    "ATTACH 'x' AS y": "ATTACH",
    "attach database 'x' as y": "ATTACH",
    "AtTaCh DaTaBaSe ':memory:' AS m": "ATTACH",
    "DETACH y": "DETACH",
    "DETACH DATABASE y": "DETACH",
    "SELECT 1; ATTACH 'x' AS y": "ATTACH",
    "SELECT 1;;  ;\nDETACH y": "DETACH",
    "; ATTACH 'x' AS y": "ATTACH",
    "BEGIN; ATTACH 'x' AS y; COMMIT": "ATTACH",
    "ATTACH": "ATTACH",
    # behind EXPLAIN
    "EXPLAIN ATTACH 'x' AS y": "ATTACH",
    "EXPLAIN QUERY PLAN ATTACH 'x' AS y": "ATTACH",
    "explain /* a */ query -- b\n plan attach 'x' as y": "ATTACH",
    "SELECT 1; EXPLAIN QUERY PLAN DETACH y": "DETACH",
    "SELECT 1; EXPLAIN DETACH y": "DETACH",
    # behind comments and white space
    "/* a */ATTACH 'x' AS y": "ATTACH",
    "-- a\nATTACH 'x' AS y": "ATTACH",
    "--\nATTACH 'x' AS y": "ATTACH",
    "/**/ATTACH/**/'x'/**/AS/**/y": "ATTACH",
    "/* ; */ATTACH 'x' AS y": "ATTACH",
    "\ufeffATTACH 'x' AS y": "ATTACH",
    "\ufeff\n\ufeff ATTACH 'x' AS y": "ATTACH",
    "\n\t\r\f ATTACH 'x' AS y": "ATTACH",
    "SELECT ';'; ATTACH 'x' AS y": "ATTACH",
    "ATTACH'x'AS y": "ATTACH",
    'ATTACH"x"AS y': "ATTACH",
    # functions, in every spelling of a name
    "SELECT load_extension('x')": "load_extension",
    "SELECT LOAD_EXTENSION('x')": "load_extension",
    "SELECT load_extension ('x')": "load_extension",
    "SELECT load_extension\n\t('x')": "load_extension",
    "SELECT load_extension/* a */('x')": "load_extension",
    "SELECT load_extension -- a\n ('x')": "load_extension",
    "SELECT load_extension\ufeff ('x') , load_extension('x')": "load_extension",
    "SELECT \"load_extension\"('x')": "load_extension",
    "SELECT \"LOAD_extension\" ('x')": "load_extension",
    "SELECT [load_extension]('x')": "load_extension",
    "SELECT `load_extension`('x')": "load_extension",
    "SELECT `load_extension` /**/ ('x')": "load_extension",
    "SELECT 1,load_extension('x')": "load_extension",
    "SELECT(load_extension('x'))": "load_extension",
    "SELECT 1, load_extension(a) AS b FROM t": "load_extension",
    "SELECT 1, edit(a) AS b FROM t": "edit",
    'SELECT 1, "load_extension"(a, b) AS c FROM t': "load_extension",
    "SELECT 1, edit(a) AS materialized FROM t": "edit",
    "WITH a AS (SELECT 1, edit(b) AS c FROM t) SELECT * FROM a": "edit",
    "SELECT * FROM a, zipfile(b) AS c": "zipfile",
    "SELECT 'a'||load_extension('x')": "load_extension",
    "SELECT 1 WHERE load_extension('x')": "load_extension",
    "SELECT readfile('/etc/passwd')": "readfile",
    "SELECT writefile('/tmp/x', 'y')": "writefile",
    "SELECT edit('x')": "edit",
    "SELECT * FROM zipfile('x.zip')": "zipfile",
    "SELECT unzip('x')": "unzip",
    "SELECT fts5(?)": "fts5",
    "SELECT fts5_source_id()": "fts5_source_id",
    "SELECT fts5_locale('en', 'x')": "fts5_locale",
    "SELECT FTS5_Insttoken('x')": "fts5_insttoken",
    "INSERT INTO t VALUES(edit('x'))": "edit",
    "INSERT INTO t SELECT readfile('x')": "readfile",
    "UPDATE t SET a = edit(a)": "edit",
    "DELETE FROM t WHERE edit(a)": "edit",
    "CREATE INDEX i ON t(edit(a))": "edit",
    "CREATE TABLE t(a CHECK(edit(a)))": "edit",
    "CREATE TABLE t(a DEFAULT (load_extension('x')))": "load_extension",
    "CREATE TABLE t(a AS (edit(a)))": "edit",
    "CREATE VIEW v AS SELECT load_extension('x')": "load_extension",
    "SELECT * FROM t JOIN u ON edit(t.a)": "edit",
    "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT load_extension('x'); END": "load_extension",
    "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; SELECT edit(1); END": "edit",
    "CREATE TRIGGER r AFTER INSERT ON t WHEN edit(new.a) BEGIN SELECT 1; END": "edit",
    "WITH a AS (SELECT edit(1)) SELECT * FROM a": "edit",
    "SELECT 1; SELECT 'a'; SELECT unzip('x')": "unzip",
    "CREATE TABLE edit(a); SELECT edit(1)": "edit",
    "EXPLAIN SELECT load_extension('x')": "load_extension",
    "SELECT 'it''s', load_extension('x')": "load_extension",
    "SELECT '\\', load_extension('x'), '": "load_extension",
    'SELECT "a""b", load_extension(1)': "load_extension",
    "SELECT /* 'a */ load_extension(1) --'": "load_extension",
    "SELECT /* /* */ load_extension(1)": "load_extension",
    # the raw pages
    "SELECT * FROM sqlite_dbpage": "sqlite_dbpage",
    "SELECT * FROM SQLITE_DBPAGE": "sqlite_dbpage",
    'SELECT * FROM "sqlite_dbpage"': "sqlite_dbpage",
    "SELECT * FROM [sqlite_dbpage]": "sqlite_dbpage",
    "SELECT * FROM `sqlite_dbpage`": "sqlite_dbpage",
    "SELECT * FROM main.sqlite_dbpage": "sqlite_dbpage",
    'SELECT * FROM main."sqlite_dbpage"': "sqlite_dbpage",
    "SELECT * FROM t, sqlite_dbpage": "sqlite_dbpage",
    "SELECT * FROM t JOIN sqlite_dbpage": "sqlite_dbpage",
    "UPDATE sqlite_dbpage SET data = x''": "sqlite_dbpage",
    'UPDATE "sqlite_dbpage" SET data = 1': "sqlite_dbpage",
    "INSERT INTO sqlite_dbpage VALUES(1, x'')": "sqlite_dbpage",
    "CREATE VIRTUAL TABLE p USING sqlite_dbpage": "sqlite_dbpage",
    "CREATE VIRTUAL TABLE p USING sqlite_dbpage(1)": "sqlite_dbpage",
}

ACCEPTED = [
    # words inside literals
    "INSERT INTO t VALUES('please attach the file')",
    "INSERT INTO t VALUES('attach')",
    "SELECT 'load_extension(''x'')'",
    "SELECT '; ATTACH ''x'' AS y'",
    "SELECT 'a; DETACH b', 'sqlite_dbpage'",
    'INSERT INTO kv VALUES("attach", "edit")',
    'INSERT INTO kv VALUES("greeting", "sqlite_dbpage")',
    "SELECT x'00', 'readfile(1)'",
    # words inside comments
    "SELECT 1 -- ATTACH 'x' AS y",
    "SELECT 1 -- ; ATTACH 'x' AS y",
    "-- load_extension('x')\nSELECT 1",
    "/* ATTACH 'x' AS y; */ SELECT 1",
    "/* load_extension('x') */ SELECT 1",
    "SELECT /* edit( */ 1",
    # unterminated comments and strings run to the end
    "SELECT 1 /* ; ATTACH 'x' AS y",
    "SELECT 1 /* load_extension('x')",
    "/* ATTACH 'x' AS y",
    "SELECT 'open ; ATTACH x AS y",
    'SELECT "open load_extension(1)',
    "SELECT `open load_extension(1)",
    "SELECT [open load_extension(1)",
    # identifiers that only contain the letters
    "SELECT attachment FROM mail",
    "SELECT attached, detached, edited, unzipped FROM t",
    "SELECT attachment(1)",
    "SELECT my_load_extension(1), load_extensions(1)",
    "SELECT credit(1), edit_distance(1, 2)",
    "SELECT sqlite_dbpages FROM t",
    "SELECT \u00e9dit(1), edit\u00e9(1), edit$(1), edit1(1)",
    "SELECT * FROM readfile_log",
    "CREATE TABLE attachments(id, detach_reason)",
    # tables and columns of those names
    "CREATE TABLE attach(x)",
    "CREATE TABLE t(attach, detach)",
    "SELECT attach, detach FROM t",
    "SELECT attach.x FROM attach",
    "UPDATE attach SET x = 1",
    "SELECT 1 AS attach",
    "SELECT edit FROM t",
    "SELECT t.edit FROM t",
    "SELECT edit, 1 FROM t WHERE edit = 1 AND edit IN (1, 2)",
    "CREATE TABLE t(edit, readfile TEXT)",
    "CREATE TABLE t(edit INTEGER PRIMARY KEY, unzip)",
    "CREATE TABLE edit(a)",
    "CREATE TABLE edit (a)",
    "CREATE TABLE IF NOT EXISTS edit(a)",
    "CREATE TEMP TABLE edit(a)",
    "CREATE TABLE main.edit(a)",
    "CREATE TABLE 'edit'(a)",
    'CREATE TABLE "edit"(a)',
    "CREATE TABLE [edit](a)",
    "CREATE VIEW edit(a) AS SELECT 1",
    "INSERT INTO edit(a) VALUES(1)",
    "INSERT INTO main.edit(a) VALUES(1)",
    'INSERT INTO "edit"(a) VALUES(1)',
    "REPLACE INTO edit(a) VALUES(1)",
    "INSERT OR IGNORE INTO edit (a) VALUES (1)",
    "CREATE INDEX i ON edit(a)",
    "CREATE UNIQUE INDEX IF NOT EXISTS i ON edit(a)",
    "SELECT 1; CREATE INDEX i ON edit (a)",
    "CREATE INDEX i ON t(edit)",
    "CREATE TABLE u(a REFERENCES edit(a))",
    "CREATE TABLE u(a, FOREIGN KEY(a) REFERENCES edit(a))",
    "WITH edit(x) AS (SELECT 1) SELECT x FROM edit",
    "WITH RECURSIVE edit(x) AS (SELECT 1) SELECT x FROM edit",
    "WITH a AS (SELECT 1), edit(x) AS (SELECT 2) SELECT x FROM edit",
    "WITH a(y) AS (SELECT 1), unzip(x) AS NOT MATERIALIZED (SELECT 2) SELECT x FROM unzip",
    "SELECT * FROM edit",
    "DELETE FROM edit WHERE a = 1",
    "DROP TABLE edit",
    # FTS5 itself
    "CREATE VIRTUAL TABLE f USING fts5(body)",
    "CREATE VIRTUAL TABLE f USING fts5 (body, content='')",
    "CREATE VIRTUAL TABLE f USING FTS5(body)",
    'CREATE VIRTUAL TABLE f USING "fts5"(body)',
    "CREATE VIRTUAL TABLE f USING/* a */fts5/* b */(body)",
    "CREATE VIRTUAL TABLE edit USING fts5(body)",
    "CREATE VIRTUAL TABLE fts5_docs USING fts5(body)",
    "CREATE VIRTUAL TABLE v USING fts5vocab('f', 'row')",
    "INSERT INTO fts5_docs(fts5_docs) VALUES('optimize')",
    "INSERT INTO fts5_docs(rowid, body) VALUES(1, 'a')",
    "SELECT bm25(fts5_docs), highlight(fts5_docs, 0, '[', ']') FROM fts5_docs",
    # nothing at all
    "",
    ";",
    "-- edit(",
    "SELECT 1",
    "EXPLAIN SELECT 1",
    "EXPLAIN QUERY PLAN SELECT attach FROM t",
    "SELECT 1 AS a, 'ATTACH' AS b",
    "VALUES('ATTACH')",
]


@pytest.mark.parametrize(("sql", "keyword"), REFUSED.items())
def test_a_use_is_refused_by_the_contracts_keyword(sql: str, keyword: str) -> None:
    assert forbidden(sql) == keyword


@pytest.mark.parametrize("sql", ACCEPTED)
def test_mere_letters_are_accepted(sql: str) -> None:
    assert forbidden(sql) is None


def test_the_first_of_several_keywords_is_named() -> None:
    assert forbidden("SELECT edit(1), unzip(2); ATTACH 'x' AS y") == "edit"


# --- the verdict does not depend on how it is written ---

# Unterminated pieces would swallow the gaps that follow them.
WRITINGS = [sql for sql in [*REFUSED, *ACCEPTED] if "open" not in sql and not sql.endswith("'")]


def rewritten(sql: str, gaps: list[str], upper: list[bool]) -> str:
    """Return the SQL with its tokens spaced out anew and its words in mixed case."""
    text = ""
    for at, token in enumerate(tokens(sql)):
        piece = token.text
        if token.kind in ("word", "quoted"):
            piece = "".join(
                letter.upper() if upper[i % len(upper)] else letter.lower()
                for i, letter in enumerate(piece)
            )
        text += gaps[at % len(gaps)] + piece
    return text + gaps[-1]


@given(
    sql=st.sampled_from(WRITINGS),
    gaps=st.lists(st.sampled_from(GAPS), min_size=1, max_size=8),
    upper=st.lists(st.booleans(), min_size=1, max_size=16),
)
def test_case_comments_and_white_space_never_change_the_verdict(
    sql: str, gaps: list[str], upper: list[bool]
) -> None:
    assert forbidden(rewritten(sql, gaps, upper)) == forbidden(sql)


suspects = st.sampled_from([*REFUSED, *ACCEPTED])


#: What may stand before another statement: nothing of it is left open.
WHOLE = [sql for sql in ACCEPTED if not any(mark in sql for mark in ("open", "/*", "--"))]


@given(text=st.text() | suspects, before=st.sampled_from(WHOLE))
@example(text="'; ATTACH 'x' AS y; --", before="SELECT 1")
def test_any_text_in_a_string_literal_is_accepted(text: str, before: str) -> None:
    quoted = "'" + text.replace("'", "''") + "'"
    assert forbidden(f"{before}; SELECT {quoted}") is None


@given(text=st.text() | suspects)
def test_any_text_in_a_comment_is_accepted(text: str) -> None:
    assert forbidden("SELECT 1 /* " + text.replace("*/", "") + "*") is None
    assert forbidden("SELECT 1 -- " + text.replace("\n", " ") + "\n, 2") is None


@given(text=st.text() | suspects, sql=st.sampled_from(list(REFUSED)))
def test_a_string_literal_before_a_use_does_not_hide_it(text: str, sql: str) -> None:
    quoted = "'" + text.replace("'", "''") + "'"
    assert forbidden(f"SELECT {quoted}; {sql}") == REFUSED[sql]


@given(text=any_text)
def test_any_text_only_gets_an_answer(text: str) -> None:
    verdict = forbidden(text)
    assert verdict is None or isinstance(verdict, str)


# --- time ---


@pytest.mark.parametrize(
    "unit",
    [
        "a ",
        "edit ",
        "edit(",
        "attach ",
        "x.",
        "edit.",
        "explain query plan ",
        "'",
        '"',
        "`",
        "[",
        "/*",
        "*/",
        "-",
        "--\n",
        "((",
        "é",
        "'' ",
        ";",
        "sqlite_dbpage.",
        "\ufeff",
    ],
)
def test_64_kib_of_anything_take_less_than_half_a_second(unit: str) -> None:
    assert judging_s("create table edit(" + unit * (65_536 // len(unit))) < 0.5


def test_64_kib_of_index_clauses_take_less_than_half_a_second() -> None:
    assert judging_s("create index i on edit(" + "on edit(" * 8000) < 0.5


def test_64_kib_of_common_table_expressions_take_less_than_half_a_second() -> None:
    assert judging_s("with edit(a) as (select 1)" + ", edit(" * 9000) < 0.5


def judging_s(sql: str) -> float:
    """Return the processor time of one verdict, of a second one if the first took long."""
    for _ in range(2):
        began = time.process_time()
        forbidden(sql)
        took = time.process_time() - began
        if took < 0.5:
            break
    return took


# --- SQLite has the last word ---

#: Functions that this build lacks are registered, so that calling them resolves as elsewhere.
DANGEROUS = ["load_extension", "readfile", "writefile", "edit", "zipfile", "unzip", "fts5_locale"]


def sqlite_sees(sql: str) -> set[str]:
    """Run the text in SQLite and return what its parser found of ATTACH, DETACH and functions."""
    seen: set[str] = set()
    connection = apsw.Connection(":memory:")

    def authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action in (apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH):
            seen.add("attach" if action == apsw.SQLITE_ATTACH else "detach")
            return apsw.SQLITE_DENY
        if action == apsw.SQLITE_FUNCTION and (second or "").lower() in DANGEROUS:
            seen.add((second or "").lower())
            return apsw.SQLITE_DENY
        return apsw.SQLITE_OK

    try:
        for name in DANGEROUS[1:]:
            connection.create_scalar_function(name, lambda *_: None)
        connection.execute("CREATE TABLE t(a, edit); CREATE TABLE edit(a)")
        connection.set_authorizer(authorize)
        try:
            for _ in connection.execute(sql):
                pass
        except (apsw.Error, ValueError, UnicodeError):
            pass
    finally:
        connection.close()
    return seen


fragments = st.sampled_from(
    """
    attach detach database 'x' as y select load_extension "load_extension" [load_extension]
    `load_extension` readfile edit "edit" ( ) 1 ; explain query plan table create view index on from
    t , . ' " insert into values with recursive exists begin end trigger r after if not where
    update set a = union using references fts5_locale unzip null order by limit in case when then
    """.split()
) | st.sampled_from([" ", "\n", "\ufeff", "-- c\n", "/* c */", "/*", "--", "\x0b", "\u00a0", "é"])
statements = st.sampled_from(
    [
        "SELECT {f}(1)",
        "SELECT 1, {f} (1) FROM t",
        "INSERT INTO t SELECT {f}(1), 2",
        "WITH w(a) AS (SELECT {f}(1)) SELECT * FROM w",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT {f}(1); END; INSERT INTO t VALUES(1, 2)",
        "CREATE VIEW v AS SELECT {f}(1); SELECT * FROM v",
        "SELECT * FROM t JOIN edit ON {f}(1)",
        "SELECT * FROM t WHERE EXISTS (SELECT {f}(1))",
        "CREATE INDEX i ON t(a) WHERE {f}(1)",
        "CREATE TABLE u(a CHECK({f}(a)))",
        "UPDATE t SET a = {f}(a)",
        "{f} 'x' AS y",
        "EXPLAIN {f} 'x' AS y",
        "EXPLAIN QUERY PLAN {f} 'x' AS y",
        "SELECT 1; {f} 'x' AS y",
        "{f} DATABASE y",
    ]
)
names = st.sampled_from([*DANGEROUS, "ATTACH", "DETACH"])
quotes = st.sampled_from(["{}", '"{}"', "[{}]", "`{}`", "{}/**/", "/**/{}", "{} -- c\n"])
whole = st.builds(
    lambda form, quote, name: form.replace("{f}", quote.format(name)), statements, quotes, names
)


@given(
    sql=whole | st.lists(fragments, max_size=14).map(" ".join) | st.lists(fragments).map("".join)
)
def test_whatever_sqlite_takes_for_a_use_is_refused(sql: str) -> None:
    if seen := sqlite_sees(sql):
        assert forbidden(sql) is not None, seen
