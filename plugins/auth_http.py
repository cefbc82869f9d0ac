"""Authentication: a script of the site is asked over HTTP, by the contract of nginx's mail proxy (`auth_http`).

A request has no body; its headers say who wants in: `Auth-Method`, `Auth-User`, `Auth-Pass` (with %, space and control
octets as %XX), `Auth-Protocol`, `Auth-Login-Attempt`, `Client-IP`, `Auth-SSL`. The answer is 200 with `Auth-Status: OK`, or
with what the client is told in place of OK. `Auth-User` in the answer is who it is; `Auth-Server` and `Auth-Port` where they
are at home (`host` of the identity). Ours in addition, where the script says them: `Auth-Groups` and `Auth-Addresses` (with
commas), `Auth-Name`.

A script by nginx's contract refuses with a text, and does not tell an unknown user from a wrong password: the next plugin is
asked. `Auth-Error-Code` that begins with 4 is "try again later". Whom a node vouches for is believed to be there.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import ssl
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_from_bytes, unquote, urlsplit

from murder.api import Denied, Fault, Identity, LoginAttempt, hookimpl
from murder.api.authorities import context_believing
from murder.errors import UpstreamFailure, UpstreamKind, why_not_believed
from murder.kit.http import make_client

if TYPE_CHECKING:
    import httpx

MAX_OCTETS: Final = 1024  # of a name or a password
PROTOCOLS: Final = frozenset({"imap", "pop3", "smtp"})  # the words that scripts of nginx know
SAFE: Final = bytes(octet for octet in range(0x21, 0x7F) if octet != 0x25)
CURES: Final[Mapping[UpstreamKind, str]] = MappingProxyType(
    {
        UpstreamKind.CONNECT: "does the script's server run? is plugins.auth_http.url right? a firewall?",
        UpstreamKind.TLS: "put the certificate of its authority into plugins.auth_http.ca",
        UpstreamKind.TIMEOUT: "look at the script and what it asks; or raise plugins.auth_http.timeout_s",
        UpstreamKind.PROTOCOL: "call the url with curl and look: it must answer 200 with Auth-Status",
        UpstreamKind.LOST: "look at the log of the script's server",
        UpstreamKind.AUTH_TEMPORARY: "look at what the script asks, and at its log",
    }
)
NO_TLS: Final = (
    "plugins.auth_http.url says https://, and no TLS is spoken there: http://, or another port?"
)
NO_NAME: Final = "put that name into DNS or /etc/hosts, or set plugins.auth_http.url"


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.auth_http]."""

    url: str = field(
        default="http://127.0.0.1:9000/auth", metadata={"doc": "The script. https:// is better."}
    )
    headers: tuple[str, ...] = field(
        default=(), metadata={"doc": "More headers of each request, as nginx's auth_http_header."}
    )
    key: str = field(
        default="",
        metadata={
            "doc": "Sent as X-Auth-Key, so that the script knows its callers.",
            "secret": True,
        },
    )
    ca: Path | None = field(
        default=None, metadata={"doc": "The authority of its certificate; empty: the system's."}
    )
    at_once: int = field(
        default=32, metadata={"doc": "Questions at a time, in each process.", "least": 1}
    )
    timeout_s: float = field(default=10.0, metadata={"doc": "Waiting for an answer."})
    send_protocol: str = field(
        default="",
        metadata={"doc": "Said as Auth-Protocol always; empty: imap, pop3, and imap for others."},
    )

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError("url begins with http:// or https://")
        for line in self.headers:
            name, colon, _ = line.partition(":")
            if not colon or not name.strip() or not line.isascii() or not line.isprintable():
                raise ValueError(f"headers are `Name: value`, not {line!r}")


@hookimpl
def make_auth_backend(settings: Settings) -> AuthHttp:
    """The backend for one process. What it needs is loaded now: in the middle of a login all others would wait for that."""
    for module in ("httpx", "httpcore", "anyio._backends._asyncio"):
        importlib.import_module(module)
    return AuthHttp(settings)  # its authorities are read here, too


def escaped(octets: bytes) -> str:
    """As nginx sends names and passwords: what would end a header, and `%`, as %XX."""
    return quote_from_bytes(octets, safe=SAFE)


class AuthHttp:
    """Fulfils AuthBackend, BelievesAnybody, ChecksAttempts, ChecksFewAtOnce, Diagnoses."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._verify: ssl.SSLContext | bool = False  # without TLS no authorities are read
        if settings.url.startswith("https:"):
            self._verify = context_believing(settings.ca, "plugins.auth_http.ca")
        self._made: tuple[object, httpx.AsyncClient] | None = None
        self._host = urlsplit(settings.url).netloc

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
        """See ChecksAttempts: a script may look at all that it is told."""
        return ("protocol", "address", "is_tls")

    async def check(self, attempt: LoginAttempt, user: str, password: bytes) -> Identity | Denied:
        """See ChecksAttempts."""
        octets = user.encode("utf-8", "surrogateescape")
        if not octets or not password or max(len(octets), len(password)) > MAX_OCTETS:
            return Denied.UNKNOWN
        return self._decision(user, await self._ask(attempt, octets, password))

    async def verify(self, user: str, password: bytes) -> Identity | None:
        """See AuthBackend."""
        answer = await self.check(LoginAttempt("imap", "", "127.0.0.1", False), user, password)
        return answer if isinstance(answer, Identity) else None

    async def lookup(self, user: str) -> Identity | None:
        """See AuthBackend. The contract has no such question: whoever is vouched for is believed to be there."""
        return Identity(user)

    async def diagnose(self) -> Sequence[Fault]:
        """See Diagnoses: whether it answers about somebody whom there cannot be."""
        attempt = LoginAttempt("imap", "", "127.0.0.1", False)
        try:
            answer = await self._ask(attempt, b"murder-looks", b"x")
            self._decision("murder-looks", answer)
        except UpstreamFailure as failure:
            what, _, cure = failure.text.rpartition("; ")
            return [Fault(f"{self._settings.url}: {what}", cure)]
        return []

    def _decision(self, user: str, answer: Mapping[str, str]) -> Identity | Denied:
        status = answer.get("auth-status", "")
        if not status:
            raise self._failed(UpstreamKind.PROTOCOL, "its answer has no Auth-Status")
        if status != "OK":
            if answer.get("auth-error-code", "").startswith("4"):
                raise self._failed(UpstreamKind.AUTH_TEMPORARY, "it says: try again later")
            return Denied.UNKNOWN
        name = unquote(answer.get("auth-user", "")) or user
        port = answer.get("auth-port", "")
        return Identity(
            name,
            frozenset(_listed(answer.get("auth-groups", ""))),
            tuple(_listed(answer.get("auth-addresses", ""))),
            unquote(answer.get("auth-name", "")),
            answer.get("auth-server", ""),
            MappingProxyType({"port": port} if port else {}),
        )

    async def _ask(self, attempt: LoginAttempt, user: bytes, password: bytes) -> Mapping[str, str]:
        """The headers of the answer, by their names in small letters. Raises UpstreamFailure."""
        import httpx  # here: only who names this plugin needs it

        settings = self._settings
        protocol = attempt.protocol if attempt.protocol in PROTOCOLS else "imap"
        headers = {
            "Auth-Method": "plain",
            "Auth-User": escaped(user),
            "Auth-Pass": escaped(password),
            "Auth-Protocol": settings.send_protocol or protocol,
            "Auth-Login-Attempt": str(attempt.number),
            "Client-IP": attempt.address,
            **({"Auth-SSL": "on"} if attempt.is_tls else {}),
            **({"X-Auth-Key": settings.key} if settings.key else {}),
        }
        for line in settings.headers:
            name, _, value = line.partition(":")
            headers[name.strip()] = value.strip()
        try:
            async with asyncio.timeout(settings.timeout_s):
                return await self._get(headers)
        except (TimeoutError, httpx.TimeoutException):
            text = f"no answer in {settings.timeout_s:g} s"
            raise self._failed(UpstreamKind.TIMEOUT, text) from None
        except httpx.ConnectError as error:
            match _cause(error):
                case ssl.SSLCertVerificationError() as cause:
                    text, cure = why_not_believed(cause, CURES[UpstreamKind.TLS])
                    raise self._failed(UpstreamKind.TLS, text, cure) from None
                case ssl.SSLError() as cause:
                    text = f"TLS failed: {cause.reason or cause}"
                    raise self._failed(UpstreamKind.TLS, text, NO_TLS) from None
                case socket.gaierror() as cause:
                    text = f"{cause.strerror or cause}"
                    raise self._failed(UpstreamKind.CONNECT, text, NO_NAME) from None
            raise self._failed(UpstreamKind.CONNECT, str(error) or "no connection") from None
        except httpx.HTTPError as error:
            raise self._failed(UpstreamKind.LOST, f"it broke off ({error})") from None

    async def _get(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        async with self._client().stream("GET", self._settings.url, headers=headers) as response:
            status: int = response.status_code
            by_name = {name.lower(): value for name, value in response.headers.items()}
        if status == 200:
            return by_name
        text = f"it answers with status {status}"
        raise self._failed(UpstreamKind.PROTOCOL, text)

    def _client(self) -> httpx.AsyncClient:
        """One for each event loop: its connections are kept, and die with it."""
        loop = asyncio.get_running_loop()
        if self._made is None or self._made[0] is not loop:
            settings = self._settings
            client = make_client(self._verify, settings.timeout_s, 0, settings.at_once)
            self._made = (loop, client)
        return self._made[1]

    def _failed(self, kind: UpstreamKind, text: str, cure: str = "") -> UpstreamFailure:
        """With the cure behind a semicolon."""
        return UpstreamFailure(kind, self._host, f"{text}; {cure or CURES[kind]}")


def _listed(text: str) -> list[str]:
    return [unquote(word.strip()) for word in text.split(",") if word.strip()]


def _cause(error: BaseException) -> BaseException:
    """What was at the bottom of it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error
