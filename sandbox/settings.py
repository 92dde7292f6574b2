"""Settings as rows, and the sandbox's own rows.

Runs in: every process; standard library only. Reading is pure: a mapping of strings goes in,
values or the list of every mistake come out. Units are in the names.
"""

import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.logs import FORMS

PREFIX = "WALKIN_"

#: Digits looked at: int() refuses text of thousands, and no bound here is as long as this.
_MOST_DIGITS = 18
#: The number above it means "no user" to the kernel.
_MOST_UID = (1 << 32) - 2


class SettingsError(Exception):
    """Raised with every mistake found, not only the first."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True)
class Row:
    """One setting: `WALKIN_TTL_S` is the row `ttl_s`, its flag is `--ttl-s`."""

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str
    #: A secret has no flag: every user of the machine may read a command line.
    secret: bool = False

    @property
    def variable(self) -> str:
        """The environment variable's name."""
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """The command-line flag's name."""
        return "--" + self.name.replace("_", "-")


def read(rows: tuple[Row, ...], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the value of every row. Raises SettingsError with all mistakes at once."""
    values: dict[str, Any] = {}
    mistakes: list[str] = []
    for row in rows:
        text = environ.get(row.variable, row.default)
        try:
            values[row.name] = row.parse(text)
        except ValueError as mistake:
            shown = "(hidden)" if row.secret else repr(text)
            mistakes.append(f"{row.variable}={shown}: {mistake}")
    if mistakes:
        raise SettingsError(mistakes)
    return values


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a parser for a whole number between two bounds."""

    def parse(text: str) -> int:
        digits = text.lstrip("0")[:_MOST_DIGITS] or "0"
        if not text.isascii() or not text.isdigit() or not least <= int(digits) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(digits)

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """Return a parser for one of a few words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be {' or '.join(words)}")
        return text

    return parse


def path(text: str) -> Path:
    """Return an absolute path."""
    if not text or "\0" in text:
        raise ValueError("must be a path")
    return Path(text).absolute()


def cells_by_memory(text: str) -> int:
    """Return the number given, or what a quarter of the machine's memory holds at 8 MiB each."""
    if text:
        return whole(1, 100_000)(text)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(8, min(4096, total // 4 // (8 << 20)))


@dataclass(frozen=True)
class User:
    """A system user by number, as setuid(2) wants it."""

    uid: int
    gid: int

    def become(self) -> None:
        """Make this process run as the user for good, in no group but its own (setresuid(2))."""
        if os.geteuid() != self.uid:
            os.setgroups([])
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)


def user(text: str) -> User:
    """Return the user that the zygote, its cells and the reaper run as.

    Only root can become another user: for anyone else it is the starting user. A number need not
    have an entry in the password file; then the group has the same number.
    """
    if os.geteuid() != 0:
        mine = User(os.geteuid(), os.getegid())
        if text and _look_up(text) != mine:
            raise ValueError("only root can run cells as another user")
        return mine
    found = _look_up(text or "nobody")
    if found.uid == 0:
        raise ValueError("cells must not run as root")
    return found


def another_user(text: str) -> User | None:
    """Return a user who runs a program of ours that we did not start, None if there is none."""
    return _look_up(text) if text else None


def _look_up(text: str) -> User:
    try:
        if text.isascii() and text.isdigit():
            try:
                entry = pwd.getpwuid(whole(0, _MOST_UID)(text))
            except KeyError:
                return User(*(whole(0, _MOST_UID)(text),) * 2)
        else:
            entry = pwd.getpwnam(text)
    except (KeyError, ValueError):
        raise ValueError("no such user") from None
    return User(entry.pw_uid, entry.pw_gid)


ROWS = (
    Row("data_dir", "./data", path, "instances, the control socket and the generated token key"),
    Row("cell_user", "", user, "user of zygote, cells and reaper when started as root (`nobody`)"),
    Row("front_user", "", another_user, "user of the front desk, where each program has its own"),
    Row("reaper_user", "", another_user, "user of the reaper, where each program has its own"),
    Row("max_live_cells", "", cells_by_memory, "live worker processes at once (by memory)"),
    Row("blank_cells", "8", whole(0, 256), "workers kept ready for the next database"),
    Row("cell_idle_s", "30", whole(1, 86_400), "an unused worker is given up after this time"),
    Row("max_life_s", "3600", whole(1, 86_400), "the longest life a database may be given"),
    Row("log_format", "text", one_of(*FORMS), "form of the log's lines: `text` or `json`"),
)


@dataclass(frozen=True)
class Settings:
    """What the zygote and the cells need to know."""

    data_dir: Path
    cell_user: User
    front_user: User | None
    reaper_user: User | None
    max_live_cells: int
    blank_cells: int
    cell_idle_s: int
    max_life_s: int
    log_format: str


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Return the sandbox's settings. Raises SettingsError with all mistakes at once."""
    return Settings(**read(ROWS, environ))
