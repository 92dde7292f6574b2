"""The crowd: the longest idle one makes room, no address takes it all, nobody is kept for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walkin.crowd import MOST_LONG_HEADS, MOST_UNREAD, Crowd, most_connections


class Caller:
    """A connection that remembers what became of it."""

    def __init__(self) -> None:
        self.end = ""

    def leave(self) -> None:
        self.end = "left"

    def drop(self) -> None:
        self.end = "dropped"


def callers(crowd: Crowd, count: int, address: str | None = None) -> list[Caller]:
    """Let so many in, each from an address of its own unless they share one."""
    made = [Caller() for _ in range(count)]
    for number, caller in enumerate(made):
        assert crowd.admit(caller, address or f"{id(made)}.{number}")
    return made


def left(callers: list[Caller]) -> list[int]:
    return [number for number, caller in enumerate(callers) if caller.end == "left"]


def test_up_to_the_bound_everybody_stays() -> None:
    crowd = Crowd(8)
    assert left(callers(crowd, 8)) == []
    assert len(crowd) == 8


def test_beyond_it_the_one_that_has_owed_a_request_for_longest_makes_room() -> None:
    crowd = Crowd(8)
    waiting = callers(crowd, 11)
    assert left(waiting) == [0, 1, 2]
    assert len(crowd) == 8


def test_a_request_in_work_is_never_given_up_for_a_newcomer() -> None:
    crowd = Crowd(8)
    before = callers(crowd, 8)
    for number in (0, 1, 3):
        crowd.works(before[number])
    callers(crowd, 2)
    assert left(before) == [2, 4]


def test_whoever_has_his_answer_is_at_the_end_of_the_line_again() -> None:
    crowd = Crowd(4)
    before = callers(crowd, 4)
    crowd.works(before[0])
    crowd.waits(before[0])
    callers(crowd, 3)
    assert left(before) == [1, 2, 3]


def test_a_newcomer_is_refused_only_where_every_request_is_in_work() -> None:
    crowd = Crowd(4)
    before = callers(crowd, 4)
    for caller in before:
        crowd.works(caller)
    assert not crowd.admit(Caller(), "203.0.113.9")
    assert len(crowd) == 4
    crowd.leave(before[0])
    assert crowd.admit(Caller(), "203.0.113.9")
    assert left(before) == []


def test_an_address_displaces_only_itself_beyond_its_quarter() -> None:
    crowd = Crowd(16)
    others = callers(crowd, 3)
    greedy = callers(crowd, 40, "203.0.113.9")
    assert left(others) == []
    assert left(greedy) == list(range(36))
    assert len(crowd) == 7


def test_an_address_with_its_quarter_in_work_is_refused_and_others_are_not() -> None:
    crowd = Crowd(16)
    for caller in callers(crowd, 4, "203.0.113.9"):
        crowd.works(caller)
    assert not crowd.admit(Caller(), "203.0.113.9")
    assert crowd.admit(Caller(), "203.0.113.10")


def test_one_that_speaks_for_many_may_have_them_all() -> None:
    crowd = Crowd(16)
    proxied = [Caller() for _ in range(16)]
    assert all(crowd.admit(caller, None) for caller in proxied)
    assert left(proxied) == []
    assert crowd.admit(Caller(), None)
    assert left(proxied) == [0]


def test_nothing_is_kept_of_those_who_left() -> None:
    crowd = Crowd(16)
    gone = callers(crowd, 10) + callers(crowd, 4, "203.0.113.9")
    crowd.works(gone[3])
    crowd.is_unread(gone[5])
    crowd.has_long_head(gone[6])
    for caller in gone:
        crowd.leave(caller)
        crowd.leave(caller)
    assert len(crowd) == 0
    assert not any((crowd._members, crowd._groups, crowd._waiting, crowd._unread))


def test_what_is_said_of_a_stranger_changes_nothing() -> None:
    crowd, stranger = Crowd(4), Caller()
    crowd.waits(stranger)
    crowd.works(stranger)
    crowd.is_unread(stranger)
    crowd.has_long_head(stranger)
    crowd.leave(stranger)
    callers(crowd, 5)
    assert stranger.end == ""


def test_of_those_who_read_nothing_the_longest_is_dropped() -> None:
    crowd = Crowd(1000)
    idle = callers(crowd, MOST_UNREAD + 3)
    for caller in idle[: MOST_UNREAD + 2]:
        crowd.is_unread(caller)
    assert [caller.end for caller in idle[:4]] == ["dropped", "dropped", "", ""]
    crowd.has_read(idle[2])
    crowd.is_unread(idle[-1])
    assert all(caller.end == "" for caller in idle[2:])


def test_of_those_whose_long_heads_do_not_end_the_longest_is_closed() -> None:
    crowd = Crowd(10_000)
    talking = callers(crowd, MOST_LONG_HEADS + 3)
    for caller in talking[: MOST_LONG_HEADS + 2]:
        crowd.has_long_head(caller)
    assert left(talking) == [0, 1]
    crowd.has_head(talking[2])
    crowd.has_long_head(talking[-1])
    crowd.has_long_head(talking[-1])
    assert left(talking) == [0, 1]


@given(
    st.integers(1, 12),
    st.lists(
        st.tuples(
            st.sampled_from(["admit", "leave", "waits", "works"]),
            st.integers(0, 9),
            st.sampled_from(["a", "b", None]),
        ),
        max_size=60,
    ),
)
def test_whatever_happens_the_count_stays_within_its_bounds(
    most: int, events: list[tuple[str, int, str | None]]
) -> None:
    crowd = Crowd(most)
    inside: dict[Caller, str | None] = {}
    for act, at, address in events:
        if act == "admit":
            caller = Caller()
            if crowd.admit(caller, address):
                inside[caller] = address
        elif inside:
            caller = list(inside)[at % len(inside)]
            getattr(crowd, act)(caller)
            if act == "leave":
                del inside[caller]
        inside = {caller: where for caller, where in inside.items() if not caller.end}
        assert len(crowd) == len(inside) <= most
        for name in ("a", "b"):
            assert list(inside.values()).count(name) <= max(1, most // 4)


@pytest.mark.parametrize(
    ("wanted", "descriptors", "cells", "most"),
    [
        (16_384, 1_048_576, 4096, 16_384),
        (16_384, 20_000, 1_000, 16_384),
        (16_384, 20_000, 4_096, 13_704),
        (16_384, 4_096, 4_096, 1_024),
        (100, 1_024, 8, 100),
    ],
)
def test_there_are_no_more_connections_than_the_descriptors_allow(
    wanted: int, descriptors: int, cells: int, most: int
) -> None:
    assert most_connections(wanted, descriptors, cells) == most
