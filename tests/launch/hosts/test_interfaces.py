from __future__ import annotations

import ipaddress

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.hosts import interfaces
from scalelab.launch.hosts.interfaces import Interface, chosen, leading_out, routed

THERE = {
    name: tuple(map(ipaddress.ip_address, addresses))
    for name, addresses in {
        "lo": ("127.0.0.1", "::1"), "eth0": ("192.168.1.5", "2001:db8::5"), "wg0": ("10.9.0.1",), "ib0": ("10.0.0.7", "fd00:1::7"),
    }.items()
}  # fmt: skip


def test_by_name() -> None:
    assert chosen("wg0", THERE) == Interface("wg0", "10.9.0.1")
    assert chosen("ib0", THERE, 6) == Interface("ib0", "fd00:1::7")


@pytest.mark.parametrize(
    ("subnet", "name", "address"),
    [("10.0.0.0/24", "ib0", "10.0.0.7"), ("10.9.0.0/16", "wg0", "10.9.0.1"), ("fd00:1::/64", "ib0", "fd00:1::7"),
     ("192.168.1.77/24", "eth0", "192.168.1.5")],
)  # fmt: skip
def test_by_subnet(subnet: str, name: str, address: str) -> None:
    assert chosen(subnet, THERE) == Interface(name, address)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("172.16.0.0/12", "no interface has an address in 172.16.0.0/12; it has lo (127.0.0.1, ::1), eth0 (192.168.1.5"),
        ("eth1", "no interface eth1 is up (did you mean 'eth0'?); it has lo"),
        ("10.0.0/24", "is no subnet; expected as 10.0.0.0/24"),
    ],
)
def test_what_a_host_has_not_is_named_with_what_it_has(wanted: str, said: str) -> None:
    with pytest.raises(ScalelabError) as error:
        chosen(wanted, THERE)
    assert said in str(error.value)


@pytest.mark.parametrize("wanted", ["lo", "127.0.0.0/8", "::1/128"])
def test_the_loopback_leads_to_no_other_host(wanted: str) -> None:
    with pytest.raises(ScalelabError, match=r"^lo \(.*\) is the loopback, by which no other host is reached"):
        leading_out(chosen(wanted, THERE))
    assert leading_out(chosen("wg0", THERE)) == Interface("wg0", "10.9.0.1")


def test_the_route_to_this_host_itself_is_by_its_own_address() -> None:
    there = interfaces.listing()
    assert routed("127.0.0.1", there) == Interface("lo", "127.0.0.1")
    for address in interfaces.reachable_as(there):
        assert routed(address, there).address == address


def test_no_route_is_said() -> None:
    with pytest.raises(ScalelabError, match=r"no route to 203\.0\.113\.7|which is no interface's address"):
        routed("203.0.113.7", {})
