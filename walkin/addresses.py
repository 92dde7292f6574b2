"""Who is calling: the client's address, through proxies that are trusted by address only.

Runs in: front desk. Pure functions.
"""

import ipaddress

from walkin.settings import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: One household or server commonly holds a whole /64 (RFC 6177), so that is what is counted.
_IPV6_PREFIX = 64


def client_address(peer: str, forwarded_for: str, trusted: tuple[Network, ...]) -> Address | None:
    """Return the address to hold responsible, None if the peer has none (a Unix socket).

    `X-Forwarded-For` grows to the right, and only what a trusted proxy appended is known to be
    true. So it is read from the right, for as long as each hop is trusted; the first that is not
    is the client. What does not parse ends the walk at the last hop that did.
    """
    address = _parse(peer)
    if address is None:
        return None
    hops = [hop.strip() for hop in forwarded_for.split(",")] if forwarded_for else []
    while hops and any(address in network for network in trusted):
        hop = _parse(hops.pop())
        if hop is None:
            break
        address = hop
    return address


def rate_key(address: Address | None) -> str:
    """Return what is counted for an address: IPv4 as it is, IPv6 by its /64."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)


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
