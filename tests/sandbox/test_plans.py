"""Flat rows of a plan become a tree."""

from sandbox import plans


def test_steps_are_below_what_they_are_part_of() -> None:
    rows = [(2, 0, 0, "A"), (3, 2, 0, "B"), (5, 3, 0, "C"), (7, 2, 0, "D"), (9, 0, 0, "E")]
    assert plans.tree(rows) == [
        {
            "detail": "A",
            "children": [{"detail": "B", "children": [{"detail": "C"}]}, {"detail": "D"}],
        },
        {"detail": "E"},
    ]


def test_no_rows_are_no_steps() -> None:
    assert plans.tree([]) == []


def test_a_step_below_nothing_is_a_topmost_one() -> None:
    assert plans.tree([(4, 3, 0, "A")]) == [{"detail": "A"}]
