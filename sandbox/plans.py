"""The query plan as a tree, from the flat rows in which SQLite tells it.

Runs in: cells. Standard library only. See https://www.sqlite.org/eqp.html.
"""

from typing import Any

_DEEPEST = 50


def tree(rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Return the topmost steps, each with `detail` and the steps below it as `children`.

    `rows` are those of EXPLAIN QUERY PLAN: id, parent (0 for none), unused, detail.
    """
    top: list[dict[str, Any]] = []
    steps: dict[int, tuple[int, dict[str, Any]]] = {}
    for number, parent, _, detail in rows:
        step: dict[str, Any] = {"detail": detail}
        if parent not in steps:
            top.append(step)
            steps[number] = (1, step)
            continue
        depth, above = steps[parent]
        above.setdefault("children", []).append(step)
        # What is deeper than a reader of JSON bears hangs on the last step that is not.
        steps[number] = (depth, above) if depth >= _DEEPEST else (depth + 1, step)
    return top
