"""The promise: imports run one way, and no process has in memory what is not its business.

Each module is loaded in a fresh interpreter and what came with it is compared with the table.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.handles import ROOT

_FRONT = "walkin"
_CELL_SIDE = {
    "sandbox.nursery",
    "sandbox.proof",
    "sandbox.census",
    "sandbox.zygote",
    "sandbox.cell",
    "sandbox.jail",
    "sandbox.kernel",
    "sandbox.limits",
    "sandbox.gate",
    "sandbox.engine",
    "sandbox.porter",
    "sandbox.calls",
    "sandbox.parameters",
    "sandbox.tokens",
    "sandbox.statements",
    "sandbox.receipts",
    "sandbox.stats",
    "sandbox.plans",
    "sandbox.schema",
    "sandbox.encoders",
    "sandbox.rows",
    "sandbox.refusal",
    "sandbox.policy",
    "sandbox.blocklist",
    "sandbox.answers",
    "sandbox.leash",
}
_CLIENT_SIDE = [
    "blocking",
    "client",
    "control",
    "descriptors",
    "frames",
    "codes",
    "errors",
    "forms",
    "place",
    "settings",
]
_WEB = {"starlette", "uvicorn", "anyio", "itsdangerous", "limits", "redis", "click"}
_WALL = {"apsw", "landlockpy", "pyseccomp"}

#: For each module: what it must never bring along.
_NEVER = {
    **{
        f"sandbox.{name}": _WALL | _WEB | _CELL_SIDE | {"ctypes", "orjson", "walkin", "reaper"}
        for name in _CLIENT_SIDE
    },
    "sandbox.zygote": _WEB | {"walkin", "reaper"},
    "sandbox.__main__": _WEB | {"walkin", "reaper"},
    "reaper.__main__": _WALL | _WEB | _CELL_SIDE | {"walkin", "ctypes", "orjson", "asyncio"},
    **{
        f"walkin.{path.stem}": _WALL | _CELL_SIDE | {"reaper"}
        for path in sorted((ROOT / "walkin").glob("*.py"))
    },
}


def _loaded(module: str) -> set[str]:
    """Every module, and every package above it, that importing `module` leaves in memory."""
    code = f"import {module}, sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    names = done.stdout.split()
    return set(names) | {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("module", _NEVER)
def test_module_brings_nothing_it_must_not(module: str) -> None:
    assert _loaded(module) & _NEVER[module] == set()


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        (
            "apsw",
            ["engine", "failures", "gate", "intake", "porter", "sqlite", "statements", "stats"],
        ),
        ("ctypes", ["kernel"]),
        ("pyseccomp", ["kernel"]),
    ],
)
def test_only_these_modules_of_the_sandbox_import(library: str, homes: list[str]) -> None:
    users = [
        path.stem
        for path in sorted((ROOT / "sandbox").glob("*.py"))
        if f"import {library}" in path.read_text()
    ]
    assert users == homes


def test_packages_are_empty() -> None:
    for package in ("walkin", "sandbox", "reaper"):
        assert Path(ROOT / package / "__init__.py").read_text() == ""
