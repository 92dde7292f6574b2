"""Fixtures of the sandbox's tests: zygotes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.handles import open_folder
from tests.sandbox.handles import Zygote

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("sandbox", deadline=None)
hypothesis.settings.load_profile("sandbox")


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
