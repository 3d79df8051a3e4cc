"""Where no model server is. Nothing here is ever connected to: in a cloud, somebody answers at these addresses."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from llmpod.config import base_url
from llmpod.errors import ConfigError
from llmpod.places import is_loopback, no_server_at

METADATA = ("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")
OTHERS = (
    "100.100.100.201",
    "168.63.129.17",
    "192.0.0.193",
    "10.0.230.5",
    "10.230.5.239",
    "192.0.2.1",
    "fd00:ec2::255",
)


def carried(inner: str, length: int) -> str:
    """An IPv4 address in one of the local NAT64 prefix (RFC 8215), as RFC 6052 (2.2) lays it out."""
    prefix = IPv6Address("64:ff9b:1::").packed[: length // 8].ljust(length // 8, b"\0")
    body = prefix + IPv4Address(inner).packed
    whole = body if length == 96 else body[:8] + b"\0" + body[8:]
    return str(IPv6Address(whole.ljust(16, b"\0")))


def test_the_layouts_are_those_of_the_standard() -> None:
    """The rows of RFC 6052, 2.4, for 192.0.2.33."""
    assert [carried("192.0.2.33", length) for length in (48, 56, 64, 96)] == [
        "64:ff9b:1:c000:2:2100::",
        "64:ff9b:1:c0:0:221::",
        "64:ff9b:1:0:c0:2:2100:0",
        "64:ff9b:1::c000:221",
    ]


def spellings(address: str) -> list[str]:
    """One address, and what leads to it."""
    if ":" in address:
        return [address, address.upper(), IPv6Address(address).exploded]
    low = f"{int(IPv4Address(address)):08x}"
    inside = f"{low[:4]}:{low[4:]}"
    local = [carried(address, length) for length in (48, 56, 64, 96)]
    return [
        *(address, str(int(IPv4Address(address))), f"0x{low}"),
        *(f"::ffff:{address}", f"64:ff9b::{inside}", f"2002:{inside}::", *local),
    ]


@pytest.mark.parametrize("address", METADATA)
def test_metadata_services_are_no_model_servers(address: str) -> None:
    for host in spellings(address):
        assert no_server_at(host), host
        with pytest.raises(ConfigError):
            base_url(f"http://[{host}]/v1" if ":" in host else f"http://{host}/v1")


@pytest.mark.parametrize("address", OTHERS)
def test_their_neighbours_may_be(address: str) -> None:
    for host in spellings(address):
        assert not no_server_at(host), host


def test_what_comes_back_by_a_translator_is_not_this_machine() -> None:
    assert not is_loopback(carried("127.0.0.1", 96))
