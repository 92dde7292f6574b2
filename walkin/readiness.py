"""Readiness: which parts of the node can do their work at this moment.

Runs in: front desk. /healthz says that the front desk is here; this says that a caller who comes
now gets a database. A load balancer asks it.
"""

import asyncio
import os
from pathlib import Path

from sandbox.errors import ZygoteGone
from walkin.errors import Refused
from walkin.status import Status
from walkin.throttle import Throttle

#: Room for a few databases that grow to their cap, and for the files of some hundred; on a small
#: disk a twentieth of it.
_LEAST_FREE_BYTES = 64 << 20
_LEAST_FREE_FILES = 1000
_LEAST_SHARE = 20
#: A reaper looks twice a second, and says so.
_REAPER_SILENT_S = 10.0
OK = "ok"


class Readiness:
    """What is asked of every part."""

    def __init__(self, status: Status, throttle: Throttle, data_dir: Path) -> None:
        self._status = status
        self._throttle = throttle
        self._data_dir = data_dir

    async def parts(self) -> dict[str, str]:
        """Return `ok` for each part, or why it is not ready."""
        (zygote, reaper), disk, limits = await asyncio.gather(
            self._node(), asyncio.to_thread(self.disk), self._limits()
        )
        return {"zygote": zygote, "reaper": reaper, "disk": disk, "rate_limit_store": limits}

    async def _node(self) -> tuple[str, str]:
        try:
            node = await self._status.node()
        except ZygoteGone:
            return "does not answer", "unknown without the zygote"
        silent_s = node["reaper_silent_s"]
        if silent_s is None or silent_s > _REAPER_SILENT_S:
            return OK, "has said nothing" + ("" if silent_s is None else f" for {silent_s:.0f} s")
        return OK, OK

    def disk(self) -> str:
        """Return `ok`, or why nothing can be written."""
        try:
            disk = os.statvfs(self._data_dir)
        except OSError as cause:
            return str(cause.strerror)
        if disk.f_flag & os.ST_RDONLY:
            return "is read-only"
        least = min(_LEAST_FREE_BYTES, disk.f_blocks * disk.f_frsize // _LEAST_SHARE)
        if disk.f_bavail * disk.f_frsize < least:
            return "is full"
        if disk.f_files and disk.f_favail < min(_LEAST_FREE_FILES, disk.f_files // _LEAST_SHARE):
            return "has no room for further files"
        return OK

    async def _limits(self) -> str:
        try:
            await self._throttle.check()
        except Refused:
            return "does not answer"
        return OK
