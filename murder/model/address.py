"""Internet addresses as peers and proxies write them, and how many proxies a session goes through."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

MAX_HOPS: Final = 5  # of a session through proxies, of which one could be a client of itself


def address_in(text: str) -> IPv4Address | IPv6Address:
    """Without its zone (RFC 4007 §11), which is any text at all. Raises ValueError for what is no address."""
    return ip_address(text.partition("%")[0])


@lru_cache(maxsize=4096)  # a proxy tells it at each login
def plain_address(text: str) -> str:
    """As all the log has it: an IPv4 address in IPv6 is an IPv4 address. Raises ValueError."""
    address = address_in(text)
    return str(getattr(address, "ipv4_mapped", None) or address)


def hops_behind(ttl: str) -> int | None:
    """How many proxies a session may go through still, by what the one before has told; less than none: it is a loop. None
    where that is no number."""
    if not ttl.isdecimal() or len(ttl) > 3:
        return None
    return min(int(ttl), MAX_HOPS) - 1
