"""The window: what anyone may know of this node, and nothing of who uses it.

Runs in: front desk. The answer is the zygote's own word on walls, cells and databases. It is asked
at most once a second, whoever looks and however often, so looking costs no budget.
"""

import asyncio
import platform
import time
from importlib.metadata import version
from typing import Any

import orjson

from sandbox.client import AsyncClient

_FRESH_S = 1.0


class Status:
    """The latest answer, and how to get a newer one."""

    def __init__(self, zygote: AsyncClient) -> None:
        self._zygote = zygote
        self._own = {"walkin": version("walkin"), "python": platform.python_version()}
        self._asking: asyncio.Task[None] | None = None
        self._node: dict[str, Any] = {}
        self._until = 0.0

    async def read(self) -> bytes:
        """Return what anyone may know as JSON, at most a second old. Raises ZygoteGone."""
        return orjson.dumps(self._show(await self.node()))

    async def node(self) -> dict[str, Any]:
        """Return all that the zygote says of itself, at most a second old. Raises ZygoteGone."""
        if time.monotonic() >= self._until:
            # Whoever looks while it is being asked waits for the same word, or fails with it.
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask())
            await asyncio.shield(self._asking)
        return self._node

    async def _ask(self) -> None:
        try:
            self._node = await self._zygote.ask_status()
            self._until = time.monotonic() + _FRESH_S
        finally:
            self._asking = None

    def _show(self, node: dict[str, Any]) -> dict[str, Any]:
        return {
            "status": "ok",
            "walls": node["walls"],
            "cells": {
                "live": node["live_cells"],
                "blank": node["blank_cells"],
                "most": node["max_live_cells"],
                "died": node["cell_deaths"],
            },
            "instances": node["instances"],
            "versions": self._own | node["versions"],
        }
