"""The bench: calls, run one after the other on one database, each with what it has asked for.

Runs in: cells. What a call does with its statements is in statements.py; what else is done with the
database than SQL, in porter.py.
"""

import contextlib

import apsw

from sandbox import blocklist, policy, receipts
from sandbox.answers import Answer
from sandbox.calls import Call
from sandbox.gate import READ_ONLY_RULES, RULES, Gate, by_number
from sandbox.refusal import Refusal
from sandbox.statements import Say, Statements

_VACUUM_RULES = by_number(policy.VACUUM_RULES)
_SCRIPT_RULES = by_number(policy.SCRIPT_RULES)
#: Members of a refusal that say nothing but what the caller has sent.
_OF_THE_TEXT = {"statement", "offset", "line", "column", "token", "sqlite_code", "set"}


class Engine:
    """Runs SQL behind a gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def run(self, call: Call, deadline: float, say: Say | None = None) -> Answer:
        """Run one call's statements and return its answer. Raises Refusal, and what `say` does.

        `deadline` is in seconds of time.monotonic(). Statements before one that fails stay done
        unless the call had opened a transaction. `say` takes what an answer in lines has already;
        without it an answer is one piece.
        """
        gate = self._gate
        gate.begin(deadline)
        keyword = blocklist.forbidden(call.sql)
        if keyword:
            raise Refusal("forbidden_keyword", keyword)
        if "\0" in call.sql:
            raise Refusal("sql_error", "the text has a NUL character")
        statements = Statements(gate.connection, call, deadline, gate.denials, gate.ours, say)
        is_vacuum = not call.readonly and policy.is_plain_vacuum(call.sql)
        if call.is_plain and not gate.keeps_receipts and not is_vacuum:
            return statements.run()
        with contextlib.ExitStack() as after:
            if is_vacuum:
                self._prepare_vacuum(after)
            self._prepare(call, after)
            if call.readonly:
                after.callback(setattr, gate, "is_explained", gate.is_explained)
                gate.is_explained = statements.is_explained
            if gate.keeps_receipts:
                statements.hides = lambda row: gate.sees_schema and receipts.shows(row)
            if call.tables is None:
                return statements.run()
            try:
                return statements.run()
            except Refusal as refusal:  # what would mend it may be in another table
                known = {
                    name: refusal.fields[name] for name in refusal.fields.keys() & _OF_THE_TEXT
                }
                raise Refusal(refusal.code, refusal.detail, **known) from None

    def run_script(self, text: bytes, deadline: float) -> Answer:
        """Run the statements of a long text, a dump perhaps. Raises Refusal as `run` does."""
        try:
            script = text.decode()
        except UnicodeDecodeError as error:
            raise Refusal("sql_error", f"the text is not UTF-8 at byte {error.start}") from None
        self._gate.require_whole()
        limit = self._gate.connection.limit
        # What SQLite writes for itself is not to be cut by a short script's length.
        limit(apsw.SQLITE_LIMIT_SQL_LENGTH, policy.LIMITS["SQL_LENGTH"] + len(text))
        self._gate.set_rules(_SCRIPT_RULES)
        try:
            return self.run(Call(script, is_plain=True), deadline)
        finally:
            self._gate.set_rules(RULES)
            limit(apsw.SQLITE_LIMIT_SQL_LENGTH, policy.LIMITS["SQL_LENGTH"])

    def _prepare_vacuum(self, after: contextlib.ExitStack) -> None:
        """Let VACUUM attach what it needs, until the call is over."""
        after.callback(self._gate.set_rules, RULES)
        self._gate.set_rules(_VACUUM_RULES)
        limit = self._gate.connection.limit
        after.callback(limit, apsw.SQLITE_LIMIT_ATTACHED, 0)
        limit(apsw.SQLITE_LIMIT_ATTACHED, 1)

    def _prepare(self, call: Call, after: contextlib.ExitStack) -> None:
        """Set up what only some calls need, and have it undone behind them."""
        gate = self._gate
        if call.key and not gate.keeps_receipts:
            self._make_receipts()
        if call.readonly:
            self._connect_rtrees()
            after.callback(gate.ours, "PRAGMA query_only=OFF")
            after.callback(gate.set_rules, RULES)
            gate.ours("PRAGMA query_only=ON")
            rules = READ_ONLY_RULES
            if call.tables is not None:
                rules = rules | by_number(policy.within(call.tables))
            gate.set_rules(rules)
        if call.readonly or gate.keeps_receipts:
            gate.sees_schema = False
            gate.prepare_anew()

    def _connect_rtrees(self) -> None:
        """Have R-Trees prepare the writes that each needs, though only to be read, before a gate.

        See rtreeSqlInit in SQLite's ext/rtree/rtree.c.
        """
        found = self._gate.ours(
            "SELECT name FROM sqlite_schema"
            " WHERE type = 'table' AND rootpage = 0 AND sql LIKE '%rtree%'"
        )
        for (name,) in found:
            with contextlib.suppress(apsw.Error):  # it is of another module, or broken
                self._gate.ours("SELECT count(*) FROM pragma_table_info(?)", name)

    def _make_receipts(self) -> None:
        """Make the table for receipts, under a name that SQLite keeps for its own."""
        switch = self._gate.connection.config
        switch(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        switch(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)
        try:
            self._gate.ours(receipts.MAKE)
        except apsw.FullError:
            raise Refusal("quota_exceeded") from None
        finally:
            switch(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0)
            switch(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        self._gate.keeps_receipts = True
