"""Access lists: who may do what in a mailbox (RFC 4314), in the text form that MUPDATE carries.

Knows no store and no protocol. Text form: `identifier TAB rights TAB …`, as Cyrus writes it. Identifiers
are user ids, `anyone`, `anonymous`, `group:name`; a `-` in front takes rights away (RFC 4314 §2).
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from murder.errors import Code, Refusal

LOOKUP, READ, SEEN, WRITE, INSERT, POST = "lrswip"
CREATE_CHILD, DELETE_MAILBOX, DELETE_MESSAGE, EXPUNGE, ADMINISTER, ANNOTATE = "kxtean"

ALL_RIGHTS: Final = "lrswipkxtecdan"  # Cyrus' order; c stands for k and x, d for t and e
OWNER_RIGHTS: Final = frozenset(ALL_RIGHTS)
# an owner cannot lock themselves out (RFC 4314 §3.1 advises it; Cyrus does)
OWNER_ALWAYS: Final = frozenset("la")
ANYONE: Final = "anyone"
ANONYMOUS: Final = "anonymous"  # who has not logged in: mail that comes in is posted by this one
GROUP_PREFIX: Final = "group:"
# a real Cyrus passes 73 kB; bounded so that SETACL cannot grow for ever
MAX_ACL_OCTETS: Final = 256 * 1024
# `-group:` and `local@domain` of RFC 5321 §4.5.3.1 (64 and 255 octets) have 327
MAX_IDENTIFIER_OCTETS: Final = 400
_SHORT: Final = 24  # letters: so many rights, and no more, are worth remembering

Rights = frozenset[str]


@dataclass(frozen=True, slots=True)
class Acl:
    """Identifiers in the order they were given, each with its rights; negative ones keep their `-`."""

    entries: Mapping[str, Rights] = field(default_factory=dict)

    def changed(self, identifier: str, rights: Rights) -> "Acl":
        """A copy in which `identifier` has exactly these rights; none removes it."""
        entries = dict(self.entries)
        if rights:
            entries[identifier] = expand_rights(rights)
        else:
            entries.pop(identifier, None)
        return Acl(entries)


def identifiers_of(user: str, groups: Iterable[str] = ()) -> tuple[str, ...]:
    """Every identifier by which an access list may mean this user."""
    return (user, ANYONE, *(GROUP_PREFIX + group for group in groups))


def expand_rights(rights: Iterable[str]) -> Rights:
    """Add the rights that the obsolete `c` (k, x) and `d` (t, e) stand for, and set these where one of theirs is
    (RFC 4314 §2.1.1 leaves `x` to either; Cyrus' `deleteright: c` is the default there)."""
    wanted = set(rights)
    if "c" in wanted:
        wanted |= set("kx")
    if "d" in wanted:
        wanted |= set("te")
    if wanted & set("kx"):
        wanted.add("c")
    if wanted & set("te"):
        wanted.add("d")
    return frozenset(wanted)


def format_rights(rights: Iterable[str]) -> str:
    """In Cyrus' order, unknown (user-defined) ones behind."""
    known = frozenset(rights)
    return _format_short(known) if len(known) <= _SHORT else _format(known)


def _format(known: Rights) -> str:
    return "".join(r for r in ALL_RIGHTS if r in known) + "".join(sorted(known - set(ALL_RIGHTS)))


def parse_rights(text: str) -> Rights:
    """Rights as a client writes them; raises Refusal for a letter that is no right."""
    for letter in text:
        if letter not in ALL_RIGHTS and not letter.isdigit():
            raise Refusal(
                Code.CANNOT,
                f"{letter!r} is not a right; rights are {ALL_RIGHTS} and digits",
            )
    return frozenset(text)


_format_short: Final = functools.lru_cache(maxsize=512)(_format)
_set_of: Final = functools.lru_cache(maxsize=512)(frozenset[str])  # few differ, in all lists


def _rights_of(letters: str) -> Rights:
    return _set_of(letters) if len(letters) <= _SHORT else frozenset(letters)


def parse_acl(raw_acl: bytes) -> Acl:
    """Read the text form. Lenient, because a real Cyrus wrote it: odd tails are dropped, never refused.

    Not remembered: what is asked before every command is `rights_granted`."""
    fields = raw_acl.decode("utf-8", "surrogateescape").split("\t")
    pairs = zip(fields[0::2], fields[1::2], strict=False)
    return Acl({identifier: _rights_of(rights) for identifier, rights in pairs if identifier})


def rights_granted(raw_acl: bytes, identifiers: Iterable[str]) -> Rights:
    """Rights of somebody known by all these identifiers: positives united, then negatives taken away. Costs to look these up
    alone, and not to read the list."""
    fields = raw_acl.split(b"\t")
    entries = dict(zip(fields[0::2], fields[1::2], strict=False))
    entries.pop(b"", None)
    granted: set[str] = set()
    denied: set[str] = set()
    for identifier in identifiers:
        octets = identifier.encode("utf-8", "surrogateescape")
        granted.update(entries.get(octets, b"").decode("utf-8", "surrogateescape"))
        denied.update(entries.get(b"-" + octets, b"").decode("utf-8", "surrogateescape"))
    return frozenset(granted - denied)


def parse_default_acl(text: str) -> Acl:
    """An access list as a person writes it, as Cyrus' `defaultacl`: `anyone lrs group:staff lrsip`. Raises ValueError."""
    words = text.split()
    if len(words) % 2:
        raise ValueError(
            f'expected identifiers, each with its rights, as "anyone lrs", not {text!r}'
        )
    acl = Acl()
    for identifier, letters in zip(words[0::2], words[1::2], strict=True):
        try:
            acl = acl.changed(identifier, parse_rights(letters))
        except Refusal as refusal:
            raise ValueError(f"{refusal.text}, as in {text!r}") from None
    return acl


def format_acl(acl: Acl) -> bytes:
    """Write the text form, with the trailing TAB that Cyrus writes."""
    text = "".join(
        f"{identifier}\t{format_rights(rights)}\t" for identifier, rights in acl.entries.items()
    )
    return text.encode("utf-8", "surrogateescape")
