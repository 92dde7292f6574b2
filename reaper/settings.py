"""The reaper's knobs: where the databases lie and whom to be.

Runs in: the reaper. The rows are the sandbox's own; the reaper adds none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox import settings
from sandbox.settings import User

#: Seconds between two sweeps: well below the 5 s within which an expired database is gone.
SWEEP_S = 0.5

_NEEDED = ("data_dir", "cell_user", "log_format")


@dataclass(frozen=True)
class Settings:
    """What the reaper needs to know."""

    data_dir: Path
    cell_user: User
    log_format: str


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Return the reaper's settings. Raises sandbox.settings.SettingsError."""
    rows = tuple(row for row in settings.ROWS if row.name in _NEEDED)
    return Settings(**settings.read(rows, environ))
