"""Attacks on what is fixed: every pragma that would move a wall, in every spelling."""

from tests.hostile.sql_case import Case, harmless, refused

#: A fixed pragma and the value that an attacker would like.
_FIXED = {
    "auto_vacuum": "1",
    "busy_timeout": "9999999",
    "cache_size": "-1000000",
    "cache_spill": "0",
    "cell_size_check": "0",
    "checkpoint_fullfsync": "1",
    "encoding": "'UTF-16'",
    "foreign_keys": "0",
    "fullfsync": "1",
    "hard_heap_limit": "1",
    "ignore_check_constraints": "1",
    "journal_mode": "DELETE",
    "journal_size_limit": "-1",
    "legacy_alter_table": "1",
    "locking_mode": "NORMAL",
    "max_page_count": "1000000",
    "mmap_size": "268435456",
    "page_size": "65536",
    "read_uncommitted": "1",
    "schema_version": "1",
    "secure_delete": "1",
    "soft_heap_limit": "1",
    "synchronous": "2",
    "temp_store": "1",
    "threads": "8",
    "trusted_schema": "1",
    "wal_autocheckpoint": "0",
    "writable_schema": "1",
}
_CAP = {
    "comments": "PRAGMA/**/main/**/./**/max_page_count/**/=/**/99999",
    "double quotes": 'PRAGMA "max_page_count" = 99999',
    "brackets": "PRAGMA main.[MAX_PAGE_COUNT](99999)",
    "backticks": "PRAGMA `max_page_count` = 99999",
    "of temp": "PRAGMA temp.max_page_count = 99999",
    "negative": "PRAGMA max_page_count = -1",
    "as text": "PRAGMA max_page_count = '99999'",
    "hexadecimal": "PRAGMA max_page_count = 0xffff",
    "as a float": "PRAGMA max_page_count = 2560.9",
    "explained": "EXPLAIN PRAGMA max_page_count = 99999",
    "in a transaction": "BEGIN; PRAGMA max_page_count = 99999; COMMIT",
    "then growth": "PRAGMA max_page_count = 99999; INSERT INTO t VALUES(zeroblob(1000000))",
}
_MODES = ["OFF", "MEMORY", "PERSIST", "TRUNCATE", "DELETE", "'delete'", '"off"']
#: Pragmas that are not there at all, to be read or set.
_CLOSED = [
    "temp_store_directory = '/tmp'",
    "data_store_directory = '/tmp'",
    "lock_proxy_file = 'x'",
    "key = 'x'",
    "rekey = 'x'",
    "hexkey = '00'",
    "hexrekey = '00'",
    "textkey = 'x'",
    "textrekey = 'x'",
    "activate_extensions = 'see-x'",
    "vdbe_trace = 1",
    "vdbe_listing = 1",
    "vdbe_addoptrace = 1",
    "vdbe_debug = 1",
    "parser_trace = 1",
    "sql_trace = 1",
    "stats",
    "filename",
    "vfs_list",
    "lock_status",
    "default_cache_size = 1000000",
    "count_changes = 1",
    "empty_result_callbacks = 1",
    "full_column_names = 1",
    "short_column_names = 0",
    "incremental",
    "nosuch",
    "'max_page_count '",
    "fts5",
]

CASES: list[Case] = [
    *(
        refused("not_authorized", f"fixed, {name}", "move a wall", f"PRAGMA {name} = {value}")
        for name, value in _FIXED.items()
    ),
    *(
        refused("not_authorized", f"fixed in brackets, {name}", "move it by another spelling", sql)
        for name, value in _FIXED.items()
        for sql in [f"PRAGMA main.{name}({value})"]
    ),
    *(
        refused("not_authorized", f"cap, {name}", "lift the 10 MB", sql)
        for name, sql in _CAP.items()
    ),
    *(
        refused(
            "not_authorized", f"journal, {mode}", "leave the WAL", f"PRAGMA journal_mode={mode}"
        )
        for mode in _MODES
    ),
    *(
        refused("not_authorized", f"closed, {setting}", "hidden switches", f"PRAGMA {setting}")
        for setting in _CLOSED
    ),
    refused(
        "not_authorized",
        "page size and vacuum",
        "16 times the pages' size",
        "PRAGMA page_size = 65536; VACUUM",
    ),
    refused(
        "sql_error", "cap as a table", "set by a table", "SELECT * FROM pragma_max_page_count(9)"
    ),
    refused(
        "sql_error",
        "journal as a table",
        "set by a table",
        "SELECT * FROM pragma_journal_mode('off')",
    ),
    refused(
        "sql_error",
        "pragma of another schema",
        "an error that ends the cell",
        "PRAGMA nosuch.table_info(t)",
    ),
    refused(
        "sql_error",
        "schema by writable_schema of fts5",
        "a pragma inside a name",
        "CREATE VIRTUAL TABLE g USING fts5(a, content='pragma_writable_schema'); SELECT * FROM g",
    ),
    harmless(
        "what is fixed, as it is",
        "refuse what changes nothing",
        "PRAGMA foreign_keys=ON; PRAGMA journal_mode=WAL; PRAGMA max_page_count=2560",
        rows=[[2560]],
    ),
    harmless("cap read", "a wall that moved", "PRAGMA max_page_count", rows=[[2560]]),
    harmless("cap of temp read", "a wall that moved", "PRAGMA temp.max_page_count", rows=[[2560]]),
    harmless(
        "journal of temp", "another journal", "PRAGMA temp.journal_mode=wal", rows=[["memory"]]
    ),
    harmless("version, extreme", "overflow", f"PRAGMA user_version={1 << 63}; PRAGMA user_version"),
    harmless("analysis limit, extreme", "overflow", "PRAGMA analysis_limit=9223372036854775807"),
    harmless("optimize, every bit", "hidden modes", "PRAGMA optimize(-1)"),
    harmless("optimize, extreme", "overflow", "PRAGMA optimize(9223372036854775807)"),
    harmless("check, extreme", "overflow", "PRAGMA integrity_check(-1)", rows=[["ok"]]),
    harmless("incremental vacuum", "overflow", "PRAGMA incremental_vacuum(9223372036854775807)"),
    harmless("checkpoint", "empty the WAL", "PRAGMA wal_checkpoint(TRUNCATE)", rows=[[0, 0, 0]]),
    harmless("memory", "drop the caches", "PRAGMA shrink_memory"),
    refused(
        "sql_error",
        "read only for one call",
        "lock oneself out",
        "PRAGMA query_only=1; INSERT INTO t VALUES(1)",
    ),
    harmless(
        "what a call changed",
        "leave it to the next",
        "INSERT INTO t VALUES(4); SELECT 'a' LIKE 'A'",
        setup=("PRAGMA query_only=1", "PRAGMA case_sensitive_like=1"),
        rows=[[1]],
    ),
]
