"""What a call cost: counted by SQLite for each statement, added up.

Runs in: cells. See https://www.sqlite.org/c3ref/c_stmtstatus_counter.html.
"""

import re
from collections import Counter
from typing import Any

import apsw

from sandbox.ours import Ours

#: Statements whose plan is looked at for full scans; a call may have hundreds.
_PLANS_MOST = 20
_COUNTERS = {
    "rows_scanned": "SQLITE_STMTSTATUS_FULLSCAN_STEP",
    "vm_steps": "SQLITE_STMTSTATUS_VM_STEP",
    "sorts": "SQLITE_STMTSTATUS_SORT",
    "automatic_indexes": "SQLITE_STMTSTATUS_AUTOINDEX",
}
#: How a plan tells of rows that are no table's.
_NO_TABLE = re.compile("SCAN ([0-9]+ )?CONSTANT ROWS?|SCAN [0-9]+-ROW VALUES CLAUSE")


class Stats:
    """Counts from its making on, until it is asked."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._counts: Counter[str] = Counter()
        self._texts: set[str] = set()
        apsw.status(apsw.SQLITE_STATUS_MEMORY_USED, True)
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._note)

    def _note(self, event: dict[str, Any]) -> None:
        """Called by SQLite at the end of each statement, those of an FTS5 table's own included."""
        for name, counter in _COUNTERS.items():
            self._counts[name] += event["stmt_status"][counter]
        if len(self._texts) < _PLANS_MOST:
            self._texts.add(event["sql"])

    def end(self, ours: Ours) -> dict[str, int]:
        """Stop counting; return rows and steps as numbers, memory as the most at once in bytes.

        `full_scans` is how many tables were read from end to end, by the plans of the statements.
        """
        self._connection.trace_v2(0, None)
        _, most = apsw.status(apsw.SQLITE_STATUS_MEMORY_USED)
        scans = sum(_full_scans(ours, text) for text in sorted(self._texts))
        counts = {name: self._counts[name] for name in _COUNTERS}
        return counts | {"full_scans": scans, "memory_bytes": most}


def _full_scans(ours: Ours, text: str) -> int:
    try:
        plan = ours("EXPLAIN QUERY PLAN " + text)
    except apsw.Error:  # it explains itself already, or what it used is gone
        return 0
    details = [detail for *_, detail in plan if detail.startswith("SCAN ")]
    return sum(not _NO_TABLE.fullmatch(detail) for detail in details)
