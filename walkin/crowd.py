"""The crowd: how many connections a front desk holds, and who makes room for a newcomer.

Runs in: front desk. One for each process.

Room is made by those who keep us waiting. A newcomer beyond the bound is let in, and the
connection that has owed us a whole request for longest is closed for it: an honest caller sends
his within milliseconds, so whoever holds connections open for their own sake displaces himself.
Turning the newcomer away would do the reverse: until their clocks ran out, idle connections would
shut out everybody else. Only where every connection has a request in work is a newcomer refused.

An address may have a quarter of the connections, so that one alone cannot displace the others. A
trusted proxy speaks for many and is not counted so.
"""

from collections import OrderedDict
from typing import Protocol

#: Of the answers that callers are not taking, so many are kept; each may be 1 MiB and the next.
MOST_UNREAD = 128
#: Of the heads that are long and not yet whole, so many are kept; each may be 64 KiB.
MOST_LONG_HEADS = 1024
_SHARE = 4
#: Descriptors besides connections and lines: files, the loop's own, and connections that are
#: closed while a burst of newcomers is let in (the backlog is 2,048).
_OTHER_DESCRIPTORS = 2200


class Member(Protocol):
    """What is counted: a connection."""

    def leave(self) -> None:
        """Close the connection once what is written has been sent."""

    def drop(self) -> None:
        """Close the connection at once."""


class _Group:
    """The connections of one address."""

    def __init__(self) -> None:
        self.size = 0
        self.waiting: OrderedDict[Member, None] = OrderedDict()


class Crowd:
    """The connections of one front desk."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_alike = max(1, most // _SHARE)
        self._groups: dict[str, _Group] = {}
        self._members: dict[Member, str | None] = {}
        #: Those who owe a whole request, the longest first.
        self._waiting: OrderedDict[Member, None] = OrderedDict()
        self._unread: OrderedDict[Member, None] = OrderedDict()
        self._long_heads: OrderedDict[Member, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._members)

    def admit(self, member: Member, address: str | None) -> bool:
        """Count a connection, None as address for one that speaks for many; say if there is room.

        Whoever makes room is closed.
        """
        group = None if address is None else self._groups.get(address)
        if group is not None and group.size >= self._most_alike:
            has_room = self._make_room(group.waiting)
        else:
            has_room = len(self._members) < self._most or self._make_room(self._waiting)
        if has_room:
            self._members[member] = address
            if address is not None:
                self._groups.setdefault(address, _Group()).size += 1
            self.waits(member)
        return has_room

    def leave(self, member: Member) -> None:
        """Forget a connection."""
        if member not in self._members:
            return
        self.works(member)
        self.has_read(member)
        self.has_head(member)
        address = self._members.pop(member)
        if address is not None:
            group = self._groups[address]
            group.size -= 1
            if not group.size:
                del self._groups[address]

    def waits(self, member: Member) -> None:
        """Note that it is the caller's turn: a request is to come."""
        if member in self._members:
            address = self._members[member]
            self._waiting[member] = None
            if address is not None:
                self._groups[address].waiting[member] = None

    def works(self, member: Member) -> None:
        """Note that it is our turn: a whole request is here."""
        if member in self._members:
            address = self._members[member]
            self._waiting.pop(member, None)
            if address is not None:
                self._groups[address].waiting.pop(member, None)

    def is_unread(self, member: Member) -> None:
        """Note that the caller does not take what was written; drop whom that is too many of."""
        if member in self._members:
            self._unread[member] = None
        if len(self._unread) > MOST_UNREAD:
            longest, _ = self._unread.popitem(last=False)
            longest.drop()

    def has_read(self, member: Member) -> None:
        """Note that the caller has taken what was written."""
        self._unread.pop(member, None)

    def has_long_head(self, member: Member) -> None:
        """Note that a head grows long before it is whole; close whom that is too many of."""
        if member in self._members:
            self._long_heads[member] = None
        if len(self._long_heads) > MOST_LONG_HEADS:
            longest, _ = self._long_heads.popitem(last=False)
            longest.leave()

    def has_head(self, member: Member) -> None:
        """Note that the head is whole."""
        self._long_heads.pop(member, None)

    def _make_room(self, waiting: OrderedDict[Member, None]) -> bool:
        if not waiting:
            return False
        longest = next(iter(waiting))
        self.leave(longest)
        longest.leave()
        return True


def most_connections(wanted: int, descriptors: int, cells: int) -> int:
    """Return how many connections there may be: as wanted, or what the descriptors allow.

    A front desk holds a line for each live cell besides.
    """
    return min(wanted, max(descriptors // 4, descriptors - cells - _OTHER_DESCRIPTORS))
