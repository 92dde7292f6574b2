"""The sandbox's refusals.

Runs in: every process; standard library only.

    SandboxError
     ├─ FrameError        bytes on a line that break the wire's rules
     ├─ ControlError      a control message that breaks the control socket's rules
     ├─ InstanceMissing   no such database, or it has expired
     ├─ TooLong           it would live longer than a database may
     ├─ NoRoom            it would have more than a database may
     ├─ NoSuchState       nothing of that name is kept of it
     ├─ NotFolded         its cell has left something out of its file
     ├─ NodeBusy          no cell can be had right now; worth another try
     ├─ CellLost          the cell ended before its answer did
     ├─ CellTimeout       the cell did not answer within its time
     ├─ ZygoteGone        the zygote cannot be reached
     └─ WallError         a wall of the jail cannot be raised, or does not stand
"""


class SandboxError(Exception):
    """Root of everything this package raises on purpose."""


class FrameError(SandboxError):
    """Raised for bytes on a line that are not a frame we accept: fatal for that line."""


class ControlError(SandboxError):
    """Raised for a control message of the wrong size, operation or sender."""


class InstanceMissing(SandboxError):  # noqa: N818 - named for the state, not the class
    """Raised when the database does not exist or its expiry has passed."""


class TooLong(SandboxError):  # noqa: N818
    """Raised when a database would live longer than one may."""


class NoRoom(SandboxError):  # noqa: N818
    """Raised when a database and what is kept of it would be more than one may have."""


class NoSuchState(SandboxError):  # noqa: N818
    """Raised when nothing is kept of a database under that name."""


class NotFolded(SandboxError):  # noqa: N818
    """Raised when a cell has ended and not all of its database is in its file."""


class NodeBusy(SandboxError):  # noqa: N818
    """Raised when the node has no cell to give at the moment; the call was not begun."""


class CellLost(SandboxError):  # noqa: N818
    """Raised when a cell ended during a call; whether the call took effect is unknown."""


class CellTimeout(SandboxError):  # noqa: N818
    """Raised when a call outlived its clock; `cell_gone` says that its cell has ended already."""

    def __init__(self, message: str, *, cell_gone: bool = False) -> None:
        super().__init__(message)
        self.cell_gone = cell_gone


class ZygoteGone(SandboxError):  # noqa: N818
    """Raised when the zygote cannot be reached within the time allowed."""


class WallError(SandboxError):
    """Raised when a wall cannot be raised or does not stand, with the step and the reason."""
