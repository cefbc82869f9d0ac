"""Authentication: a running saslauthd is asked, so that a Cyrus site's PAM, LDAP or Kerberos stay as they are.

Each question is a connection to its socket: four strings, each behind two octets of length (user, password, service, realm),
and one string back that begins with `OK` or `NO`. As with Cyrus a user `anna@example.org` is asked about as `anna` of the
realm `example.org`. A no does not tell whether there is such a user, so the next plugin of the list is asked; and whom a
node vouches for is believed to be there: name this plugin last.
"""

import asyncio
import re
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from murder.api import Denied, Fault, Identity, LoginAttempt, hookimpl
from murder.errors import UpstreamFailure, UpstreamKind

MAX_OCTETS: Final = 256  # of a name or a password: more saslauthd does not take
MAX_ANSWER: Final = 1024
SERVICES: Final[Mapping[str, str]] = MappingProxyType({"pop3": "pop"})
SERVER: Final = "saslauthd"
TROUBLE: Final = re.compile(  # what it calls a NO, though nobody has looked at the password
    rb"Couldn't contact|unavailable|internal error|internal mechanism|synchronizing|Unexpected response|PAM start error"
    rb"|No address given"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.auth_saslauthd]."""

    socket: Path = field(
        default=Path("/run/saslauthd/mux"),
        metadata={"doc": "saslauthd's socket; the node's user must be in the group `sasl`."},
    )
    service: str = field(
        default="",
        metadata={
            "doc": "The service that it is asked for; empty: by protocol, as Cyrus: imap, pop, lmtp, sieve, mupdate."
        },
    )
    realm: str = field(default="", metadata={"doc": "The realm of users without a domain."})
    at_once: int = field(
        default=5,
        metadata={"doc": "Questions at a time, in each process: saslauthd's -n.", "least": 1},
    )
    timeout_s: float = field(default=10.0, metadata={"doc": "Waiting for an answer."})
    lower_case: bool = field(
        default=True, metadata={"doc": "User names are taken in lower case, as Cyrus does."}
    )


@hookimpl
def make_auth_backend(settings: Settings) -> "Saslauthd":
    """The backend for one process."""
    return Saslauthd(settings)


def format_question(user: str, password: bytes, service: str, realm: str) -> bytes:
    """What is written to the socket."""
    fields = (user.encode("utf-8", "surrogateescape"), password, service.encode(), realm.encode())
    return b"".join(struct.pack(">H", len(octets)) + octets for octets in fields)


class Saslauthd:
    """Fulfils AuthBackend, BelievesAnybody, ChecksAttempts, ChecksFewAtOnce, Diagnoses."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def checks_at_once(self) -> int:
        """See ChecksFewAtOnce."""
        return self._settings.at_once

    @property
    def believes_anybody(self) -> bool:
        """See BelievesAnybody."""
        return True

    @property
    def depends_on(self) -> Collection[str]:
        """See ChecksAttempts."""
        return () if self._settings.service else ("protocol",)

    async def check(self, attempt: LoginAttempt, user: str, password: bytes) -> Identity | Denied:
        """See ChecksAttempts."""
        name = user.lower() if self._settings.lower_case else user
        local, at, realm = name.rpartition("@")
        asked = (local, realm) if at else (name, self._settings.realm)
        octets = asked[0].encode("utf-8", "surrogateescape")
        is_fit = 0 < len(octets) <= MAX_OCTETS and len(asked[1].encode("utf-8", "replace")) <= 256
        if not is_fit or not 0 < len(password) <= MAX_OCTETS or b"\0" in octets + password:
            return Denied.UNKNOWN
        service = self._settings.service or SERVICES.get(attempt.protocol, attempt.protocol)
        answer = await self._ask(format_question(asked[0], password, service or "imap", asked[1]))
        return Identity(name) if answer[:2] == b"OK" else Denied.UNKNOWN

    async def verify(self, user: str, password: bytes) -> Identity | None:
        """See AuthBackend."""
        answer = await self.check(LoginAttempt("imap", "", "", False), user, password)
        return answer if isinstance(answer, Identity) else None

    async def lookup(self, user: str) -> Identity | None:
        """See AuthBackend. It cannot be asked: whoever is vouched for is believed to be there."""
        return Identity(user.lower() if self._settings.lower_case else user)

    async def diagnose(self) -> Sequence[Fault]:
        """See Diagnoses: whether it answers somebody whom there cannot be."""
        try:
            service = self._settings.service or "imap"
            await self._ask(format_question("murder-looks", b"x", service, self._settings.realm))
        except UpstreamFailure as failure:
            what, _, cure = failure.text.partition("; ")
            return [Fault(f"saslauthd: {what}", cure or "its log tells more (auth.log)")]
        return []

    async def _ask(self, question: bytes) -> bytes:
        settings = self._settings
        try:
            async with asyncio.timeout(settings.timeout_s):
                answer = await self._converse(question)
        except TimeoutError:
            text = f"no answer in {settings.timeout_s:g} s; is what it asks well? more processes: its -n, and at_once"
            raise UpstreamFailure(UpstreamKind.TIMEOUT, SERVER, text) from None
        except PermissionError:
            text = f"{settings.socket} may not be opened; put its user into the group sasl (`usermod -aG sasl murder`)"
            raise UpstreamFailure(UpstreamKind.CONNECT, SERVER, text) from None
        except (FileNotFoundError, ConnectionRefusedError):
            text = f"nobody listens at {settings.socket}; start saslauthd, or set plugins.auth_saslauthd.socket"
            raise UpstreamFailure(UpstreamKind.CONNECT, SERVER, text) from None
        except (OSError, asyncio.IncompleteReadError) as error:
            text = f"it broke off ({error}); its log tells more (auth.log)"
            raise UpstreamFailure(UpstreamKind.LOST, SERVER, text) from None
        if TROUBLE.search(answer):
            said = ascii(answer[3:].decode("utf-8", "replace"))[1:-1]
            text = f"it says: {said}; does what stands behind it run (its -a and -O)? its log tells more (auth.log)"
            raise UpstreamFailure(UpstreamKind.AUTH_TEMPORARY, SERVER, text)
        return answer

    async def _converse(self, question: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self._settings.socket))
        try:
            writer.write(question)
            await writer.drain()
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            if length > MAX_ANSWER:
                text = "that is not how a saslauthd answers; set plugins.auth_saslauthd.socket"
                raise UpstreamFailure(UpstreamKind.PROTOCOL, SERVER, text)
            return await reader.readexactly(length)
        finally:
            writer.close()
