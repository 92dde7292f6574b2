"""The turnstile: how often one client address may call and create.

Runs in: front desk. Moving windows of one minute by `limits`, in this process' memory or, when
several processes share the count, in Redis or Valkey.
"""

import asyncio
import logging
import math
import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.storage.memory import Entry
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError
from redis.asyncio import BlockingConnectionPool

from walkin.errors import Refused, busy
from walkin.settings import Settings

log = logging.getLogger("walkin.throttle")

#: How long a call waits for the shared count; then it is refused.
_STORE_S = 2.0
_CONNECTIONS = 32
#: The limits in `RateLimit` and `RateLimit-Policy` (IETF draft-ietf-httpapi-ratelimit-headers):
#: `q` in so many seconds `w`; `r` are left, and there is one more in `t` seconds. By name, the code
#: of whoever has had his share.
_NAMES = {"calls": "rate_limited", "creations": "creation_limited", "forks": "creation_limited"}
#: How often the clients that have not called for a minute are forgotten.
_SWEEP_S = 10.0
#: A clock that goes back by more than this was set.
_STEP_S = 1.0


class Throttle:
    """Three limits for each client; a limit of 0 is none."""

    def __init__(self, settings: Settings) -> None:
        store = settings.rate_limit_store
        storage = _shared(store.reveal()) if store else _Memory()
        self._limiter = MovingWindowRateLimiter(storage)
        shares = {
            "calls": settings.requests_per_min,
            "creations": settings.creations_per_min,
            "forks": settings.forks_per_min,
        }
        #: What `RateLimit-Policy` says of all answers, empty if there are no limits.
        self.policy = ", ".join(
            f'"{name}";q={most};w=60' for name, most in shares.items() if most
        ).encode()
        self._limits = {
            name: RateLimitItemPerMinute(most, namespace=name)
            for name, most in shares.items()
            if most
        }

    async def check(self) -> None:
        """Raise Refused (503) if the shared count does not answer."""
        try:
            async with asyncio.timeout(_STORE_S):
                if await self._limiter.storage.check():
                    return
        except (StorageError, TimeoutError) as cause:
            log.error("the rate limit store does not answer: %r", cause)
            raise busy(5) from cause
        raise busy(5)

    async def count_request(self, client: str, standing: list[bytes] | None = None) -> None:
        """Count a call. Raises Refused (429) when the client has had its share.

        What `RateLimit` is to say of the client is added to `standing`, whatever comes of it.
        """
        await self._count("calls", client, standing)

    async def count_creation(self, client: str, standing: list[bytes] | None = None) -> None:
        """Count a new database likewise."""
        await self._count("creations", client, standing)

    async def count_forks(
        self, client: str, count: int, standing: list[bytes] | None = None
    ) -> None:
        """Count so many copies of a database likewise, all of them or none."""
        await self._count("forks", client, standing, count)

    async def _count(
        self, name: str, client: str, standing: list[bytes] | None, amount: int = 1
    ) -> None:
        limit = self._limits.get(name)
        if limit is None:
            return
        try:
            async with asyncio.timeout(_STORE_S):
                is_within = await self._limiter.hit(limit, client, cost=amount)
                reset, left = await self._limiter.get_window_stats(limit, client)
        except (StorageError, TimeoutError) as cause:
            # Without the count nobody is let in: a limit that fails open is none.
            log.error("the rate limit store does not answer: %r", cause)
            raise busy(5) from cause
        # A store may round the time up.
        wait_s = min(limit.get_expiry(), max(1, math.ceil(reset - time.time())))
        if standing is not None:
            standing.append(f'"{name}";r={left};t={wait_s}'.encode())
        if is_within:
            return
        raise Refused(_NAMES[name], headers={"Retry-After": str(wait_s)})


class _Memory(MemoryStorage):
    """The count in this process' memory.

    The library's own way of forgetting goes over all clients again with every call, and through a
    thread with each of them: most of a core for a thousand clients.
    """

    _next_sweep = 0.0
    _latest = 0.0

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` calls if no more than `limit` are counted then; say whether they are."""
        now = time.time()
        if now < self._latest - _STEP_S:
            # The machine's clock was set back. What was counted lies in the future now and would
            # count for as long as the step was.
            self.events.clear()
            self._next_sweep = now
        self._latest = now
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_S
            self._forget(now)
        events = self.events.setdefault(key, [])  # the newest first
        if amount > limit:
            return False
        if len(events) > limit - amount and events[limit - amount].atime >= now - expiry:
            return False
        events[:0] = [Entry(expiry) for _ in range(amount)]
        del events[limit:]
        return True

    def _forget(self, now: float) -> None:
        gone = [key for key, events in self.events.items() if not events or events[0].expiry <= now]
        for key in gone:
            del self.events[key]


def _shared(address: str) -> RedisStorage:
    # A crowd waits for one of a few connections; the client's own pool would refuse it.
    pool = BlockingConnectionPool.from_url(
        address.replace("redis+unix", "unix", 1), max_connections=_CONNECTIONS, timeout=_STORE_S
    )
    return RedisStorage(
        "async+" + address,
        implementation="redispy",
        wrap_exceptions=True,
        key_prefix="walkin",
        connection_pool=pool,  # type: ignore[arg-type]
    )
