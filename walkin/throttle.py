"""The turnstile: how often one client address may call and create.

Runs in: front desk. Moving windows of one minute by `limits`, in this process' memory or, when
several processes share the count, in Redis or Valkey.
"""

import logging
import math
import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError

from walkin.errors import Refused, busy
from walkin.settings import Settings

log = logging.getLogger("walkin.throttle")


class Throttle:
    """Two limits for each client; a limit of 0 is none."""

    def __init__(self, settings: Settings) -> None:
        store = settings.rate_limit_store
        self._limiter = MovingWindowRateLimiter(
            RedisStorage(
                "async+" + store.reveal(),
                implementation="redispy",
                wrap_exceptions=True,
                key_prefix="walkin",
            )
            if store
            else MemoryStorage()
        )
        self._limits = {
            code: RateLimitItemPerMinute(most, namespace=code)
            for code, most in (
                ("rate_limited", settings.requests_per_min),
                ("creation_limited", settings.creations_per_min),
            )
            if most
        }

    async def count_request(self, client: str) -> None:
        """Count a call. Raises Refused (429) when the client has had its share."""
        await self._count("rate_limited", client)

    async def count_creation(self, client: str) -> None:
        """Count a new database. Raises Refused (429) when the client has had its share."""
        await self._count("creation_limited", client)

    async def _count(self, code: str, client: str) -> None:
        limit = self._limits.get(code)
        if limit is None:
            return
        try:
            if await self._limiter.hit(limit, client):
                return
            reset, _ = await self._limiter.get_window_stats(limit, client)
        except StorageError as cause:
            # Without the count nobody is let in: a limit that fails open is none.
            log.error("the rate limit store does not answer: %s", cause)
            raise busy(5) from cause
        wait_s = max(1, math.ceil(reset - time.time()))
        raise Refused(code, headers={"Retry-After": str(wait_s)})
