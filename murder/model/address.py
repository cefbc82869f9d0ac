"""Internet addresses as peers and proxies write them."""

from ipaddress import IPv4Address, IPv6Address, ip_address


def address_in(text: str) -> IPv4Address | IPv6Address:
    """Without its zone (RFC 4007 §11), which is any text at all. Raises ValueError for what is no address."""
    return ip_address(text.partition("%")[0])
