"""The query plan as a tree, from the flat rows in which SQLite tells it.

Runs in: cells. Standard library only. See https://www.sqlite.org/eqp.html.
"""

from typing import Any


def tree(rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Return the topmost steps, each with `detail` and the steps below it as `children`.

    `rows` are those of EXPLAIN QUERY PLAN: id, parent (0 for none), unused, detail.
    """
    top: list[dict[str, Any]] = []
    steps: dict[int, dict[str, Any]] = {}
    for number, parent, _, detail in rows:
        steps[number] = {"detail": detail}
        above = steps.get(parent)
        (top if above is None else above.setdefault("children", [])).append(steps[number])
    return top
