"""The one table of error codes, and the one shape that errors have.

Runs in: front desk and cells; standard library only.

Statuses and the first words of `error` are the contract's.
"""

from typing import Any, NamedTuple


class Code(NamedTuple):
    """One row: `error` begins with `begins`."""

    name: str
    status: int
    begins: str
    when: str

    @property
    def retryable(self) -> bool:
        """Whether the same call may do better later."""
        return self.name in _RETRYABLE

    def body(self, detail: str, request_id: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Return an error body: the one shape that errors have, `fields` its further members."""
        return {
            "error": f"{self.begins}: {detail}" if detail else self.begins,
            "code": self.name,
            "retryable": self.retryable,
            "request_id": request_id,
            **fields,
        }


_RETRYABLE = frozenset({"body_timeout", "rate_limited", "creation_limited", "busy"})

CODES = {
    row.name: row
    for row in (
        Code("invalid_json", 400, "invalid json", "the body is not a JSON object"),
        Code("missing_sql", 400, "missing sql", "`sql` is absent, empty or not a string"),
        Code("unknown_field", 400, "unknown field", "the body has a member that is not known"),
        Code("invalid_option", 400, "invalid option", "a member of the body has a wrong value"),
        Code("invalid_args", 400, "invalid args", "`args` cannot be bound to the statement"),
        Code("invalid_rows", 400, "invalid rows", "the rows cannot be read; see `line`"),
        Code("invalid_database", 400, "invalid database", "the file is none, or not a sound one"),
        Code("forbidden_keyword", 400, "forbidden sql keyword", "the blocklist or the authorizer"),
        Code("read_only", 400, "invalid sql", "a read-only call would change something"),
        Code("not_authorized", 400, "invalid sql", "something that is kept fixed or closed"),
        Code("syntax_error", 400, "invalid sql", "it is not SQL; see `token`"),
        Code("unknown_table", 400, "invalid sql", "no such table, view, index or trigger"),
        Code("unknown_column", 400, "invalid sql", "no such column; see `suggestions`"),
        Code("unknown_function", 400, "invalid sql", "no such function; see `suggestions`"),
        Code("ambiguous_column", 400, "invalid sql", "several tables have a column of that name"),
        Code("already_exists", 400, "invalid sql", "what is to be made is there already"),
        Code("datatype_mismatch", 400, "invalid sql", "an integer is needed and this is none"),
        Code("constraint_failed", 400, "invalid sql", "see `constraint`"),
        Code("sql_error", 400, "invalid sql", "SQLite refused the statement otherwise"),
        Code("out_of_memory", 400, "invalid sql", "the query needs more memory than it may have"),
        Code("transaction_open", 400, "invalid sql", "the call ended between BEGIN and COMMIT"),
        Code("text_not_utf8", 400, "invalid sql", "a text value in the result is not UTF-8"),
        Code("token_too_narrow", 403, "token too narrow", "it is for reading, or for some tables"),
        Code("token_in_url", 403, "token in a url", "one for everything, where it may be seen"),
        Code("instance_not_found", 404, "instance not found", "the token is not one of ours"),
        Code("instance_expired", 404, "instance not found", "the token is ours, its time is over"),
        Code("unknown_checkpoint", 404, "checkpoint not found", "none of that name is kept"),
        Code("invalid_http", 400, "invalid http", "what arrived is not an HTTP/1.1 request"),
        Code("path_not_found", 404, "path not found", "no such path"),
        Code("method_not_allowed", 405, "method not allowed", "see `Allow`"),
        Code("not_acceptable", 406, "not acceptable", "`Accept` names no form that there is"),
        Code("key_reused", 409, "idempotency key reused", "the key was used for another call"),
        Code("query_timeout", 408, "query timed out", "the call outran its clock"),
        Code("body_timeout", 408, "request body timed out", "the body came too slowly"),
        Code("body_too_large", 413, "request body too large", "over 8,192 bytes; files: 10 MiB"),
        Code("content_type", 415, "content type must be application/json", "it is another"),
        Code("rate_limited", 429, "rate limit exceeded", "too many calls; see `Retry-After`"),
        Code(
            "creation_limited",
            429,
            "new-instance rate limit exceeded",
            "too many new databases; see `Retry-After`",
        ),
        Code("internal", 500, "internal error", "our fault; please report it"),
        Code("cell_lost", 500, "internal error", "the worker ended during the call"),
        Code("busy", 503, "server busy", "no worker is free; see `Retry-After`"),
        Code(
            "quota_exceeded",
            507,
            "instance storage quota exceeded",
            "the 10 MB are full, or there are 16 checkpoints",
        ),
    )
}

#: Every status a cell may answer with; anything else is the answer of a broken cell.
CELL_STATUSES = frozenset({200, 400, 408, 409, 413, 500, 507})
