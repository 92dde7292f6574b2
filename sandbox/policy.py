"""What the authorizer allows: the real gate, fed with what SQLite's parser saw.

Runs in: cells. Standard library only; engine.py binds it to SQLite.

One rule for each action that needs one, by the action's name in
https://www.sqlite.org/c3ref/c_alter_table.html; an action without a rule is allowed. A rule takes
the action's two arguments and returns None, or the Denial that becomes the caller's error.
"""

from collections.abc import Callable
from typing import NamedTuple

from sandbox import blocklist


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
_MODULES = frozenset({"fts5", "fts5vocab", "rtree", "rtree_i32"})

#: Pragmas with an argument that names what to look at, or that act on the database alone.
_PRAGMAS_WITH_ANY_VALUE = frozenset(
    """
    table_info table_xinfo table_list index_info index_xinfo index_list foreign_key_list
    foreign_key_check integrity_check quick_check optimize analysis_limit incremental_vacuum
    user_version application_id defer_foreign_keys recursive_triggers case_sensitive_like
    reverse_unordered_selects automatic_index query_only wal_checkpoint shrink_memory
    """.split()
)
#: Of those, the ones that change the connection and not the file: engine.py undoes them.
PRAGMAS_OF_A_CALL = frozenset(
    """
    analysis_limit recursive_triggers case_sensitive_like reverse_unordered_selects
    automatic_index query_only
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
    "max_page_count": frozenset({"2560"}),
    "encoding": frozenset({"utf-8", "utf8"}),
}


def _pragma(name: str | None, value: str | None) -> Denial | None:
    name = (name or "").lower()
    if name in _PRAGMAS_WITH_ANY_VALUE:
        return None
    if name not in _PRAGMAS_TO_READ:
        return Denial("not_authorized", f"PRAGMA {name} is not available here")
    if value is None or value.lower() in _PRAGMAS_AS_THEY_ARE.get(name, ()):
        return None
    return Denial("not_authorized", f"PRAGMA {name} is fixed here and can only be read")


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
    if (module or "").lower() in _MODULES:
        return None
    return Denial("not_authorized", f"virtual tables of module {module} are not available here")


def _read(table: str | None, _: str | None) -> Denial | None:
    # The table form of PRAGMA database_list shows a path of the server.
    if (table or "").lower() == "pragma_database_list":
        return Denial("not_authorized", "PRAGMA database_list is not available here")
    return None


RULES: dict[str, Rule] = {
    "SQLITE_ATTACH": _attach,
    "SQLITE_DETACH": _detach,
    "SQLITE_PRAGMA": _pragma,
    "SQLITE_FUNCTION": _function,
    "SQLITE_READ": _read,
    "SQLITE_CREATE_VTABLE": _module,
}

#: VACUUM attaches and detaches a temporary database of its own under an empty file name
#: (https://www.sqlite.org/lang_vacuum.html); VACUUM INTO would name a file.
VACUUM_RULES: dict[str, Rule] = {
    **RULES,
    "SQLITE_ATTACH": lambda file, second: None if file == "" else _attach(file, second),
    "SQLITE_DETACH": lambda *_: None,
}


def is_plain_vacuum(sql: str) -> bool:
    """Say whether the call is one VACUUM of the main database and nothing else."""
    words = [token.text.upper() for token in blocklist.tokens(sql)]
    while words and words[-1] == ";":
        words.pop()
    return words in (["VACUUM"], ["VACUUM", "MAIN"])
