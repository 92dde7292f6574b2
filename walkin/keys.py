"""The token keys: from a setting, from a file, or made once and kept in the data folder.

Runs in: front desk, supervisor. Keys never leave these two: the supervisor does not hand them to
the zygote or the reaper, and the file it makes is readable by its own user alone.
"""

import os
import secrets
import stat
import tempfile
from pathlib import Path

from walkin.settings import Secret, Settings, parse_keys

FILE_NAME = "token-keys"


class KeysError(Exception):
    """Raised when the keys cannot be had, saying why and what would help."""


def load(settings: Settings) -> tuple[Secret, ...]:
    """Return the keys, oldest to newest. Raises KeysError.

    A generated file that other users can read is refused; a file named by the setting is the
    operator's own to guard.
    """
    if settings.token_keys:
        return settings.token_keys
    file = settings.token_keys_file or settings.data_dir / FILE_NAME
    try:
        if settings.token_keys_file is None and stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise KeysError(f"{file} can be read by other users: set its mode to 0600")
        keys = parse_keys(file.read_text("ascii"), "\n")
    except (OSError, ValueError) as cause:
        raise KeysError(f"{file}: {cause}") from cause
    if not keys:
        raise KeysError(f"{file} has no key in it")
    return keys


def ensure(settings: Settings) -> None:
    """Make the key file if the settings name neither keys nor a file and there is none yet."""
    if settings.token_keys or settings.token_keys_file:
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    file = settings.data_dir / FILE_NAME
    if file.exists():
        return
    # Written whole under another name first (mode 0600, mkstemp(3)): a crash leaves no half a key.
    fd, part = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=settings.data_dir)
    with os.fdopen(fd, "w") as text:
        text.write(secrets.token_urlsafe(48) + "\n")
        text.flush()
        os.fsync(fd)
    try:
        os.link(part, file)
    except FileExistsError:
        return
    finally:
        Path(part).unlink()
