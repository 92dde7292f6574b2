"""Rows, filled as the engine fills them."""

from collections.abc import Iterable

from sandbox.rows import Row, Rows


def taken(found: Iterable[Row], columns: list[str] | None = None) -> Rows:
    """Rows that were offered these, until they said that there is no more room."""
    rows = Rows(columns or [])
    for row in found:
        if not rows.add(row):
            break
    return rows
