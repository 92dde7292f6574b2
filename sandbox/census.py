"""The census: how many databases are alive, without a look at any of them.

Runs in: the zygote. It is kept by the second of expiry, so it costs as much as a lifetime has
seconds, however many databases there are.
"""

from collections import Counter

from sandbox.place import Place


class Census:
    """Counts from what lies on disk at the start, then from what is made."""

    def __init__(self, place: Place) -> None:
        self._expiring = Counter(
            {second: len(place.turns(second)) for second in place.due_seconds(float("inf"))}
        )

    def add(self, second: int) -> None:
        """Note a database that expires at that Unix second."""
        self._expiring[second] += 1

    def move(self, before: int, after: int) -> None:
        """Note that a database expires at another second than was said."""
        self._expiring[before] -= 1
        self._expiring[after] += 1

    def forget(self, now: float) -> None:
        """Drop the seconds that have passed, at a cost that follows how many there are."""
        for second in [second for second in self._expiring if second <= now]:
            del self._expiring[second]

    def count(self, now: float) -> int:
        """Return how many have not expired at `now` (Unix seconds)."""
        self.forget(now)
        return self._expiring.total()
