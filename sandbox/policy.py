"""What SQL may do and how much of it: limits, fixed settings, and the authorizer's rules.

Runs in: cells. Standard library only, everything by SQLite's own names; gate.py binds it.
SQLite's advice for hostile SQL is followed (https://www.sqlite.org/security.html); where a limit
is wider it is because honest SQL within 8 KB needs it, and the heap and the clocks still hold.

The authorizer is the real gate: it is fed with what SQLite's parser saw. RULES has one rule for
each action that needs one (https://www.sqlite.org/c3ref/c_alter_table.html); an action without a
rule is allowed. A rule takes the action's two arguments and returns None, or the Denial that
becomes the caller's error.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from sandbox import receipts, tokens
from sandbox.names import folded

#: 10 MB (https://www.sqlite.org/pragma.html#pragma_max_page_count).
PAGE_BYTES = 4096
MAX_PAGES = 2560
HEAP_BYTES = 64 << 20
#: Opcodes between two looks at the clock: a third of the cost of looking every 100.
PROGRESS_STEPS = 250

#: SQLITE_LIMIT_... (https://www.sqlite.org/c3ref/c_limit_attached.html)
LIMITS = {
    "LENGTH": 1 << 20,
    "SQL_LENGTH": 65_536,
    "COLUMN": 1000,
    "EXPR_DEPTH": 1000,
    "COMPOUND_SELECT": 500,
    "VDBE_OP": 1_000_000,
    "FUNCTION_ARG": 1000,
    "ATTACHED": 0,
    # LIKE and GLOB are quadratic in the pattern and never look at the clock.
    "LIKE_PATTERN_LENGTH": 1000,
    "VARIABLE_NUMBER": 32_766,
    # Bounds chains of ON DELETE CASCADE too, so not too low.
    "TRIGGER_DEPTH": 100,
    "WORKER_THREADS": 0,
}
#: SQLITE_DBCONFIG_... (https://www.sqlite.org/c3ref/c_dbconfig_defensive.html)
SWITCHES = {
    "DEFENSIVE": 1,
    "TRUSTED_SCHEMA": 0,
    "ENABLE_LOAD_EXTENSION": 0,
    "ENABLE_FTS3_TOKENIZER": 0,
    "WRITABLE_SCHEMA": 0,
}
# Exclusive locking before the first read keeps the WAL index in memory: no third file
# (https://www.sqlite.org/wal.html#noshm). Nobody asks a disposable database to survive the
# machine: synchronous=OFF.
_PRAGMAS = f"""
    PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=OFF; PRAGMA journal_mode=WAL;
    PRAGMA max_page_count={{most_pages:d}}; PRAGMA temp_store=MEMORY;
    PRAGMA temp.max_page_count={MAX_PAGES}; PRAGMA foreign_keys=ON; PRAGMA mmap_size=0;
    PRAGMA cell_size_check=ON; PRAGMA wal_autocheckpoint=1000; PRAGMA journal_size_limit=0;
    PRAGMA busy_timeout=1000; SELECT count(*) FROM sqlite_schema;
"""  # noqa: S608 - nothing in it comes from outside
#: The virtual table modules that stay.
MODULES = frozenset({"fts5", "fts5vocab", "rtree", "rtree_i32"})


def pragmas(most_pages: int) -> str:
    """Return what a database of so many pages at most is opened with."""
    return _PRAGMAS.format(most_pages=most_pages)


class Denial(NamedTuple):
    """Why a statement was refused: a code of codes.py and the words after its beginning."""

    code: str
    detail: str


Rule = Callable[[str | None, str | None], Denial | None]

_FUNCTIONS = frozenset(
    """
    load_extension readfile writefile edit zipfile unzip fts3_tokenizer sqlite_log matchinfo
    offsets optimize rtreecheck fts5 fts5_source_id fts5_locale fts5_get_locale fts5_insttoken
    """.split()
)

#: Pragmas with an argument that names what to look at, or that act on the database alone.
_PRAGMAS_WITH_ANY_VALUE = frozenset(
    """
    table_info table_xinfo table_list index_info index_xinfo index_list foreign_key_list
    foreign_key_check integrity_check quick_check optimize analysis_limit incremental_vacuum
    user_version application_id defer_foreign_keys recursive_triggers case_sensitive_like
    reverse_unordered_selects automatic_index query_only wal_checkpoint shrink_memory
    """.split()
)
#: Of those, the ones that change the connection and not the file: gate.py undoes them.
PRAGMAS_OF_A_CALL = frozenset(
    """
    analysis_limit recursive_triggers case_sensitive_like reverse_unordered_selects
    automatic_index query_only defer_foreign_keys
    """.split()
)
#: Pragmas that may be read only.
_PRAGMAS_TO_READ = frozenset(
    """
    auto_vacuum busy_timeout cache_size cache_spill cell_size_check checkpoint_fullfsync
    collation_list compile_options data_version encoding foreign_keys freelist_count fullfsync
    function_list hard_heap_limit ignore_check_constraints journal_mode journal_size_limit
    legacy_alter_table locking_mode max_page_count mmap_size module_list page_count page_size
    pragma_list read_uncommitted schema_version secure_delete soft_heap_limit synchronous
    temp_store threads trusted_schema wal_autocheckpoint writable_schema
    """.split()
)
#: Fixed pragmas set to what they are: scripts do this by habit, and it changes nothing.
_PRAGMAS_AS_THEY_ARE = {
    "foreign_keys": frozenset({"1", "on", "yes", "true"}),
    "journal_mode": frozenset({"wal"}),
    "busy_timeout": frozenset({"1000"}),
    "max_page_count": frozenset({str(MAX_PAGES)}),
    "encoding": frozenset({"utf-8", "utf8"}),
}


def _pragma(name: str | None, value: str | None) -> Denial | None:
    name = (name or "").lower()
    if (value or "").lower() == receipts.TABLE:
        return write(value, None)
    if name in _PRAGMAS_WITH_ANY_VALUE:
        return None
    if name not in _PRAGMAS_TO_READ:
        return Denial("not_authorized", f"PRAGMA {name} is not available here")
    if value is None or value.lower() in _PRAGMAS_AS_THEY_ARE.get(name, ()):
        return None
    return _fixed(name)


def _fixed(name: str) -> Denial:
    return Denial("not_authorized", f"PRAGMA {name} is fixed here and can only be read")


def capped(pragma: Rule) -> Rule:
    """Return a rule for pragmas that holds a database to fewer pages than MAX_PAGES."""

    def rule(name: str | None, value: str | None) -> Denial | None:
        is_cap = (name or "").lower() == "max_page_count" and value is not None
        return _fixed("max_page_count") if is_cap else pragma(name, value)

    return rule


def is_refused(function: str) -> bool:
    """Say whether a function may not be called."""
    return function.lower() in _FUNCTIONS


def _function(_: str | None, name: str | None) -> Denial | None:
    name = (name or "").lower()
    return Denial("forbidden_keyword", name) if name in _FUNCTIONS else None


def _attach(file: str | None, _: str | None) -> Denial | None:
    if file == "":
        return Denial("not_authorized", "VACUUM must be a call of its own")
    return Denial("not_authorized", "ATTACH and VACUUM INTO reach for another file")


def _detach(_: str | None, __: str | None) -> Denial | None:
    return Denial("forbidden_keyword", "DETACH")


def _module(_: str | None, module: str | None) -> Denial | None:
    if (module or "").lower() in MODULES:
        return None
    return Denial("not_authorized", f"virtual tables of module {module} are not available here")


def write(table: str | None, _: str | None = None) -> Denial | None:
    """Refuse the table of receipts, and no other."""
    if (table or "").lower() == receipts.TABLE:
        return Denial("not_authorized", "this table is the service's own")
    return None


def _read(table: str | None, column: str | None) -> Denial | None:
    # The table form of PRAGMA database_list shows a path of the server.
    if (table or "").lower() == "pragma_database_list":
        return Denial("not_authorized", "PRAGMA database_list is not available here")
    return write(table, column)


RULES: dict[str, Rule] = {
    "SQLITE_ATTACH": _attach,
    "SQLITE_DETACH": _detach,
    "SQLITE_PRAGMA": _pragma,
    "SQLITE_FUNCTION": _function,
    "SQLITE_READ": _read,
    "SQLITE_INSERT": write,
    "SQLITE_UPDATE": write,
    "SQLITE_DELETE": write,
    "SQLITE_CREATE_VTABLE": _module,
}

#: VACUUM attaches and detaches a temporary database of its own under an empty file name
#: (https://www.sqlite.org/lang_vacuum.html); VACUUM INTO would name a file.
VACUUM_RULES: dict[str, Rule] = {
    **RULES,
    "SQLITE_ATTACH": lambda file, second: None if file == "" else _attach(file, second),
    "SQLITE_DETACH": lambda *_: None,
    # It copies every table.
    "SQLITE_READ": lambda *_: None,
    "SQLITE_INSERT": lambda *_: None,
}


def _script_pragma(name: str | None, value: str | None) -> Denial | None:
    # As every dump begins. They are on again when the script is over.
    return None if (name or "").lower() == "foreign_keys" else _pragma(name, value)


#: For a script that fills a database.
SCRIPT_RULES: dict[str, Rule] = {**RULES, "SQLITE_PRAGMA": _script_pragma}


_READ_ONLY = Denial("read_only", "this call is read-only")
#: What a read-only call may do (its pragmas have a rule of their own); all else writes.
_READING = frozenset(
    {
        "SQLITE_SELECT",
        "SQLITE_READ",
        "SQLITE_FUNCTION",
        "SQLITE_RECURSIVE",
        "SQLITE_TRANSACTION",
        "SQLITE_SAVEPOINT",
    }
)
#: Pragmas that act on the database though they only take names, or nothing.
_PRAGMAS_THAT_ACT = frozenset(
    {"optimize", "incremental_vacuum", "wal_checkpoint", "shrink_memory", *PRAGMAS_OF_A_CALL}
)
_LOOKING = _PRAGMAS_WITH_ANY_VALUE - _PRAGMAS_THAT_ACT - {"user_version", "application_id"}


def _read_only_pragma(name: str | None, value: str | None) -> Denial | None:
    denial = _pragma(name, value)
    if denial is None and (name or "").lower() not in _LOOKING:
        acts = (name or "").lower() in _PRAGMAS_THAT_ACT - PRAGMAS_OF_A_CALL
        return _READ_ONLY if acts or value is not None else None
    return denial


def read_only(actions: Iterable[str]) -> dict[str, Rule]:
    """Return the rules for a call that may change nothing, of all the actions that SQLite has."""
    rules: dict[str, Rule] = {
        action: lambda *_: _READ_ONLY for action in actions if action not in _READING
    }
    reading = {action: rule for action, rule in RULES.items() if action in _READING}
    return rules | reading | {"SQLITE_PRAGMA": _read_only_pragma}


#: What FTS5 and R-Tree call the tables in which they keep one of theirs.
SHADOWS = "data idx content docsize config node rowid parent".split()


def reach(tables: Iterable[str]) -> frozenset[bytes]:
    """Return all that belongs to tables, in small letters, for `within`."""
    names = [folded(table) for table in tables]
    own = [name + b"_" + shadow.encode() for name in names for shadow in SHADOWS]
    return frozenset(names + own)


def within(reached: frozenset[bytes]) -> dict[str, Rule]:
    """Return the rules that keep a read-only call to some tables, beside those of `read_only`.

    A view is reached if it is named and all that it reads is: what the authorizer is told of the
    view in which a table is read may be the name of a caller's own WITH.
    """
    denial = Denial("not_authorized", "the token is for some tables, and this is beyond them")

    def read(table: str | None, column: str | None) -> Denial | None:
        return _read(table, column) if folded(table or "") in reached else denial

    def pragma(name: str | None, value: str | None) -> Denial | None:
        if (name or "").lower() == "data_version" and value is None:  # FTS5 asks for it
            return None
        shows = (name or "").lower() in ("table_info", "table_xinfo")
        return None if shows and value and folded(value) in reached else denial

    return {"SQLITE_READ": read, "SQLITE_PRAGMA": pragma}


#: Why a call that is one transaction as a whole cannot have others.
ALL_ONE = Denial(
    "not_authorized", "the call is one transaction as a whole: leave out BEGIN, COMMIT and ROLLBACK"
)


def ends_a_transaction(text: str) -> bool:
    """Say whether a statement begins or ends a transaction (not a savepoint)."""
    # A semicolon may lead: SQLite takes it for a part of the statement behind it.
    found = [token for token in tokens.tokens(text) if token.text != ";"]
    words = [token.text.upper() for token in found[:3]]
    if words[:1] == ["ROLLBACK"]:
        return "TO" not in words
    return words[:1] in (["BEGIN"], ["COMMIT"], ["END"])


def is_plain_vacuum(sql: str) -> bool:
    """Say whether the call is one VACUUM of the main database and nothing else."""
    if "vacuum" not in sql.lower():  # as in most calls, and it is quickly seen
        return False
    words = [token.text.upper() for token in tokens.tokens(sql)]
    while words and words[-1] == ";":
        words.pop()
    return words in (["VACUUM"], ["VACUUM", "MAIN"])


def lasts_beyond_the_call(
    action: str, name: str | None, value: str | None, schema: str | None
) -> bool:
    """Say whether an action leaves something on the connection that is not in the file."""
    if action == "SQLITE_PRAGMA":
        lasting = PRAGMAS_OF_A_CALL | {"foreign_keys"}
        return value is not None and (name or "").lower() in lasting
    return schema == "temp" and action not in ("SQLITE_READ", "SQLITE_SELECT")
