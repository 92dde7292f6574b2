"""Who is calling: the client's address, through proxies that are trusted by address only.

Runs in: front desk. Pure functions.
"""

import functools
import ipaddress

from walkin.settings import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: One household or server commonly holds a whole /64 (RFC 6177), so that is what is counted.
_IPV6_PREFIX = 64
#: More proxies than that are in nobody's way; a header of 60 KB may name thousands.
_MOST_HOPS = 32


def client_address(peer: str, forwarded_for: str, trusted: tuple[Network, ...]) -> Address | None:
    """Return the address to hold responsible, None if the peer has none (a Unix socket).

    `X-Forwarded-For` grows to the right, and only what a trusted proxy appended is known to be
    true. So it is read from the right, for as long as each hop is trusted; the first that is not
    is the client. What does not parse ends the walk at the last hop that did.
    """
    address = _parse_peer(peer)
    if address is None:
        return None
    hops = forwarded_for.rsplit(",", _MOST_HOPS)[-_MOST_HOPS:] if forwarded_for and trusted else []
    while hops and _is_in(address, trusted):
        hop = _parse(hops.pop().strip())
        if hop is None:
            break
        address = hop
    return address


@functools.lru_cache(4096)
def rate_key(address: Address | None) -> str:
    """Return what is counted for an address: IPv4 as it is, IPv6 by its /64."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)


def connection_key(peer: str, trusted: tuple[Network, ...]) -> str | None:
    """Return what a peer's connections are counted by, None if it speaks for many."""
    address = _parse_peer(peer)
    if address is None or _is_in(address, trusted):
        return None
    return rate_key(address)


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _parse(text: str) -> Address | None:
    """Return an address from `1.2.3.4`, `1.2.3.4:567`, `::1` or `[::1]:567`."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


#: A peer's address comes from the kernel: short, and soon seen again.
_parse_peer = functools.lru_cache(4096)(_parse)
