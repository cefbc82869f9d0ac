"""Authentication: bearer tokens of an identity provider, by OAUTHBEARER and XOAUTH2; see RFC 7628.

With `issuer` tokens are JWTs that are checked here: the signature by the provider's keys (RFC 7517), which are fetched when
they are needed, kept, and fetched again for a key that is new; issuer, audience, times; and algorithms only of the list,
which knows none that a public key could be abused for. With `introspection` the provider is asked about each token (RFC
7662). The claim `user` says who it is.

An outage of the provider is no wrong token: clients hear "try again later". Passwords are no business of this plugin.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import math
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from murder.api import Denied, Fault, Identity, LoginAttempt, hookimpl
from murder.api.authorities import context_believing
from murder.errors import (
    ScopeMissing,
    UpstreamFailure,
    UpstreamKind,
    why_not_believed,
)
from murder.kit.http import make_client, read_body

if TYPE_CHECKING:
    import httpx

ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""With a public key: none of those where who knows it can sign (HS256), nor `none`."""
MAX_ANSWER: Final = 1 << 17  # octets: JSON is read in one go, in some milliseconds
MAX_KEYS: Final = 100
MAX_KEY_TEXT: Final = 2800  # characters of one number; 16,384 bits of RSA have 2,731
MAX_TOKEN_HEADER: Final = 4096  # characters; who is not known may send it
AWAY_S: Final = 5.0  # a provider whose keys could not be had is not asked again for so long
AGAIN_S: Final = 5.0  # a key that is not there is not asked for more often; a token that has a new one waits so long
STALE_S: Final = 30.0  # keys that are old are not asked for more often
HEADERS: Final = MappingProxyType({"Accept": "application/json", "Accept-Encoding": "identity"})
WELL_KNOWN: Final = "/.well-known/openid-configuration"
ON_THIS_HOST: Final = frozenset(("http", host) for host in ("127.0.0.1", "::1", "localhost"))
FORBIDDEN: Final = frozenset(' /%*"\\')

log = logging.getLogger("murder.plugins.auth_oauth")


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.auth_oauth]."""

    issuer: str = field(
        default="",
        metadata={"doc": "Who issues the tokens, as in their `iss`: https://id.example.org."},
    )
    audience: tuple[str, ...] = field(
        default=(), metadata={"doc": "For whom tokens are: one of these must be in their `aud`."}
    )
    algorithms: tuple[str, ...] = field(
        default=("RS256", "ES256"), metadata={"doc": "How tokens are signed; no others are taken."}
    )
    jwks_url: str = field(
        default="",
        metadata={"doc": "The issuer's keys; empty: as its openid-configuration says."},
    )
    keys_s: float = field(
        default=3600.0, metadata={"doc": "So long its keys are believed without a look."}
    )
    leeway_s: float = field(
        default=60.0, metadata={"doc": "So far the clocks may be apart.", "least": 0}
    )
    introspection: str = field(
        default="",
        metadata={"doc": "The URL to ask about each token (RFC 7662), in place of a check here."},
    )
    client_id: str = field(default="", metadata={"doc": "As whom the provider is asked there."})
    client_secret: str = field(default="", metadata={"doc": "Its secret.", "secret": True})
    user: str = field(
        default="preferred_username",
        metadata={"doc": "The claim with the user id: preferred_username, email, sub."},
    )
    strip_domain: bool = field(
        default=True, metadata={"doc": "The user id is what is before the @ of it."}
    )
    domains: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "What may be behind that @. Empty: nothing, or with strip_domain = false anything."
        },
    )
    groups: str = field(default="groups", metadata={"doc": "The claim with the groups."})
    required_scope: str = field(
        default="", metadata={"doc": "A word that must be in the token's scope; told to clients."}
    )
    openid_configuration: str = field(
        default="",
        metadata={"doc": "The URL that clients are told; empty: the issuer's well-known one."},
    )
    ca: Path | None = field(
        default=None, metadata={"doc": "The authority of its certificate; empty: the system's."}
    )
    timeout_s: float = field(default=8.0, metadata={"doc": "Waiting for the provider."})

    def __post_init__(self) -> None:
        if bool(self.issuer) == bool(self.introspection):
            raise ValueError("set issuer (tokens are checked here) or introspection, one of them")
        if self.issuer and not self.audience:
            raise ValueError("set audience: without, tokens for other services would be taken")
        unknown = sorted(set(self.algorithms) - ALGORITHMS)
        if unknown or not self.algorithms:
            known = ", ".join(sorted(ALGORITHMS))
            raise ValueError(f"algorithms are of {known}; not {', '.join(unknown) or 'none'}")
        for url in filter(None, (self.issuer, self.jwks_url, self.introspection)):
            parts = urlsplit(url)
            if parts.scheme != "https" and (parts.scheme, parts.hostname) not in ON_THIS_HOST:
                text = "who is on the way could make tokens; http:// is for this host only, as http://127.0.0.1"
                raise ValueError(f"{url!r} does not begin with https://: {text}")


@hookimpl
def make_auth_backend(settings: Settings) -> OAuth:
    """The backend for one process. What it needs is loaded now: in the middle of a login all others would wait for that."""
    for module in ("httpx", "httpcore", "anyio._backends._asyncio", "jwt"):
        importlib.import_module(module)
    return OAuth(settings)


class _NotTaken(Exception):
    """Why, and the cure."""


def _shown(value: object) -> str:
    """Of what a stranger has written, for the log."""
    return ascii(value)[:100]


def _late(expires_at: float) -> str:
    """By the clock of this node."""
    ago_s = time.time() - expires_at
    return (
        f"it has expired {ago_s:.0f} s ago by the clock here; the client must get a new one, and where that does not "
        "help one of the two clocks is wrong (NTP; plugins.auth_oauth.leeway_s)"
    )


def _for_others(named: object) -> str:
    return f"it is for {_shown(named)}; name that in plugins.auth_oauth.audience, if these are tokens for mail"


def _reason(error: Exception, token: str) -> str:
    """Why the library takes it not; what stands in the token was believed by nobody."""
    import jwt

    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        claims = {}
    match error:
        case jwt.ExpiredSignatureError():
            return _late(_seconds(claims.get("exp")) or 0)
        case jwt.ImmatureSignatureError():
            return "it counts only later, by the clock here; set both clocks (NTP; plugins.auth_oauth.leeway_s)"
        case jwt.InvalidIssuerError():
            return f"it is issued by {_shown(claims.get('iss'))}; plugins.auth_oauth.issuer is just that, letter by letter"
        case jwt.InvalidAudienceError():
            return _for_others(claims.get("aud"))
        case jwt.MissingRequiredClaimError():
            return f"it has no claim {error.claim}; the provider must put it in"
        case jwt.InvalidSignatureError():
            return "its signature is wrong; is the token from that issuer?"
    return f"it is not valid ({_shown(str(error))})"


class OAuth:
    """Fulfils AuthBackend, ChecksTokens, Diagnoses."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._verify = context_believing(settings.ca, "plugins.auth_oauth.ca")
        self._domains = frozenset(domain.lower() for domain in settings.domains)
        self._keys: dict[str, Any] = {}  # of jwt.PyJWK, by their names
        self._keys_at = float("-inf")
        self._looked_at = float("-inf")  # the beginning of the last look that told something
        self._tried_at = float("-inf")  # the last one's end
        self._away: UpstreamFailure | None = None  # why that had no keys
        self._fetching = asyncio.Lock()
        self._made: tuple[object, httpx.AsyncClient] | None = None
        self._provider_ahead_s = 0.0  # by the last answer's Date

    @property
    def openid_configuration(self) -> str:
        """See ChecksTokens."""
        settings = self._settings
        by_issuer = settings.issuer and settings.issuer.rstrip("/") + WELL_KNOWN
        return settings.openid_configuration or by_issuer

    @property
    def scope(self) -> str:
        """See ChecksTokens."""
        return self._settings.required_scope

    async def verify(self, user: str, password: bytes) -> Identity | None:
        """See AuthBackend. Passwords are the next plugin's."""
        return None

    async def lookup(self, user: str) -> Identity | None:
        """See AuthBackend. A provider knows users by their tokens only."""
        return None

    async def check_token(self, attempt: LoginAttempt, user: str, token: str) -> Identity | Denied:
        """See ChecksTokens. Why a token is not taken stands in the log, with the cure."""
        try:
            if self._settings.introspection:
                claims = await self._introspect(token)
            else:
                claims = await self._checked(token)
            identity = self._identity(claims)
        except _NotTaken as reason:
            log.warning("a token is not taken: %s", reason)
            return Denied.UNKNOWN
        wanted = self._settings.required_scope
        scopes = claims.get("scope") or claims.get("scp") or ""
        words = scopes.split() if isinstance(scopes, str) else _texts(scopes)
        if wanted and wanted not in words:
            log.warning(
                "a token is not taken: its scope is %s; the provider must give %s to mail programs, or set "
                "plugins.auth_oauth.required_scope",
                *(_shown(" ".join(words)), wanted),
            )
            raise ScopeMissing(wanted, self.openid_configuration)
        return identity

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        """Raises _NotTaken."""
        settings = self._settings
        claimed = claims.get(settings.user)
        if not isinstance(claimed, str):
            text = f"it has no claim {settings.user}; plugins.auth_oauth.user names the one with the user id"
            raise _NotTaken(text)
        if settings.user == "email" and claims.get("email_verified") is False:
            raise _NotTaken(
                f"{_shown(claimed)} is verified by nobody; the provider must do so, or name another claim in "
                "plugins.auth_oauth.user"
            )
        user = claimed.lower()
        local, at, domain = user.rpartition("@")
        if at and domain not in self._domains and (self._domains or settings.strip_domain):
            text = f"{_shown(claimed)} is of another domain; plugins.auth_oauth.domains names those that are yours"
            raise _NotTaken(text)
        if at and settings.strip_domain:
            user = local
        if not 0 < len(user) <= 256 or not user.isprintable() or not FORBIDDEN.isdisjoint(user):
            text = f"{_shown(user)} is fit for no user id; name another claim in plugins.auth_oauth.user"
            raise _NotTaken(text)
        groups = _texts(claims.get(settings.groups))
        expires_at = _seconds(claims.get("exp"))
        email, name = claims.get("email"), claims.get("name")
        addresses = [text for text in (email, claimed) if isinstance(text, str) and "@" in text]
        return Identity(
            user,
            frozenset(filter(str.isprintable, groups)),
            tuple(dict.fromkeys(addresses)),
            name if isinstance(name, str) else "",
            expires_at=None if expires_at is None else expires_at + settings.leeway_s,
        )

    # --- tokens that are checked here

    async def _checked(self, token: str) -> Mapping[str, Any]:
        """The claims of a good token. Raises _NotTaken, and UpstreamFailure where its key cannot be had now."""
        import jwt

        settings = self._settings
        if token.find(".") > MAX_TOKEN_HEADER:
            raise _NotTaken("its header is too long")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, RecursionError):
            text = (
                "it is not a JWT; a provider of others is asked by plugins.auth_oauth.introspection"
            )
            raise _NotTaken(text) from None
        if header.get("alg") not in settings.algorithms:
            text = f"it is signed by {_shown(header.get('alg'))}; plugins.auth_oauth.algorithms has what is taken"
            raise _NotTaken(text)
        name = str(header.get("kid", ""))
        key = await self._key(name)
        if key is None:
            raise _NotTaken(f"the issuer has no key {_shown(name)}; is the token from there?")
        return await asyncio.to_thread(self._decoded, token, key, str(header["alg"]))

    def _decoded(self, token: str, key: Any, algorithm: str) -> Mapping[str, Any]:
        """A signature is counted in a thread; it costs a tenth of a millisecond to a few. Raises _NotTaken."""
        import jwt

        settings = self._settings
        if key.algorithm_name and key.algorithm_name != algorithm:
            raise _NotTaken(f"its key is none for {algorithm}; is the token from that issuer?")
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=settings.issuer,
                audience=list(settings.audience),
                leeway=settings.leeway_s,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.InvalidTokenError as error:
            raise _NotTaken(_reason(error, token)) from None
        except (jwt.InvalidKeyError, TypeError, ValueError, RecursionError):
            raise _NotTaken("its signature cannot be checked") from None
        return claims

    def _known(self, name: str) -> Any:
        """A key that is here; without a name, the only one."""
        if not name and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(name)

    async def _key(self, name: str) -> Any:
        """The issuer's key of that name; None where it has none. Raises UpstreamFailure where that cannot be known now."""
        asked_at = time.monotonic()
        known = self._known(name)
        believed_s = self._settings.keys_s if name else min(self._settings.keys_s, STALE_S)
        if known is not None and asked_at - self._keys_at <= believed_s:
            return known
        if not name and len(self._keys) > 1 and asked_at - self._keys_at <= believed_s:
            return None  # which one it is, it does not say
        self._client()  # of this loop, and its lock
        if known is not None:
            # one looks, for the others it goes on counting; for all where the provider is away
            if not self._fetching.locked() and asked_at - self._tried_at >= STALE_S:
                async with self._fetching:
                    with contextlib.suppress(UpstreamFailure):
                        await self._fetch()
            return self._known(name)
        async with self._fetching:
            if self._looked_at < asked_at:
                await self._look_for_new()
            elif self._away is not None:
                raise self._away
        return self._known(name)

    async def _look_for_new(self) -> None:
        """A look for a key that nobody knew, not before its time: whoever asks meanwhile waits for the same one."""
        left_s = self._tried_at - time.monotonic()
        if self._away is not None and left_s + AWAY_S > 0:
            raise self._away  # nobody waits in line for the same silence
        if left_s + AGAIN_S > 0:
            await asyncio.sleep(left_s + AGAIN_S)
        await self._fetch()

    async def _fetch(self) -> None:
        """Get the keys. Where they cannot be had those that are known stay. Whoever waits for a look that was broken off
        has learned nothing by it, and looks."""
        began = time.monotonic()
        try:
            self._keys = await self._keys_of_issuer()
            self._looked_at, self._keys_at = began, time.monotonic()
            self._away = None
        except UpstreamFailure as failure:
            self._looked_at, self._away = began, failure
            raise
        finally:
            self._tried_at = time.monotonic()

    async def _keys_of_issuer(self) -> dict[str, Any]:
        settings = self._settings
        url = settings.jwks_url
        if not url:
            configuration = await self._get(settings.issuer.rstrip("/") + WELL_KNOWN)
            named = configuration.get("issuer")
            if not isinstance(named, str):
                text = "what is at its openid-configuration names no issuer; is plugins.auth_oauth.issuer right?"
                raise self._failed(UpstreamKind.PROTOCOL, text)
            if named != settings.issuer:
                text = f"it calls itself {named!r}; set plugins.auth_oauth.issuer to just that"
                raise self._failed(UpstreamKind.PROTOCOL, text)
            url = str(configuration.get("jwks_uri", ""))
            if settings.issuer.startswith("https:") and not url.startswith("https:"):
                text = f"its keys are at {url[:200]!r}, which is not https://; set plugins.auth_oauth.jwks_url"
                raise self._failed(UpstreamKind.PROTOCOL, text)
        listed = (await self._get(url)).get("keys")
        keys = await asyncio.to_thread(_read_keys, listed if isinstance(listed, list) else [])
        if not keys:
            text = f"{url} has no key that tokens are signed with; set plugins.auth_oauth.jwks_url"
            raise self._failed(UpstreamKind.PROTOCOL, text)
        return keys

    # --- tokens that the provider is asked about

    async def _introspect(self, token: str) -> Mapping[str, Any]:
        """Raises _NotTaken, UpstreamFailure."""
        settings = self._settings
        form = {"token": token, "token_type_hint": "access_token"}
        claims = await self._ask("POST", settings.introspection, form)
        if claims.get("active") is not True:
            raise _NotTaken(
                "the provider says that it is not active; the client must get a new one"
            )
        expires_at = _seconds(claims.get("exp"))
        if expires_at is not None and expires_at + settings.leeway_s < time.time():
            raise _NotTaken(_late(expires_at))
        audience = claims.get("aud")
        named = [audience] if isinstance(audience, str) else _texts(audience)
        if settings.audience and not set(settings.audience) & set(named):
            raise _NotTaken(_for_others(named))
        if settings.user not in claims and "username" in claims:
            claims = {**claims, settings.user: claims["username"]}
        return claims

    # --- HTTP

    async def _get(self, url: str) -> Mapping[str, Any]:
        return await self._ask("GET", url, None)

    async def _ask(
        self, method: str, url: str, form: Mapping[str, str] | None
    ) -> Mapping[str, Any]:
        """The JSON object of an answer. Raises UpstreamFailure, with the cure behind a semicolon."""
        import httpx

        settings = self._settings
        try:
            async with asyncio.timeout(settings.timeout_s):
                return await self._exchange(method, url, form)
        except (TimeoutError, httpx.TimeoutException):
            text = f"{url}: no answer in {settings.timeout_s:g} s; does the provider run?"
            raise self._failed(UpstreamKind.TIMEOUT, text) from None
        except httpx.ConnectError as error:
            raise self._failed(*_unreachable(url, error)) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(UpstreamKind.LOST, f"{url}: {error}; its log tells more") from None

    async def _exchange(
        self, method: str, url: str, form: Mapping[str, str] | None
    ) -> Mapping[str, Any]:
        settings = self._settings
        auth = (settings.client_id, settings.client_secret) if form and settings.client_id else None
        async with self._client().stream(
            method, url, data=form, auth=auth, headers=HEADERS
        ) as response:
            status: int = response.status_code
            if "Age" not in response.headers:  # some cache's
                self._provider_ahead_s = _ahead_s(response.headers.get("Date", ""))
            if response.headers.get("Content-Encoding", "identity") != "identity":
                text = f"{url}: its answer is compressed, which nobody has asked for"
                raise self._failed(UpstreamKind.PROTOCOL, text)
            octets = await read_body(response, MAX_ANSWER)
            if octets is None:
                raise self._failed(UpstreamKind.PROTOCOL, f"{url}: its answer is too long")
        if status in (401, 403):
            text = f"{url}: it does not let us ask ({status}); set client_id and client_secret"
            raise self._failed(UpstreamKind.AUTH, text)
        if status != 200:
            text = f"{url}: it answers with status {status}; is the URL right? its log tells more"
            raise self._failed(UpstreamKind.PROTOCOL, text)
        try:
            answer = json.loads(octets)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            text = f"{url}: the answer is not a JSON object; is the URL right?"
            raise self._failed(UpstreamKind.PROTOCOL, text)
        return cast(Mapping[str, Any], answer)

    def _client(self) -> httpx.AsyncClient:
        """One for each event loop."""
        loop = asyncio.get_running_loop()
        if self._made is None or self._made[0] is not loop:
            self._fetching = asyncio.Lock()
            client = make_client(self._verify, self._settings.timeout_s, MAX_ANSWER)
            self._made = (loop, client)
        return self._made[1]

    def _failed(self, kind: UpstreamKind, text: str) -> UpstreamFailure:
        settings = self._settings
        return UpstreamFailure(
            kind, urlsplit(settings.issuer or settings.introspection).netloc, text
        )

    async def diagnose(self) -> Sequence[Fault]:
        """See Diagnoses: whether the keys can be had, or a token be asked about."""
        try:
            if self._settings.introspection:
                with contextlib.suppress(_NotTaken):
                    await self._introspect("murder-looks")
            else:
                await self._keys_of_issuer()
        except UpstreamFailure as failure:
            what, _, cure = failure.text.rpartition("; ")
            return [Fault(what or failure.text, cure if what else "its log tells more")]
        ahead_s = self._provider_ahead_s
        if abs(ahead_s) > self._settings.leeway_s + 1:  # a Date has whole seconds
            way = "ahead of" if ahead_s > 0 else "behind"
            what = f"the provider's clock is {abs(ahead_s):.0f} s {way} the one here"
            cure = (
                "set both clocks (NTP); plugins.auth_oauth.leeway_s says how far apart they may be"
            )
            return [Fault(what, f"{cure}: tokens would be refused as expired, or as too early")]
        return []


def _unreachable(url: str, error: Exception) -> tuple[UpstreamKind, str]:
    """Why there is no connection, with the cure behind a semicolon."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    match cause:
        case ssl.SSLCertVerificationError():
            cure = "put the certificate of its authority into plugins.auth_oauth.ca"
            said, cure = why_not_believed(cause, cure)
            return UpstreamKind.TLS, f"{url}: {said}; {cure}"
        case ssl.SSLError():
            cure = "no TLS is spoken there: http://, or another port?"
            return UpstreamKind.TLS, f"{url}: TLS failed: {cause.reason or cause}; {cure}"
        case socket.gaierror():
            cure = "put that name into DNS or /etc/hosts; is the URL right?"
            return UpstreamKind.CONNECT, f"{url}: {cause.strerror or cause}; {cure}"
    return UpstreamKind.CONNECT, f"{url}: {error}; does the provider run? is the URL right?"


def _texts(listed: object) -> list[str]:
    """Of what should be a list of them."""
    return [text for text in listed if isinstance(text, str)] if isinstance(listed, list) else []


def _ahead_s(date: str) -> float:
    """How far the clock of who has written this Date is ahead of ours; 0 where that says nothing."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0


def _seconds(value: object) -> float | None:
    """A time of a token; None where that is none. JSON has numbers that no float can be, and Python's NaN."""
    if not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _read_keys(listed: Sequence[object]) -> dict[str, Any]:
    """The keys of those kinds that we know, by their names. In a thread: each is computed with."""
    import jwt

    keys: dict[str, Any] = {}
    for entry in listed[:MAX_KEYS]:
        if (
            not isinstance(entry, dict)
            or entry.get("use", "sig") != "sig"
            or entry.get("kty") == "oct"
        ):
            continue
        if any(isinstance(value, str) and len(value) > MAX_KEY_TEXT for value in entry.values()):
            continue
        try:
            keys[str(entry.get("kid", ""))] = jwt.PyJWK.from_dict(entry)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue  # of a kind that we do not know
    return keys
