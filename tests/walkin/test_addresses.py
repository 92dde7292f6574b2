"""Who is calling: forwarded addresses count only as far as trusted proxies vouch for them."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walkin.addresses import client_address, connection_key, rate_key
from walkin.settings import Network


def trust(*networks: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(network) for network in networks)


PROXIES = trust("10.0.0.0/8", "192.0.2.7/32", "fd00::/8")

ipv4 = st.ip_addresses(v=4)
ipv6 = st.ip_addresses(v=6)
addresses = st.one_of(ipv4, ipv6)
outside = addresses.filter(lambda address: not any(address in network for network in PROXIES))
garbage = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters=","), max_size=20
)
headers = st.lists(st.one_of(garbage, addresses.map(str)), max_size=6).map(",".join)


def unmapped(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return getattr(address, "ipv4_mapped", None) or address


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        # a peer alone
        ("203.0.113.9", "", "203.0.113.9"),
        ("2001:db8::1", "", "2001:db8::1"),
        ("10.0.0.1", "", "10.0.0.1"),
        # a peer that nobody trusts may claim what it likes
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("203.0.113.9", "10.0.0.1", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1, 10.0.0.1", "203.0.113.9"),
        # one trusted proxy
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("192.0.2.7", "198.51.100.1", "198.51.100.1"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        # the chain is walked from the right; what stands further left is hearsay
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.3, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "10.9.9.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.8, 192.0.2.7", "192.0.2.8"),
        # trusted all the way
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        # what does not parse ends the walk at the last hop that did
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "198.51.100.1,", "10.0.0.1"),
        ("10.0.0.1", ",,,", "10.0.0.1"),
        ("10.0.0.1", "_hidden", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.999", "10.0.0.1"),
        # ports, brackets, zones, white space
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ("10.0.0.1", "  198.51.100.1\t,  10.0.0.2  ", "198.51.100.1"),
        ("fe80::1%eth0", "", "fe80::1"),
        # IPv4 in IPv6's clothes is IPv4
        ("::ffff:203.0.113.9", "", "203.0.113.9"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, ::ffff:10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "[::ffff:198.51.100.1]:80", "198.51.100.1"),
    ],
)
def test_the_client_is_the_first_hop_from_the_right_that_is_not_trusted(
    peer: str, forwarded_for: str, client: str
) -> None:
    assert str(client_address(peer, forwarded_for, PROXIES)) == client


@pytest.mark.parametrize("peer", ["", "unix:/run/x", "not an address", "[", "[]", ":", "%"])
def test_a_peer_without_an_address_gives_none_whatever_it_says(peer: str) -> None:
    assert client_address(peer, "198.51.100.1", trust("0.0.0.0/0", "::/0")) is None


@given(peer=st.one_of(addresses.map(str), garbage), one=headers, other=headers)
def test_without_trusted_proxies_the_header_never_matters(peer: str, one: str, other: str) -> None:
    assert client_address(peer, one, ()) == client_address(peer, other, ())


@given(peer=outside, forwarded_for=headers)
def test_a_peer_that_is_not_trusted_is_the_client(
    peer: ipaddress.IPv4Address | ipaddress.IPv6Address, forwarded_for: str
) -> None:
    if unmapped(peer) == peer:
        assert client_address(str(peer), forwarded_for, PROXIES) == peer


@given(forged=headers, client=ipv4.filter(lambda address: address not in PROXIES[0]))
def test_what_a_client_forges_left_of_itself_is_ignored(
    forged: str, client: ipaddress.IPv4Address
) -> None:
    chain = f"{client}, 10.0.0.3, 10.0.0.2"
    trusted = trust("10.0.0.0/8")
    assert client_address("10.0.0.1", f"{forged}, {chain}", trusted) == client


@given(peer=st.one_of(addresses.map(str), garbage), forwarded_for=headers)
def test_any_header_gives_an_address_that_can_be_counted(peer: str, forwarded_for: str) -> None:
    assert rate_key(client_address(peer, forwarded_for, PROXIES))


@given(address=ipv4)
def test_an_ipv4_address_is_counted_by_itself(address: ipaddress.IPv4Address) -> None:
    assert rate_key(address) == str(address)


@given(address=ipv6, other=ipv6)
def test_ipv6_addresses_are_counted_together_when_they_share_a_64(
    address: ipaddress.IPv6Address, other: ipaddress.IPv6Address
) -> None:
    same_network = int(address) >> 64 == int(other) >> 64
    assert (rate_key(address) == rate_key(other)) == same_network


@given(network=st.integers(0, 2**64 - 1), hosts=st.tuples(*[st.integers(0, 2**64 - 1)] * 2))
def test_no_two_hosts_of_one_64_are_counted_apart(network: int, hosts: tuple[int, int]) -> None:
    one, two = (rate_key(ipaddress.IPv6Address(network << 64 | host)) for host in hosts)
    assert one == two


def test_the_last_bit_of_the_64_tells_clients_apart() -> None:
    one, two = (ipaddress.IPv6Address(text) for text in ("2001:db8::1", "2001:db8:0:1::1"))
    assert rate_key(one) != rate_key(two)


def test_an_ipv4_address_written_as_ipv6_shares_its_count() -> None:
    one, two = (client_address(text, "", ()) for text in ("::ffff:192.0.2.1", "192.0.2.1"))
    assert rate_key(one) == rate_key(two)


def test_a_chain_of_more_hops_than_there_are_proxies_is_not_walked_to_its_end() -> None:
    chain = ",".join(["198.51.100.1", *["10.0.0.2"] * 100])
    assert str(client_address("10.0.0.1", chain, PROXIES)) == "10.0.0.2"
    chain = ",".join(["198.51.100.1", *["10.0.0.2"] * 31])
    assert str(client_address("10.0.0.1", chain, PROXIES)) == "198.51.100.1"


def test_a_chain_of_64_kib_is_judged_by_its_right_end() -> None:
    for filler in (",", "10.0.0.2,", "x" * 64 + ",", "[,", " ,"):
        chain = filler * (65_000 // len(filler)) + "198.51.100.1, 10.0.0.2"
        assert str(client_address("10.0.0.1", chain, PROXIES)) == "198.51.100.1"


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::/64"),
        ("10.0.0.1", None),
        ("::ffff:10.0.0.1", None),
        ("", None),
    ],
)
def test_the_connections_of_a_peer_are_counted_unless_it_speaks_for_many(
    peer: str, key: str | None
) -> None:
    assert connection_key(peer, PROXIES) == key
