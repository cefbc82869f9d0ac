"""The primary server of the zone that has users' names: what is there, and changes to it (RFC 2136), by a TSIG key."""

import base64
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from types import MappingProxyType
from typing import Any, Final

from murder.config.dns import DnsConfig
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.roles.mupdate.zone.names import Difference

AT_ONCE: Final = 200  # changes in one message, which has 64 KiB
MOST_RECORDS: Final = 2_000_000  # read of a zone
ALL_S: Final = 60.0  # for all questions together, or all of a zone: a server may answer, and slowly
CURES: Final[Mapping[str, str]] = MappingProxyType(
    {  # what a server says, and what it wants
        "REFUSED": "allow the key there (BIND: allow-transfer and update-policy or allow-update; Knot: acl)",
        "NOTAUTH": "is [dns] zone a zone of it? is the key the one that it knows?",
        "NOTZONE": "[dns] suffix must lie in [dns] zone",
        "NOTIMP": "it takes no changes: name the zone's primary server",
        "SERVFAIL": "look at its log: often it may not write the zone's journal",
    }
)
IS_IT_THERE: Final = "does it run? is [dns] server the zone's primary, by TCP too? a firewall?"


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
        self._is_stopped = False

    def stop(self) -> None:
        """From any thread: who asks now, asks nothing more."""
        self._is_stopped = True

    def records(self, most: int = MOST_RECORDS) -> Mapping[str, str]:
        """What is below the suffix now, by a zone transfer; "" where it is no CNAME. Raises UpstreamFailure; also
        where there are more than `most`."""
        import dns.query
        import dns.rdatatype

        targets: dict[str, str] = {}
        host, port = self._resolved()
        answers = dns.query.xfr(
            host,
            self._zone,
            port=port,
            keyring=self._key,
            keyname=self._key.name,
            relativize=False,
            timeout=self._config.timeout_s,
            lifetime=max(ALL_S, self._config.timeout_s),
        )
        # closed at once where it is too much: else the kernel reads on
        with self._asking("a zone transfer (AXFR)"), closing(answers):
            for message in answers:
                self._check_time(None)
                for records in message.answer:
                    if records.name == self._suffix or not records.name.is_subdomain(self._suffix):
                        continue
                    name = records.name.relativize(self._suffix).to_text().lower()
                    is_cname = records.rdtype == dns.rdatatype.CNAME
                    target = records[0].target.to_text(omit_final_dot=True) if is_cname else ""
                    targets[name] = target.lower()
                    if len(targets) > most:
                        text = f"a zone of more than {most} names"
                        raise self._failure(UpstreamKind.PROTOCOL, text)
        return targets

    def records_of(self, names: Iterable[str]) -> Mapping[str, str]:
        """As `records`, of these names alone, each asked for: a name that is not there is left out. Raises
        UpstreamFailure."""
        import dns.message
        import dns.name
        import dns.query
        import dns.rcode
        import dns.rdatatype

        targets: dict[str, str] = {}
        host, port = self._resolved()
        give_up_at = time.monotonic() + max(ALL_S, self._config.timeout_s)
        for name in names:
            self._check_time(give_up_at)
            whole = dns.name.from_text(name, self._suffix)
            asked = dns.message.make_query(whole, dns.rdatatype.CNAME)
            asked.use_tsig(self._key, self._key.name)
            with self._asking("a question"):
                answer = dns.query.tcp(asked, host, timeout=self._config.timeout_s, port=port)
            if answer.rcode() == dns.rcode.NXDOMAIN:
                continue
            if answer.rcode() != dns.rcode.NOERROR:
                word = dns.rcode.to_text(answer.rcode())
                text = f"it answers no question: {word}; {CURES.get(word, 'look at its log')}"
                raise self._failure(UpstreamKind.AUTH, text)
            records = next((rrset for rrset in answer.answer if rrset.name == whole), None)
            is_cname = records is not None and records.rdtype == dns.rdatatype.CNAME
            target = records[0].target.to_text(omit_final_dot=True) if records and is_cname else ""
            targets[name] = target.lower()
        return targets

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

    def _check_time(self, give_up_at: float | None) -> None:
        if self._is_stopped:
            raise self._failure(UpstreamKind.LOST, "this node is stopping")
        if give_up_at is not None and time.monotonic() > give_up_at:
            raise self._failure(UpstreamKind.TIMEOUT, f"it answers too slowly: {ALL_S:g} s")

    def _resolved(self) -> tuple[str, int]:
        """An address: the library takes no names."""
        host, port = self._place
        try:
            return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]), port
        except OSError as error:
            cure = "look at [dns] server, and /etc/resolv.conf"
            raise self._failure(UpstreamKind.RESOLVE, f"{host} has no address", cure) from error

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
            text = f"{what}: it does not know the TSIG key"
            cure = "look at [dns] key_name, key, key_algorithm; Knot says so, too, where no acl of the zone has it"
            raise self._failure(UpstreamKind.AUTH, text, cure) from error
        except dns.query.TransferError as error:
            word = dns.rcode.to_text(error.rcode)
            text = f"{what}: it says {word}; {CURES.get(word, 'look at its log')}"
            raise self._failure(UpstreamKind.AUTH, text) from error
        except dns.exception.Timeout as error:
            text = f"{what}: no answer in {self._config.timeout_s:g} s"
            raise self._failure(UpstreamKind.TIMEOUT, text, IS_IT_THERE) from error
        except dns.exception.DNSException as error:
            raise self._failure(UpstreamKind.PROTOCOL, f"{what}: {error}") from error
        except (EOFError, OSError) as error:
            said = getattr(error, "strerror", None) or str(error) or "it closed the connection"
            raise self._failure(UpstreamKind.CONNECT, f"{what}: {said}", IS_IT_THERE) from error

    def _failure(self, kind: UpstreamKind, text: str, cure: str = "") -> UpstreamFailure:
        return UpstreamFailure(kind, f"[dns] server {self._config.server}", text, cure)
