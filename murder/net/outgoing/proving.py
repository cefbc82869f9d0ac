"""How this node gets in at another server, and for whom: by its certificate, a proxy user's password, or a ticket.

The octets of each step without base64; how they are framed is the protocols'. A ticket is asked of the KDC, and may be
long in coming: in threads of its own, `AT_ONCE` at a time, so that a KDC that is silent holds up nothing else.
"""

import asyncio
import re
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from murder.errors import BadSyntax, UpstreamFailure, UpstreamKind
from murder.kerberos import Initiator, KerberosError, Library
from murder.session.sasl import plain_response

AT_ONCE: Final = 8
GSSAPI: Final = "gssapi"
SERVICES: Final = {"pop3": "pop"}  # as Kerberos calls them, where that is not the protocol's name
MASTER: Final = "mupdate"
_OF_A_TICKET: Final = (
    "its log says why: a clock (NTP), a key that is not in its keytab (`klist -k`), or this node's principal, to be named "
    "in its %s, one with an instance in plugins.sasl_gssapi.nodes, too"
)
CURES: Final[Mapping[str, str]] = {  # of a refusal, by what was shown
    GSSAPI: _OF_A_TICKET % "backend.proxies (Cyrus: proxyservers)",
    "plain": "is proxy_user named in its backend.proxies (Cyrus: proxyservers), and is that its password there?",
    MASTER: _OF_A_TICKET % "mupdate.users (Cyrus: admins)",
}
_CODE: Final = re.compile(rb"\[([A-Z-]+)")
_OF_US: Final = frozenset({b"AUTHENTICATIONFAILED", b"AUTHORIZATIONFAILED", b"AUTH"})


@dataclass(frozen=True, slots=True)
class Proof:
    """A client's side of one exchange. `initial`: None where the server must ask first. `answer` takes a challenge; None
    where there are none. It raises UpstreamFailure. `cure`: where to look if it is refused."""

    mechanism: bytes
    initial: bytes | None
    answer: Callable[[bytes], Awaitable[bytes]] | None = None
    cure: str = ""

    @property
    def first(self) -> bytes:
        """The initial response in base64, behind a blank; nothing where there is none."""
        return b"" if self.initial is None else b" " + (b64encode(self.initial) or b"=")

    async def reply(self, challenge: bytes) -> bytes:
        """The answer to a challenge, both in base64. Raises UpstreamFailure, ValueError for what is no base64."""
        octets = b64decode(challenge.strip(), validate=True)
        return b"" if self.answer is None else b64encode(await self.answer(octets))


def by_certificate(user: str) -> Proof:
    """As the node, on behalf of the user ("": of itself)."""
    return Proof(b"EXTERNAL", user.encode())


def by_password(user: str, own: str, password: str, cure: str = "") -> Proof:
    """As `own`, on behalf of the user."""
    return Proof(b"PLAIN", plain_response(user, own, password.encode()), cure=cure)


def cure_of(cure: str, line: bytes) -> str:
    """That of a proof, where the line that refuses it is about this node; "" where its code says it is about the user."""
    match = _CODE.search(line)
    return cure if match is None or match[1] in _OF_US else ""


def ticket_problem(keytab: Path | None) -> str:
    """Why this node cannot have any tickets, as far as that can be told without a KDC; "" where it may."""
    try:
        Library()
        if keytab is not None:
            keytab.open("rb").close()
    except OSError as error:
        if error.filename:
            return f"node.keytab cannot be read: {error}"
        return f"there is no GSSAPI here ({error}): install libgssapi-krb5-2"
    return ""


class Tickets:
    """Those of this node. `keytab`: its keys; None: what the system has for this process."""

    def __init__(self, keytab: Path | None) -> None:
        self.keytab = keytab
        self._library: Library | None = None
        self._threads: ThreadPoolExecutor | None = None

    def proof(self, server: str, protocol: str, host: str, user: str, principal: str) -> Proof:
        """To `protocol` at `host` (in errors: `server`), for `user`, as `principal` ("": the first of the keytab)."""
        service = SERVICES.get(protocol, protocol)
        initiator: Initiator | None = None

        def step(challenge: bytes) -> bytes:
            nonlocal initiator
            if initiator is None:
                if self._library is None:
                    self._library = Library()
                words = (service, host, user, self.keytab, principal)
                initiator = Initiator(self._library, *words)
            return initiator.step(challenge)

        async def answer(challenge: bytes) -> bytes:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(AT_ONCE, "tickets")
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, step, challenge
                )
            except KerberosError as error:
                text = f"no Kerberos ticket for {service}/{host}: {error.said}"
                raise UpstreamFailure(UpstreamKind.AUTH, server, text, error.cure) from error
            except OSError as error:
                text, cure = f"no GSSAPI: {error}", "install libgssapi-krb5-2"
                raise UpstreamFailure(UpstreamKind.AUTH, server, text, cure) from error
            except BadSyntax as error:
                raise UpstreamFailure(UpstreamKind.PROTOCOL, server, str(error)) from error

        return Proof(b"GSSAPI", None, answer, CURES.get(protocol, CURES[GSSAPI]))
