"""The promise: a file that is damaged or names what is forbidden is not taken; a sound one is.

Files are looked at as a cell does, but in this process: the header, then SQLite, then inspection.
"""

import time
from typing import Any

import apsw
import pytest

from sandbox import inspection, policy
from tests.hostile import files

_MAGIC = b"SQLite format 3\0"
_MOST_BYTES = 10 << 20
_CLOCK_S = 2.0
_ACTIONS = {
    number: policy.RULES.get(str(name))
    for number, name in apsw.mapping_authorizer_function.items()
    if isinstance(number, int)
}


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    rule = _ACTIONS[action]
    return apsw.SQLITE_DENY if rule and rule(first, second) else apsw.SQLITE_OK


def _header(data: bytes) -> str | None:
    size = int.from_bytes(data[16:18], "big")
    size = 65536 if size == 1 else size
    if not data.startswith(_MAGIC) or not size or len(data) % size or not data:
        return "it is no SQLite database"
    return "it is too large" if len(data) > _MOST_BYTES else None


def _open(data: bytes) -> apsw.Connection:
    if data[18:20] == b"\x02\x02":  # a WAL is nothing that a database in memory could have
        data = data[:18] + b"\x01\x01" + data[20:]
    connection = apsw.Connection(":memory:")
    for switch, on in policy.SWITCHES.items():
        connection.config(getattr(apsw, f"SQLITE_DBCONFIG_{switch}"), on)
    connection.drop_modules(sorted(policy.MODULES))
    connection.deserialize("main", data)
    connection.execute("PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY")
    for limit, value in policy.LIMITS.items():
        connection.limit(getattr(apsw, f"SQLITE_LIMIT_{limit}"), value)
    connection.set_authorizer(_authorize)
    return connection


def _why_not(data: bytes) -> str | None:
    """Return why a file would be refused, or None."""
    wrong = _header(data)
    if wrong:
        return wrong
    heap = apsw.hard_heap_limit(policy.HEAP_BYTES)
    try:
        connection = _open(data)
        until = time.monotonic() + _CLOCK_S
        connection.set_progress_handler(lambda: time.monotonic() >= until, policy.PROGRESS_STEPS)

        def look(sql: str, *values: Any) -> list[tuple[Any, ...]]:
            if time.monotonic() >= until:
                raise apsw.InterruptError("interrupted")
            return connection.execute(sql, values, can_cache=False).fetchall()

        try:
            return inspection.inspect(look)
        finally:
            connection.close()
    except (apsw.Error, UnicodeError) as error:  # a name may be no UTF-8
        return f"{type(error).__name__}: {error}"
    finally:
        # Without a limit before, this process gets back the widest.
        apsw.hard_heap_limit(heap or 1 << 40)


def test_corpus_is_large_and_always_the_same() -> None:
    every = [make() for make in [*files.FILES.values(), *files.VALID.values()]]
    again = [make() for make in [*files.FILES.values(), *files.VALID.values()]]
    assert len(files.FILES) >= 60
    assert len(set(every)) == len(every)
    assert every == again
    assert files.FILES.keys() >= files.HARMLESS


@pytest.mark.parametrize("name", files.VALID)
def test_sound_file_is_taken(name: str) -> None:
    assert _why_not(files.VALID[name]()) is None


@pytest.mark.parametrize("name", sorted(files.FILES.keys() - files.HARMLESS))
def test_hostile_file_is_refused(name: str) -> None:
    begun = time.monotonic()
    assert _why_not(files.FILES[name]())
    # A statement that is only compiled comes to no clock, but none takes long.
    assert time.monotonic() - begun < _CLOCK_S + 3


@pytest.mark.parametrize("name", sorted(files.HARMLESS))
def test_harmless_file_is_one_that_sqlite_copes_with(name: str) -> None:
    assert _why_not(files.FILES[name]()) is None
