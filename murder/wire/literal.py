"""How a literal is announced, for all who cut, read or pass on octets that may hold one (RFC 3501 §4.3, RFC 7888, 3516).

One grammar, because two servers that do not agree where a literal ends do not agree where a command ends: what follows would
be a command to one of them and an argument to the other. So a size has one spelling, without leading zeros and with ten
digits at most; what looks like an announcement and is none is refused by all, and never passed on.
"""

import re
from typing import Final, NamedTuple

from murder.errors import BadSyntax

SIZE: Final = rb"0|[1-9][0-9]{0,9}"

# literal = "{" number ["+"] "}" CRLF *CHAR8; literal8 = "~" literal. Groups: the tilde, the size, the plus.
LITERAL: Final = re.compile(rb"(~?)\{(" + SIZE + rb")(\+?)\}\r?\n")
_LIKE: Final = re.compile(rb"\{([0-9]++)([+-]?)\}\r?\n")
ENDLESS: Final = 2**63  # the size of one that is announced with more digits than any has


class Announced(NamedTuple):
    """A literal at the end of a line: `begin` is where its `{` or `~` stands. `is_spelt_right`: it keeps to the grammar."""

    begin: int
    size: int
    synchronising: bool
    is_binary: bool
    is_spelt_right: bool

    @property
    def problem(self) -> BadSyntax | None:
        """What is wrong with its spelling."""
        if self.is_spelt_right:
            return None
        return BadSyntax("a literal's size has at most ten digits and no leading zero")


def announced_at_end(octets: bytes, begin: int, end: int) -> Announced | None:
    """The literal that the line `octets[begin:end]`, line end included, announces. Linear in the length of the line."""
    if octets[end - 2 : end - 1] != b"}" and octets[end - 3 : end - 1] != b"}\r":
        return None
    brace = octets.rfind(b"{", begin, end)
    if brace < 0:
        return None
    is_binary = brace > begin and octets[brace - 1] == 0x7E
    right = LITERAL.fullmatch(octets, brace, end)
    if right is not None:
        return Announced(brace - is_binary, int(right[2]), not right[3], is_binary, True)
    like = _LIKE.fullmatch(octets, brace, end)
    if like is None:
        return None
    digits, sign = like.groups()
    significant = digits.lstrip(b"0")
    size = int(significant or b"0") if len(significant) <= 10 else ENDLESS
    return Announced(brace - is_binary, size, not sign, is_binary, False)


def awaited_size(octets: bytes, begin: int, end: int) -> int | None:
    """The octets of the synchronising literal that the line `octets[begin:end]` announces, None where it announces none:
    `announced_at_end` in a call, for who counts the literals of answers. Raises BadSyntax for one that is misspelt."""
    brace = octets.rfind(b"{", begin, end)
    right = LITERAL.fullmatch(octets, brace, end) if brace >= 0 else None
    if right is not None:
        return None if right[3] else int(right[2])
    announced = announced_at_end(octets, begin, end)
    if announced is None or not announced.synchronising:
        return None
    assert announced.problem is not None
    raise announced.problem
