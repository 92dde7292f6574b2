"""The policy is written in SQLite's own words, and says no to what reaches out of the file."""

import apsw
import pytest

from sandbox import policy, receipts
from sandbox.codes import CODES
from sandbox.policy import RULES, VACUUM_RULES, Denial


def verdict(action: str, first: str | None, second: str | None = None) -> Denial | None:
    return RULES[action](first, second)


# --- names ---


@pytest.mark.parametrize("name", policy.LIMITS)
def test_every_limit_is_one_of_sqlites(name: str) -> None:
    assert hasattr(apsw, f"SQLITE_LIMIT_{name}")


def test_every_limit_of_sqlite_that_bounds_a_query_is_set() -> None:
    known = {name.removeprefix("SQLITE_LIMIT_") for name in dir(apsw) if "SQLITE_LIMIT_" in name}
    # The defaults of these bound what 8 KB of SQL can ask for already.
    left = {"PARSER_DEPTH", "TRIGGER_STEPS", "SCHEMA"}
    assert known - set(policy.LIMITS) <= left


@pytest.mark.parametrize("name", policy.SWITCHES)
def test_every_switch_is_one_of_sqlites(name: str) -> None:
    assert hasattr(apsw, f"SQLITE_DBCONFIG_{name}")


@pytest.mark.parametrize("name", sorted({*RULES, *VACUUM_RULES}))
def test_every_rule_is_for_an_action_of_sqlites(name: str) -> None:
    assert hasattr(apsw, name)


def test_a_database_has_10_mib() -> None:
    assert policy.MAX_PAGES * 4096 == 10 << 20


def test_every_pragma_that_may_be_set_for_a_call_may_be_set() -> None:
    for name in policy.PRAGMAS_OF_A_CALL:
        assert verdict("SQLITE_PRAGMA", name, "1") is None


# --- rules ---


@pytest.mark.parametrize(
    "name", ["table_info", "index_list", "foreign_key_check", "integrity_check"]
)
def test_pragmas_that_look_take_any_argument(name: str) -> None:
    assert verdict("SQLITE_PRAGMA", name) is None
    assert verdict("SQLITE_PRAGMA", name, "anything") is None
    assert verdict("SQLITE_PRAGMA", name.upper(), "anything") is None


FIXED = """
    journal_mode max_page_count foreign_keys busy_timeout synchronous locking_mode mmap_size
    cache_size temp_store page_size wal_autocheckpoint journal_size_limit trusted_schema
    writable_schema schema_version encoding auto_vacuum hard_heap_limit soft_heap_limit threads
    secure_delete cell_size_check cache_spill ignore_check_constraints legacy_alter_table
    read_uncommitted
""".split()


@pytest.mark.parametrize("name", FIXED)
def test_fixed_pragmas_can_be_read_and_not_set(name: str) -> None:
    assert verdict("SQLITE_PRAGMA", name) is None
    for spelling in (name, name.upper()):
        for value in ("0", "2", "x", "", "999999"):
            denial = verdict("SQLITE_PRAGMA", spelling, value)
            assert denial == Denial(
                "not_authorized", f"PRAGMA {name} is fixed here and can only be read"
            )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("foreign_keys", "1"),
        ("foreign_keys", "ON"),
        ("FOREIGN_KEYS", "True"),
        ("journal_mode", "WAL"),
        ("journal_mode", "wal"),
        ("busy_timeout", "1000"),
        ("max_page_count", "2560"),
        ("encoding", "UTF-8"),
    ],
)
def test_a_fixed_pragma_may_be_set_to_what_it_is(name: str, value: str) -> None:
    assert verdict("SQLITE_PRAGMA", name, value) is None


@pytest.mark.parametrize(
    "name",
    [
        "database_list",
        "DATABASE_LIST",
        "temp_store_directory",
        "data_store_directory",
        "activate_extensions",
        "key",
        "rekey",
        "lock_status",
        "vdbe_trace",
        "no_such_pragma",
        "",
        None,
    ],
)
def test_any_other_pragma_is_not_there(name: str | None) -> None:
    for value in (None, "1"):
        denial = verdict("SQLITE_PRAGMA", name, value)
        assert denial is not None
        assert denial.code == "not_authorized"
        assert denial.detail.endswith("is not available here")


FUNCTIONS = """
    load_extension readfile writefile edit zipfile unzip fts3_tokenizer sqlite_log fts5_locale
    fts5_source_id fts5_get_locale fts5_insttoken fts5
""".split()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_that_reach_out_are_forbidden_by_name(name: str) -> None:
    assert verdict("SQLITE_FUNCTION", None, name) == Denial("forbidden_keyword", name)
    assert verdict("SQLITE_FUNCTION", None, name.upper()) == Denial("forbidden_keyword", name)


@pytest.mark.parametrize("name", ["count", "json_object", "bm25", "highlight", "rank", "substr"])
def test_other_functions_are_allowed(name: str) -> None:
    assert verdict("SQLITE_FUNCTION", None, name) is None


@pytest.mark.parametrize("file", ["x", "/etc/passwd", ":memory:", "", None])
def test_no_file_is_attached(file: str | None) -> None:
    denial = verdict("SQLITE_ATTACH", file)
    assert denial is not None
    assert denial.code == "not_authorized"


def test_nothing_is_detached() -> None:
    assert verdict("SQLITE_DETACH", "main") == Denial("forbidden_keyword", "DETACH")


@pytest.mark.parametrize("module", ["fts5", "FTS5", "fts5vocab", "rtree", "rtree_i32"])
def test_virtual_tables_of_the_contract_can_be_made(module: str) -> None:
    assert verdict("SQLITE_CREATE_VTABLE", "t", module) is None


@pytest.mark.parametrize(
    "module", ["fts3", "fts4", "fts4aux", "geopoly", "dbstat", "sqlite_dbpage", "csv", None]
)
def test_virtual_tables_of_other_modules_cannot_be_made(module: str | None) -> None:
    denial = verdict("SQLITE_CREATE_VTABLE", "t", module)
    assert denial is not None
    assert denial.code == "not_authorized"


@pytest.mark.parametrize("table", ["pragma_database_list", "PRAGMA_Database_List"])
def test_the_table_that_shows_the_servers_path_is_not_read(table: str) -> None:
    denial = verdict("SQLITE_READ", table, "file")
    assert denial is not None
    assert denial.code == "not_authorized"


@pytest.mark.parametrize("table", ["t", "pragma_table_info", "sqlite_schema", None])
def test_other_tables_are_read(table: str | None) -> None:
    assert verdict("SQLITE_READ", table, "a") is None


@pytest.mark.parametrize(
    "denial",
    [
        verdict("SQLITE_ATTACH", "x"),
        verdict("SQLITE_DETACH", "x"),
        verdict("SQLITE_PRAGMA", "x"),
        verdict("SQLITE_FUNCTION", None, "edit"),
        verdict("SQLITE_CREATE_VTABLE", "t", "x"),
        verdict("SQLITE_READ", "pragma_database_list"),
    ],
)
def test_every_denial_has_a_code_of_the_table_and_words(denial: Denial) -> None:
    assert denial.code in CODES
    assert denial.detail


# --- VACUUM ---


@pytest.mark.parametrize(
    "sql",
    [
        "VACUUM",
        "vacuum;",
        " VACUUM ; ; ",
        "VACUUM main",
        "vacuum MAIN;",
        "/* a */ VACUUM -- b",
        "\ufeffVACUUM",
    ],
)
def test_a_call_of_one_vacuum_is_plain(sql: str) -> None:
    assert policy.is_plain_vacuum(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "VACUUM INTO 'x'",
        "VACUUM main INTO 'x'",
        "VACUUM temp",
        "VACUUM; SELECT 1",
        "SELECT 1; VACUUM",
        "; VACUUM",
        "VACUUM; VACUUM",
        "EXPLAIN VACUUM",
        "VACUUM; ATTACH '' AS x",
        "'VACUUM'",
        "-- VACUUM",
    ],
)
def test_anything_else_is_no_plain_vacuum(sql: str) -> None:
    assert not policy.is_plain_vacuum(sql)


def test_even_a_vacuum_attaches_no_file_but_its_own_nameless_one() -> None:
    assert VACUUM_RULES["SQLITE_ATTACH"]("", None) is None
    for file in ("x", ":memory:", None):
        assert VACUUM_RULES["SQLITE_ATTACH"](file, None) is not None


def test_all_other_rules_hold_during_a_vacuum() -> None:
    changed = {name for name in RULES if VACUUM_RULES[name] is not RULES[name]}
    assert changed == {"SQLITE_ATTACH", "SQLITE_DETACH", "SQLITE_READ", "SQLITE_INSERT"}
    assert set(VACUUM_RULES) == set(RULES)


@pytest.mark.parametrize(
    "action", ["SQLITE_READ", "SQLITE_INSERT", "SQLITE_UPDATE", "SQLITE_DELETE"]
)
@pytest.mark.parametrize("name", [receipts.TABLE, receipts.TABLE.upper()])
def test_the_services_own_table_is_nobodys_to_touch(action: str, name: str) -> None:
    assert RULES[action](name, None)
    assert not RULES[action]("t", None)
    assert RULES["SQLITE_PRAGMA"]("table_info", name)
