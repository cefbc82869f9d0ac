"""Names of users in DNS: which there should be by the mailbox list, and the changes that make it so (RFC 2136).

What this murder owns in the zone are the CNAME records right below the suffix that lead to a server of it; whatever else is
there is left alone.
"""

import base64
import re
import socket
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, Final

from murder.config.dns import DnsConfig
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import MailboxEntry
from murder.model.name import is_deleted, is_inbox, owner_of

LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
MOST_OCTETS: Final = 253  # of a name
AT_ONCE: Final = 200  # changes in one message, which has 64 KiB
MOST_RECORDS: Final = 2_000_000  # read of a zone
CURES: Final[Mapping[str, str]] = MappingProxyType(
    {  # what a server says, and what it wants
        "REFUSED": "allow the key there (BIND: allow-transfer and update-policy or allow-update; Knot: acl)",
        "NOTAUTH": "is [dns] zone a zone of it? is the key the one that it knows?",
        "NOTZONE": "[dns] suffix must lie in [dns] zone",
        "NOTIMP": "it takes no changes: name the zone's primary server",
        "SERVFAIL": "look at its log: often it may not write the zone's journal",
    }
)


@dataclass(frozen=True, slots=True)
class Names:
    """What there should be: a name below the suffix, and the server that it leads to. `unfit` are users whose name can be
    none, `elsewhere` those who are not where the name that they share leads; each with the reason."""

    targets: Mapping[str, str]
    unfit: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)


def names_of(rows: Iterable[MailboxEntry], config: DnsConfig) -> Names:
    """By the rows of the mailbox list."""
    homes: dict[str, str] = {}
    for row in rows:
        if row.is_active and is_inbox(row.name) and not is_deleted(row.name):
            homes[owner_of(row.name) or ""] = row.server
    unfit = {
        user: why for user, server in homes.items() if (why := _why_unfit(user, server, config))
    }
    fit = {user: server for user, server in sorted(homes.items()) if user not in unfit}
    if config.by == "letter":
        return _by_letter(fit, unfit)
    targets: dict[str, str] = {}
    owners: dict[str, str] = {}
    for user, server in fit.items():
        name = name_of(user)
        if name in owners:
            unfit[user] = f"DNS knows no case: {owners[name]} has the name already"
        else:
            targets[name], owners[name] = server, user
    return Names(targets, unfit)


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
    local, _, domain = user.lower().partition("@")
    if config.by == "letter":
        return "" if LABEL.fullmatch(local[:1]) else "the first letter can begin no name in DNS"
    if not LABEL.fullmatch(local):
        return "no label of DNS: letters a to z, digits, hyphens inside, 63 at most"
    if domain and not is_host(domain):
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
        if name not in names.targets and target in known
    }
    return Difference(put, remove, foreign)


class ZoneServer:
    """The primary server of the zone, by its TSIG key. Its calls wait: they are for a thread."""

    def __init__(self, config: DnsConfig) -> None:
        """Raises Refusal with what is missing."""
        if config.server is None:
            raise Refusal(Code.CANNOT, "[dns] server is missing: whose zone is to be changed?")
        if not config.key_name or not config.key:
            text = "[dns] key_name and key_file are missing: servers take changes by a TSIG key"
            raise Refusal(Code.CANNOT, text)
        # not at every start of every command
        import dns.name
        import dns.tsig

        self._config = config
        self._place = (config.server.host, config.server.port)
        self._suffix = dns.name.from_text(config.suffix)
        self._zone = dns.name.from_text(config.zone or config.suffix)
        if not self._suffix.is_subdomain(self._zone):
            raise Refusal(Code.CANNOT, f"[dns] zone: {config.suffix} is not below {config.zone}")
        try:
            base64.b64decode(config.key, validate=True)
            make_key: Any = dns.tsig.Key  # which has no types
            self._key = make_key(config.key_name, config.key, config.key_algorithm)
        except ValueError:
            raise Refusal(Code.CANNOT, "[dns] key: it is no base64") from None

    def records(self) -> Mapping[str, str]:
        """What is below the suffix now, by a zone transfer; "" where it is no CNAME. Raises UpstreamFailure."""
        import dns.query
        import dns.rdatatype

        found: dict[str, str] = {}
        host, port = self._resolved()
        with self._asking("a zone transfer (AXFR)"):
            answers = dns.query.xfr(
                host,
                self._zone,
                port=port,
                keyring=self._key,
                keyname=self._key.name,
                relativize=False,
                timeout=self._config.timeout_s,
                lifetime=max(60.0, self._config.timeout_s),
            )
            for message in answers:
                for records in message.answer:
                    if records.name == self._suffix or not records.name.is_subdomain(self._suffix):
                        continue
                    name = records.name.relativize(self._suffix).to_text().lower()
                    is_cname = records.rdtype == dns.rdatatype.CNAME
                    target = records[0].target.to_text(omit_final_dot=True) if is_cname else ""
                    found[name] = target.lower()
                    if len(found) > MOST_RECORDS:
                        text = f"a zone of more than {MOST_RECORDS} names"
                        raise self._failure(UpstreamKind.PROTOCOL, text)
        return found

    def change(self, wanted: Difference) -> None:
        """All of it, a part at a time. Each removal asks that the record is still the one that was seen. Raises
        UpstreamFailure."""
        changes: list[tuple[str, str, bool]] = [
            *((name, target, True) for name, target in wanted.put.items()),
            *((name, target, False) for name, target in wanted.remove.items()),
        ]
        for at in range(0, len(changes), AT_ONCE):
            self._send(changes[at : at + AT_ONCE])

    def _send(self, changes: Sequence[tuple[str, str, bool]]) -> None:
        import dns.name
        import dns.query
        import dns.rcode
        import dns.update

        update = dns.update.UpdateMessage(self._zone, keyring=self._key, keyname=self._key.name)
        for name, target, is_put in changes:
            whole = dns.name.from_text(name, self._suffix)
            if is_put:
                update.replace(whole, self._config.ttl_s, "CNAME", target + ".")
            else:
                update.delete(whole, "CNAME", target + ".")
        host, port = self._resolved()
        with self._asking("changes"):
            answer = dns.query.tcp(update, host, timeout=self._config.timeout_s, port=port)
        if answer.rcode() != dns.rcode.NOERROR:
            word = dns.rcode.to_text(answer.rcode())
            text = f"it refuses changes: {word}; {CURES.get(word, 'look at its log')}"
            raise self._failure(UpstreamKind.AUTH, text)

    def _resolved(self) -> tuple[str, int]:
        """An address: the library takes no names."""
        host, port = self._place
        try:
            return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]), port
        except OSError as error:
            raise self._failure(UpstreamKind.RESOLVE, f"{host} has no address") from error

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Whatever goes wrong, in words that tell the cure. Raises UpstreamFailure."""
        import dns.exception
        import dns.query
        import dns.rcode
        import dns.tsig

        try:
            yield
        except dns.tsig.PeerBadTime as error:
            text = f"{what}: its clock and ours differ by minutes; set both by NTP"
            raise self._failure(UpstreamKind.AUTH, text) from error
        except (dns.tsig.PeerError, dns.tsig.BadSignature, dns.message.UnknownTSIGKey) as error:
            text = (
                f"{what}: it does not know the TSIG key; look at [dns] key_name, key, key_algorithm"
            )
            raise self._failure(UpstreamKind.AUTH, text) from error
        except dns.query.TransferError as error:
            word = dns.rcode.to_text(error.rcode)
            text = f"{what}: it says {word}; {CURES.get(word, 'look at its log')}"
            raise self._failure(UpstreamKind.AUTH, text) from error
        except dns.exception.Timeout as error:
            text = f"{what}: no answer in {self._config.timeout_s:g} s"
            raise self._failure(UpstreamKind.TIMEOUT, text) from error
        except dns.exception.DNSException as error:
            raise self._failure(UpstreamKind.PROTOCOL, f"{what}: {error}") from error
        except (EOFError, OSError) as error:
            text = f"{what}: {error or 'it closed the connection'}"
            raise self._failure(UpstreamKind.CONNECT, text) from error

    def _failure(self, kind: UpstreamKind, text: str) -> UpstreamFailure:
        return UpstreamFailure(kind, f"[dns] server {self._config.server}", text)
