"""Fixtures of the front desk's tests."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from tests.walkin.fakes import Clock, Run
from walkin import settings
from walkin.settings import Settings


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine, on the loop of the standard library and on the one that serves."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings with a data folder of the test's own: `make_settings(ttl_s=2)`."""

    def make(**chosen: object) -> Settings:
        environ = {f"WALKIN_{name.upper()}": str(value) for name, value in chosen.items()}
        return settings.from_environ({"WALKIN_DATA_DIR": str(tmp_path), **environ})

    return make


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The machine's clocks, in the test's hands."""
    began = time.time()
    clock = Clock(began)
    honest = time.clock_gettime
    monkeypatch.setattr(time, "time", clock)
    monkeypatch.setattr(time, "clock_gettime", lambda kind: honest(kind) + clock.now - began)
    return clock
