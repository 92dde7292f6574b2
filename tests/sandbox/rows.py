"""Rows, filled as the engine fills them."""

from collections.abc import Iterable

from sandbox.calls import Shape
from sandbox.encoders import Row
from sandbox.rows import Rows


def taken(
    found: Iterable[Row],
    columns: list[str] | None = None,
    shape: Shape = Shape(),  # noqa: B008
) -> Rows:
    """Rows that were offered these, until they said that there is no more room."""
    rows = Rows(columns or [], shape)
    for row in found:
        if not rows.add(row):
            break
    return rows
