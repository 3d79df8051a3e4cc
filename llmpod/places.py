"""Not a firewall: the addresses at which no model server is, and to which nothing of ours is ever sent. Pure."""

import ipaddress
import socket
from functools import lru_cache
from typing import Final

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# where clouds answer their machines with credentials; for most of them that is link-local
_METADATA: Final = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
_LOCAL_NAT64: Final = ipaddress.ip_network("64:ff9b:1::/48")
# the byte at which IPv4 begins after prefixes of 48, 56, 64 and 96 bits, byte 8 left out, which is none of its
_INSIDE: Final = (6, 7, 8, 11)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


@lru_cache(maxsize=256)
def no_server_at(host: str) -> str:
    """Why nothing may be sent to a host: what its address is. Empty for all others, and for every name.

    Link-local addresses are those of cloud metadata services, which hand out credentials (T14); multicast and
    unspecified ones are nobody's. Metadata services elsewhere, by the manuals of their clouds: Amazon's over IPv6
    (fd00:ec2::254, EC2 user guide), Alibaba's (100.100.100.200, "Instance metadata"), Azure's wire server
    (168.63.129.16, "What is IP address 168.63.129.16?") and that of Oracle's Compute Classic (192.0.0.192, "Retrieving
    Instance Metadata"). An IPv6 address is judged by the IPv4 address that it stands for, too; the layout that a
    network's own translator has (64:ff9b:1::/48, RFC 8215) nobody else knows: any of RFC 6052, 2.2.

    Args:
        host: a name or an address, in any spelling that a resolver reads (``2852039166`` is 169.254.169.254).
    """
    address = _address(host)
    if address is None:
        return ""
    return next(filter(None, map(_nobodys, (address, *_carried(address)))), "")


def _nobodys(address: _Address) -> str:
    if address.is_link_local:
        return "a link-local address"
    if address in _METADATA:
        return "the address of a metadata service"
    if address.is_multicast:
        return "a multicast address"
    return "no machine's address" if address.is_unspecified else ""


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach a host."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def is_address(host: str) -> bool:
    """Whether a host is an address in its usual spelling, so that nobody needs to be asked where it is."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return _spelled_oddly(host)
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address if inner is None else inner


def _carried(address: _Address) -> list[ipaddress.IPv4Address]:
    """Those that an address of a network's own translator may stand for and that hand out credentials.

    Not the others: read by a wrong layout, a server's address often looks like one of no machine.
    """
    if address not in _LOCAL_NAT64:
        return []
    packed = address.packed[:8] + address.packed[9:]
    inside = [ipaddress.IPv4Address(packed[at : at + 4]) for at in _INSIDE]
    return [inner for inner in inside if inner.is_link_local or inner in _METADATA]


def _spelled_oddly(host: str) -> _Address | None:
    """What C libraries read as an IPv4 address, too: fewer parts, octal, hexadecimal (inet(3))."""
    if not host[:1].isdigit():  # inet_aton also takes what stands behind a space
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeEncodeError):
        return None
