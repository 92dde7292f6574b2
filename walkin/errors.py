"""The complaints book: the front desk's own refusals, all in the one error shape.

Runs in: front desk. Codes, statuses, first words and the shape come from sandbox.codes; a cell
writes its own error bodies from there too.
"""

from collections.abc import Mapping
from typing import Any

from sandbox.codes import CODES


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """Raised anywhere in the front desk to end a request with a row of the table.

    `detail` follows the row's first words, `headers` go out with the answer, `fields` are further
    members of the body.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(code, detail)
        self.row = CODES[code]
        self.detail = detail
        self.headers = dict(headers or {})
        self.fields = fields

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the error body."""
        return self.row.body(self.detail, request_id, self.fields)


def busy(retry_after_s: int = 1) -> Refused:
    """Return the 503 that says when to come back (seconds)."""
    return Refused("busy", headers={"Retry-After": str(retry_after_s)})
