"""Names of users in DNS: which there should be by the mailbox list, and the changes that make it so.

What this murder owns in the zone are the CNAME records right below the suffix that lead to a server of it; whatever else is
there is left alone.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Final

from murder.config.dns import DnsConfig
from murder.model.entry import MailboxEntry
from murder.model.name import is_deleted, is_inbox, owner_of

LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
MOST_OCTETS: Final = 253  # of a name


@dataclass(frozen=True, slots=True)
class Names:
    """What there should be: a name below the suffix, and the server that it leads to. `unfit` are users whose name can be
    none, `elsewhere` those who are not where the name that they share leads; each with the reason. `moving` are names of
    users who are on their way: they lead where they did until that is over."""

    targets: Mapping[str, str]
    unfit: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    moving: frozenset[str] = frozenset()


def names_of(rows: Iterable[MailboxEntry], config: DnsConfig) -> Names:
    """By the rows of the mailbox list."""
    homes: dict[str, str] = {}
    moving: set[str] = set()
    for row in rows:
        note_home(row, homes, moving)
    return names_at(homes, config, moving)


def note_home(row: MailboxEntry, homes: dict[str, str], moving: set[str]) -> None:
    """Whether it says where a user is, or that they are on their way."""
    if not is_inbox(row.name) or is_deleted(row.name):
        return
    user = owner_of(row.name) or ""
    if row.is_active:
        homes[user] = row.server
    else:
        moving.add(user)


def names_at(homes: Mapping[str, str], config: DnsConfig, moving: Iterable[str] = ()) -> Names:
    """By users, and the servers of their INBOXes; and users who are on their way."""
    unfit = {
        user: why for user, server in homes.items() if (why := _why_unfit(user, server, config))
    }
    fit = {user: server for user, server in sorted(homes.items()) if user not in unfit}
    if config.by == "letter":
        letters = frozenset(user[:1].lower() for user in moving)
        return replace(_by_letter(fit, unfit), moving=letters)
    targets: dict[str, str] = {}
    owners: dict[str, str] = {}
    for user, server in fit.items():
        name = name_of(user)
        if name in owners:
            unfit[user] = f"DNS knows no case: {owners[name]} has the name already"
        else:
            targets[name], owners[name] = server, user
    return Names(targets, unfit, moving=frozenset(map(name_of, moving)))


def _by_letter(fit: Mapping[str, str], unfit: Mapping[str, str]) -> Names:
    by_letter: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for user, server in fit.items():
        by_letter[user[0].lower()][server] += 1
    targets = {
        letter: min(counts, key=lambda server: (-counts[server], server))
        for letter, counts in sorted(by_letter.items())
    }
    elsewhere = {
        user: f"is at {server}, the letter leads to {targets[user[0].lower()]}"
        for user, server in fit.items()
        if server != targets[user[0].lower()]
    }
    return Names(targets, unfit, elsewhere)


def name_of(user: str) -> str:
    """`anna`, or `anna.example.org` of `anna@example.org`."""
    return user.lower().replace("@", ".")


def _why_unfit(user: str, server: str, config: DnsConfig) -> str:
    """Why a user can have no name; "" if they can."""
    if not is_host(server):
        return f"{server} is no host name that a CNAME could lead to"
    return why_no_name(user, config)


def why_no_name(user: str, config: DnsConfig) -> str:
    """The same, wherever they are."""
    local, _, domain = user.lower().partition("@")
    if config.by == "letter":
        return "" if LABEL.fullmatch(local[:1]) else "the first letter can begin no name in DNS"
    if not LABEL.fullmatch(local):
        return "no label of DNS: letters a to z, digits, hyphens inside, 63 at most"
    if domain.endswith(".") or (domain and not is_host(domain)):
        return f"{domain} is no name in DNS"
    if len(f"{name_of(user)}.{config.suffix}") > MOST_OCTETS:
        return f"longer than a name in DNS may be ({MOST_OCTETS})"
    return ""


def is_host(name: str) -> bool:
    """Whether it is a host name, and no address."""
    try:
        ip_address(name)
    except ValueError:
        labels = name.lower().removesuffix(".").split(".")
        return len(name) <= MOST_OCTETS and all(LABEL.fullmatch(label) for label in labels)
    return False


def zone_lines(names: Names, config: DnsConfig) -> Iterator[str]:
    """As a file that a server reads or includes: the records alone, without the zone's SOA and NS."""
    yield f"$ORIGIN {config.suffix.rstrip('.')}."
    yield f"$TTL {config.ttl_s}"
    for name, server in names.targets.items():
        yield f"{name}\tCNAME\t{server.rstrip('.').lower()}."


@dataclass(frozen=True, slots=True)
class Difference:
    """What has to change, by name below the suffix. `foreign`: names that others have made something else of."""

    put: Mapping[str, str] = field(default_factory=dict)
    remove: Mapping[str, str] = field(default_factory=dict)
    foreign: Mapping[str, str] = field(default_factory=dict)


def difference(names: Names, there: Mapping[str, str], ours: Iterable[str]) -> Difference:
    """`there`: what the zone has below the suffix, with the target of a CNAME, or "" for anything else; `ours`: the servers
    of this murder, those of before too."""
    known = {server.rstrip(".").lower() for server in (*ours, *names.targets.values())}
    put: dict[str, str] = {}
    foreign: dict[str, str] = {}
    for name, server in names.targets.items():
        target = server.rstrip(".").lower()
        now = there.get(name)
        if now == target:
            continue
        if now is not None and now not in known:
            foreign[name] = now or "other records"
        else:
            put[name] = target
    remove = {
        name: target
        for name, target in there.items()
        if name not in names.targets and name not in names.moving and target in known
    }
    return Difference(put, remove, foreign)
