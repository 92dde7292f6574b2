"""Fixtures of the sandbox's tests: walls, a cell's folder, a zygote, thrown-away children."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from sandbox import jail
from sandbox.engine import blank_database
from sandbox.jail import Walls
from tests.handles import open_folder
from tests.sandbox.handles import Child, Zygote, make_database_folder

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("sandbox", deadline=None)
hypothesis.settings.load_profile("sandbox")


@pytest.fixture(scope="session")
def walls() -> Walls:
    """What a zygote prepares once for all its cells."""
    return jail.prepare()


@pytest.fixture
def own(folder: Path) -> Path:
    """A database's folder, as its cell finds it."""
    return make_database_folder(folder / "own", blank_database())


@pytest.fixture
def start_child() -> Iterator[Callable[..., Child]]:
    """Start children that are gone when the test ends."""
    started: list[Child] = []

    def start(act: Callable[..., Any]) -> Child:
        child = Child(act)
        started.append(child)
        return child

    yield start
    for child in started:
        child.close()


@pytest.fixture
def start_zygote(folder: Path) -> Iterator[Callable[..., Zygote]]:
    """Start zygotes of one's own: `start_zygote(max_live_cells=2)`."""
    started: list[Zygote] = []

    def start(*, constants: dict[str, float] | None = None, **chosen: object) -> Zygote:
        data_dir = folder / f"data-{len(started)}"
        zygote = Zygote(data_dir, **{"blank_cells": 1, **chosen})
        started.append(zygote)
        return zygote.start() if constants is None else zygote.start_with(**constants)

    yield start
    for zygote in started:
        zygote.close()


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    """One zygote that the tests of a file share; they must not hurt it."""
    with open_folder() as made:
        one = Zygote(made / "data", blank_cells=2).start()
        try:
            yield one
        finally:
            one.close()
