"""The promise: what README prints is what a newcomer gets, command by command."""

import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.handles import ROOT, Service

_PORT = 8080


def _examples() -> list[tuple[str, str]]:
    """Every command of README's console blocks with the output printed under it."""
    examples = []
    for block in re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = piece.splitlines()
            length = next(i for i, line in enumerate(lines) if not line.endswith("\\")) + 1
            examples.append(("\n".join(lines[:length]), "\n".join(lines[length:])))
    return examples


def _free_port() -> int:
    """8080 as printed; another one where somebody already serves on it."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", _PORT)) != 0:
            return _PORT
        probe.close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_every_command_answers_as_printed(
    make_service: Callable[..., Service], tmp_path: Path, tool: Callable[[str], str]
) -> None:
    tool("curl")
    port = _free_port()
    make_service(port=port, requests_per_min=60, creations_per_min=10)
    examples = _examples()
    assert len(examples) >= 4
    mark = "----"
    script = f"\necho {mark}\n".join(command for command, _ in examples)
    done = subprocess.run(
        ["bash", "-euc", script.replace(f":{_PORT}/", f":{port}/")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    # curl ends its output without a newline, so the mark may stand on the same line.
    printed = [piece.strip() for piece in done.stdout.split(mark)]
    assert printed == [output.strip() for _, output in examples]


def test_every_file_named_exists() -> None:
    text = (ROOT / "README.md").read_text() + (ROOT / "sandbox/README.md").read_text()
    named = set(re.findall(r"`((?:walkin|sandbox|reaper|tests)/[\w./]*)`", text))
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make (\w+)", (ROOT / "README.md").read_text()))
    assert {"serve", "test"} <= named
    assert named <= targets
