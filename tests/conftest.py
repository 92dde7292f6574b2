"""Fixtures, and a header that says on what the tests ran."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
import schemathesis

from sandbox import jail, kernel
from sandbox.jail import Walls
from sandbox.sqlite import blank_database
from tests.handles import CI, Client, Service, open_folder
from tests.sandbox.handles import Child, make_database_folder


@schemathesis.serializer(
    "application/vnd.sqlite3",
    "application/sql",
    "text/tab-separated-values",
    "application/x-ndjson",
)
def _as_it_is(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """A body that is no JSON goes out as it was made."""
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


def pytest_report_header() -> str:
    return (
        f"kernel {os.uname().release}, Landlock ABI {kernel.landlock_abi()}, "
        f"SQLite {apsw.sqlite_lib_version()}, apsw {apsw.apsw_version()}, uid {os.geteuid()}"
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the cells' user can reach."""
    with open_folder() as made:
        yield made


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """One service without rate limits that tests share; they must not hurt it."""
    with open_folder() as made:
        started = Service(made).start()
        yield started
        assert started.stop() == 0, started.log()


@pytest.fixture
def client(service: Service) -> Client:
    """A new caller of the shared service, without a database yet."""
    return service.client()


@pytest.fixture
def make_service() -> Iterator[Callable[..., Service]]:
    """Start services of one's own: `make_service(ttl_s=2)`."""
    started: list[Service] = []
    with open_folder() as made:

        def make(**settings: object) -> Service:
            data_dir = made / str(len(started))
            data_dir.mkdir(mode=0o755)
            one = Service(data_dir, **settings)
            started.append(one)
            return one.start()

        yield make
        for one in started:
            if one.process is not None:
                one.stop()


@pytest.fixture
def tool() -> Callable[[str], str]:
    """The path of a system program; without it the test is skipped, in CI it fails."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            (pytest.fail if CI else pytest.skip)(f"{name} is not installed (see .ci/run)")
        return path

    return find


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
