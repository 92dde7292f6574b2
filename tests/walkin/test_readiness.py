"""Readiness: each part by itself, and what is wrong with it in words."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.walkin.fakes import FakeStatus
from walkin.errors import busy
from walkin.readiness import Readiness
from walkin.settings import Settings

NODE = {"reaper_silent_s": 0.4}
WELL = {"zygote": "ok", "reaper": "ok", "disk": "ok", "rate_limit_store": "ok"}


class FakeThrottle:
    def __init__(self, *, answers: bool) -> None:
        self._answers = answers

    async def check(self) -> None:
        if not self._answers:
            raise busy(5)


@pytest.fixture
def parts(make_settings: Callable[..., Settings]) -> Callable[..., dict[str, str]]:
    settings = make_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)

    def ask(node: dict[str, Any] | None = NODE, *, store: bool = True) -> dict[str, str]:
        throttle = FakeThrottle(answers=store)
        readiness = Readiness(FakeStatus(node), throttle, settings.data_dir)  # type: ignore[arg-type]
        return asyncio.run(readiness.parts())

    return ask


def full(**changes: int) -> Callable[[object], object]:
    """What statvfs(3) says, but for some fields."""

    class Disk:
        f_flag = 0
        f_blocks = 1 << 22
        f_bavail = 1 << 20
        f_frsize = 4096
        f_files = 1 << 20
        f_favail = 1 << 19

    for name, value in changes.items():
        setattr(Disk, name, value)
    return lambda _: Disk


def test_all_is_well(parts: Callable[..., dict[str, str]]) -> None:
    assert parts() == WELL


def test_without_a_zygote_nothing_is_known_of_the_reaper(
    parts: Callable[..., dict[str, str]],
) -> None:
    found = parts(None)
    assert found == WELL | {"zygote": "does not answer", "reaper": "unknown without the zygote"}


@pytest.mark.parametrize(
    ("silent_s", "words"),
    [(None, "has said nothing"), (9.9, "ok"), (10.1, "has said nothing for 10 s")],
)
def test_a_reaper_has_to_speak(
    parts: Callable[..., dict[str, str]], silent_s: float | None, words: str
) -> None:
    assert parts({"reaper_silent_s": silent_s})["reaper"] == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"f_flag": os.ST_RDONLY}, "is read-only"),
        ({"f_bavail": 1000}, "is full"),
        ({"f_blocks": 20_000, "f_bavail": 1001}, "ok"),
        ({"f_blocks": 20_000, "f_bavail": 999}, "is full"),
        ({"f_favail": 10}, "has no room for further files"),
        # A file system that makes them as they are needed says that it has none.
        ({"f_files": 0, "f_favail": 0}, "ok"),
    ],
)
def test_a_disk_has_to_have_room(
    parts: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, int],
    words: str,
) -> None:
    monkeypatch.setattr(os, "statvfs", full(**changes))
    assert parts()["disk"] == words


def test_a_disk_that_is_gone_is_told(
    parts: Callable[..., dict[str, str]], make_settings: Callable[..., Settings]
) -> None:
    make_settings().data_dir.rmdir()
    assert parts()["disk"] == "No such file or directory"


def test_a_store_of_limits_has_to_answer(parts: Callable[..., dict[str, str]]) -> None:
    assert parts(store=False)["rate_limit_store"] == "does not answer"
