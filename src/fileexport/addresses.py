"""IP addresses and networks, and the one way to read an address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def plain(address: Address) -> Address:
    """IPv4 written as IPv6 (RFC 4291 2.5.5.2) as IPv4, every other address as it is."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def read_address(text: str) -> Address:
    """Read an address of a connection or of the system's resolver, as `plain` gives it; raises ValueError."""
    return plain(ip_address(text))
