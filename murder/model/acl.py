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
OWNER_ALWAYS: Final = frozenset(
    "la"
)  # an owner cannot lock himself out (RFC 4314 §3.1 advises it; Cyrus does)
ANYONE: Final = "anyone"
ANONYMOUS: Final = "anonymous"  # who has not logged in: mail that comes in is posted by him
GROUP_PREFIX: Final = "group:"
MAX_ACL_OCTETS: Final = (
    256 * 1024
)  # a real Cyrus passes 73 kB; bounded so that SETACL cannot grow for ever

Rights = frozenset[str]


@dataclass(frozen=True, slots=True)
class Acl:
    """Identifiers in the order they were given, each with its rights; negative ones keep their `-`."""

    entries: Mapping[str, Rights] = field(default_factory=dict)

    def rights_for(self, identifiers: Iterable[str]) -> Rights:
        """Rights of somebody known by all these identifiers: positives united, then negatives taken away."""
        granted: set[str] = set()
        denied: set[str] = set()
        for identifier in identifiers:
            granted |= self.entries.get(identifier, frozenset())
            denied |= self.entries.get("-" + identifier, frozenset())
        return frozenset(granted - denied)

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
    known = set(rights)
    return "".join(r for r in ALL_RIGHTS if r in known) + "".join(sorted(known - set(ALL_RIGHTS)))


def parse_rights(text: str) -> Rights:
    """Rights as a client writes them; raises Refusal for a letter that is no right."""
    for letter in text:
        if letter not in ALL_RIGHTS and not letter.isdigit():
            raise Refusal(
                Code.CANNOT,
                f"{letter!r} is no right; rights are {ALL_RIGHTS} and digits",
            )
    return frozenset(text)


@functools.lru_cache(maxsize=10_000)
def parse_acl(raw_acl: bytes) -> Acl:
    """Read the text form. Lenient, because a real Cyrus wrote it: odd tails are dropped, never refused."""
    fields = raw_acl.decode("utf-8", "surrogateescape").split("\t")
    pairs = zip(fields[0::2], fields[1::2], strict=False)
    return Acl({identifier: frozenset(rights) for identifier, rights in pairs if identifier})


def format_acl(acl: Acl) -> bytes:
    """Write the text form, with the trailing TAB that Cyrus writes."""
    text = "".join(
        f"{identifier}\t{format_rights(rights)}\t" for identifier, rights in acl.entries.items()
    )
    return text.encode("utf-8", "surrogateescape")
