"""A call's way through its statements, one after the other, and where it was when one failed.

Runs in: cells. What a statement may do is not decided here: gate.py has that.
"""

import time
from collections.abc import Callable
from typing import Any

import apsw

from sandbox import answers, failures, parameters, plans, policy, receipts, tokens
from sandbox.answers import Answer, Result
from sandbox.calls import Bindings, Call
from sandbox.failures import Where
from sandbox.forms import Form
from sandbox.frames import MAX_ANSWER_BYTES
from sandbox.ours import Ours
from sandbox.refusal import Refusal
from sandbox.rows import Rows
from sandbox.stats import Stats

_COUNTED = frozenset({"INSERT", "REPLACE", "UPDATE", "DELETE", "WITH"})
#: How long rows are counted on that an answer has no room for.
_COUNT_S = 0.05
#: sqlite3_stmt_explain()'s number for EXPLAIN QUERY PLAN.
_QUERY_PLAN = 2

#: Takes a piece of an answer that goes on.
Say = Callable[[bytes], None]


class Statements:
    """One call's statements: what came back, what changed, where it stands."""

    def __init__(
        self,
        connection: apsw.Connection,
        call: Call,
        deadline: float,
        denials: list[policy.Denial],
        ours: Ours,
        say: Say | None,
    ) -> None:
        self._connection = connection
        self._call = call
        self._deadline = deadline
        self._denials = denials
        self._ours = ours
        self._say = say
        #: The call is one transaction: its caller wants it so, or its sets or its key need it.
        self._is_one = not call.is_plain and (
            call.atomic or call.many is not None or bool(call.key)
        )
        #: Says which rows the caller is not to see; None: none.
        self.hides: Callable[[tuple[Any, ...]], bool] | None = None
        self._has_begun = False
        self._cursor = connection.cursor()
        self._cursor.exec_trace = self._begin_statement
        self._statement = -1
        self._is_open = False
        self._text = ""
        self._at = 0
        self._next_at = 0
        self._set = -1
        self._changes_before = 0
        #: Of the statement in work; of the last that returned columns.
        self._current: Rows | None = None
        self._rows: Rows | None = None
        self._affected = 0
        self._results: list[Result] = []
        self._held = 0
        self._plans: list[list[tuple[Any, ...]]] = []
        #: What is bound at the moment.
        self._values: Bindings | None = None

    def is_explained(self) -> bool:
        """Say whether the statement that is being prepared only tells how it would be run."""
        next_text = self._call.sql[self._next_at :]
        return self._call.explain or tokens.first_word(next_text) == "EXPLAIN"

    def run(self) -> Answer:
        """Run the statements and return the body of a 200. Raises Refusal."""
        try:
            try:
                answer = self._run()
            except (apsw.Error, KeyError, MemoryError, UnicodeDecodeError) as error:
                raise failures.refusal(error, self._where()) from None
        except Refusal as refusal:
            if self._connection.in_transaction or self._has_begun:
                refusal.fields["rolled_back"] = True
            raise
        finally:
            if self._call.stats:
                self._connection.trace_v2(0, None)
            self._cursor.close(force=True)
            was_open = self._connection.in_transaction
            if was_open:
                self._ours("ROLLBACK")
        if was_open:
            raise Refusal(
                "transaction_open",
                "the call ended inside a transaction, which was rolled back",
                hint="put BEGIN and COMMIT into one call",
                rolled_back=True,
            )
        return answer

    def _run(self) -> Answer:
        call = self._call
        if call.is_plain:
            self._set = 0
            self._collect(call.args)
            return self._answer({})
        if call.explain:
            return self._run_explained()
        if call.key and (kept := receipts.find(self._ours, call)):
            return kept
        if self._is_one:
            self._ours("BEGIN")
            self._has_begun = True
        stats = Stats(self._connection) if call.stats else None
        for values in [call.args] if call.many is None else call.many:
            self._set += 1
            self._collect(values)
        more = {"stats": stats.end(self._ours)} if stats else {}
        answer = self._answer(more)
        if call.key:
            receipts.keep(self._ours, call, answer)
        if self._is_one:
            self._ours("COMMIT")
        return answer

    def _run_explained(self) -> Answer:
        call = self._call
        self._check_names(call.args)
        for row in self._cursor.execute(call.sql, call.args, explain=_QUERY_PLAN):
            self._plans[-1].append(row)
        return Answer(answers.encode_plans([plans.tree(rows) for rows in self._plans]))

    def _check_names(self, values: Bindings | None) -> None:
        self._values = values
        if isinstance(values, dict):
            try:
                parameters.check_names(self._call.sql, values)
            except Refusal as refusal:
                if self._call.many is not None:
                    refusal.fields["set"] = self._set
                raise

    def _answer(self, more: dict[str, Any]) -> Answer:
        shape = self._call.shape
        if self._call.each:
            return answers.encode_each(self._results, budgeted=shape.budgeted, **more)
        rows = self._rows
        if shape.form is Form.JSON:
            result = Result(rows, self._affected, total=_total(rows))
            body = answers.encode_result(result, budgeted=shape.budgeted, **more)
            return Answer(body, answers.marks(rows))
        if rows is None:  # what has rows and nothing else has one then: what was changed
            rows = Rows(["rows_affected"], shape)
            rows.add((self._affected,))
        return answers.encode_lines(Result(rows, self._affected, total=_total(rows)), shape.form)

    def _collect(self, values: Bindings | None) -> None:
        if self._set:  # the same statement with other values
            self._statement, self._next_at = -1, 0
        self._check_names(values)
        for row in self._cursor.execute(self._call.sql, values):
            rows = self._current
            if rows is None or (self.hides and self.hides(row)):
                continue
            if rows.cut:
                rows.taken += 1
                continue
            # A read that nothing follows need not be run to its end; anything else must be.
            if not rows.add(row) and self._cursor.is_readonly and self._is_last():
                rows.is_counted = self._call.shape.budgeted and self._count_on(rows)
                break
        if self._is_open:
            self._end_statement()

    def _count_on(self, rows: Rows) -> bool:
        """Count the rows that there is no room for; say whether that was soon done."""
        give_up = min(time.monotonic() + _COUNT_S, self._deadline)
        for row in self._cursor:
            rows.taken += not (self.hides and self.hides(row))
            if time.monotonic() > give_up:
                return False
        return True

    def _is_last(self) -> bool:
        return tokens.is_blank(self._call.sql, self._next_at)

    def _begin_statement(self, cursor: apsw.Cursor, text: str, _: Any) -> bool:
        """Called by apsw before each statement with its piece of the call's SQL."""
        if self._is_open:
            self._end_statement()
        if time.monotonic() >= self._deadline:
            raise apsw.InterruptError("interrupted")
        # A comment, or a semicolon behind another.
        if not text.lstrip()[:1].isalpha() and tokens.is_blank(text, 0):
            self._next_at += len(text)
            return True
        self._statement += 1
        self._text = text
        self._at = self._next_at
        self._next_at += len(text)
        if not self._call.is_plain:
            self._check_statement(cursor, text)
            if self._call.explain:
                self._plans.append([])
                return True
        self._is_open = True
        self._changes_before = self._connection.total_changes()
        columns = cursor.get_description()
        # ALTER TABLE ... ADD CONSTRAINT shows the column of a query of SQLite's own.
        if not columns or (self._set and self._rows):
            return True
        if cursor.is_readonly or tokens.first_word(text) != "ALTER":
            self._rows = self._current = self._make_rows([name for name, *_ in columns], cursor)
        return True

    def _check_statement(self, cursor: apsw.Cursor, text: str) -> None:
        """Raise Refusal if the call's options do not let it have this statement."""
        if self._call.many is not None and self._statement:
            raise Refusal("invalid_option", "`many` runs one statement, and here is a second")
        ended = self._has_begun and not self._connection.in_transaction
        if self._is_one and (ended or policy.ends_a_transaction(text)):
            raise Refusal(*policy.ALL_ONE, statement=self._statement)
        # SQLite's own word, whatever the authorizer made of the text.
        if self._call.readonly and not (cursor.is_readonly or cursor.is_explain):
            raise Refusal("read_only", "the call is read-only", statement=self._statement)

    def _make_rows(self, names: list[str], cursor: apsw.Cursor) -> Rows:
        shape = self._call.shape
        is_sent_as_it_comes = (
            self._say is not None
            and not (shape.budgeted or self._is_one)
            and cursor.is_readonly
            and self._is_last()
        )
        say = self._say if is_sent_as_it_comes else None
        return Rows(names, shape, explained=bool(cursor.is_explain), say=say)

    def _end_statement(self) -> None:
        """Count what the statement in work has changed, and put its result aside."""
        self._is_open = False
        affected = 0
        # changes() keeps its value over statements that change nothing, total_changes() counts
        # triggers and shadow tables too; together, and by the first word, they tell.
        if (
            self._connection.total_changes() != self._changes_before
            and tokens.first_word(self._text) in _COUNTED
        ):
            affected = self._connection.changes()
        self._affected += affected
        if self._call.each:
            self._held += self._current.size if self._current else 0
            if self._held > MAX_ANSWER_BYTES:
                raise Refusal("sql_error", "the results together are too long for an answer")
            makes_rows = affected and tokens.verb(self._text) in ("INSERT", "REPLACE")
            rowid = self._connection.last_insert_rowid() if makes_rows else None
            self._results.append(Result(self._current, affected, rowid, _total(self._current)))
        if self._call.many is None:
            self._current = None

    def _where(self) -> Where:
        return Where(
            self._connection,
            self._call,
            next(iter(self._denials), None),
            self._ours,
            self._statement,
            self._text,
            self._at,
            self._next_at,
            self._set,
            self._values,
        )


def _total(rows: Rows | None) -> int | None:
    """Return how many rows a statement had, kept or not, where they were all counted."""
    return rows.taken if rows and rows.is_counted else None
