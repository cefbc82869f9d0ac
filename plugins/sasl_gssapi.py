"""SASL GSSAPI: Kerberos tickets, by RFC 4752, for every protocol; nodes may log in so at a master, as RFC 3656 has it.

`[plugins] use = ["sasl_gssapi"]`. The keytab has a key for each service that clients ask for: `imap/fe1.example.org@REALM`,
`pop/…`, `lmtp/…`, `sieve/…`, `mupdate/…`. A principal of one of `realms` is the user of that name, one with an instance
(`anna/admin`) is nobody, unless it is one of `nodes`. There is no security layer: that is TLS.

The host has MIT's library (Debian: libgssapi-krb5-2); without, there is one line in the log and no such mechanism. What a
ticket is refused for is in the log, too: a clock that is apart, a key that is not in the
keytab.
"""

import asyncio
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from murder.api import (
    AuthBackend,
    Challenge,
    Claim,
    Client,
    Fault,
    Mechanism,
    ProvenCredentials,
    SaslStep,
    hookimpl,
)
from murder.errors import BadSyntax, Code, Refusal
from murder.kerberos import (
    MAX_TOKEN,
    NO_LAYER,
    Initiator,
    KerberosError,
    Library,
    principals_of,
)

SYSTEM_KEYTAB: Final = Path("/etc/krb5.keytab")
LOOK_S: Final = 5.0
LOOKS: Final = itertools.count()
NOT_TOLD: Final = ("client", "policy", "revoked")
FORBIDDEN: Final = frozenset(' /%*"\\')

log = logging.getLogger("murder.plugins.sasl_gssapi")


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.sasl_gssapi]."""

    keytab: Path | None = field(
        default=None, metadata={"doc": "The keys of this node's services; empty: /etc/krb5.keytab."}
    )
    realms: tuple[str, ...] = field(
        default=(), metadata={"doc": "Whose principals are users: EXAMPLE.ORG. Needed."}
    )
    nodes: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "Principals with an instance that are let in all the same, as what stands before the @: Cyrus nodes, "
            "to be named so in mupdate.users and backend.proxies."
        },
    )
    lower_case: bool = field(
        default=True, metadata={"doc": "User names are taken in lower case, as Cyrus does."}
    )


class Exchange:
    """One login."""

    claimed = ""

    def __init__(self, library: Library, settings: Settings) -> None:
        self._library, self._settings = library, settings
        self._context: Any = None
        self._user = ""
        self._answered = False  # our last token, if there was one
        self._offered = False  # the layers

    def __del__(self) -> None:
        self._library.forget(self._context)

    def step(self, response: bytes | None) -> SaslStep:
        """See `api.sasl.Exchange`."""
        if response is None:
            return Challenge(b"")
        if len(response) > MAX_TOKEN:
            raise BadSyntax(f"a token has {MAX_TOKEN} octets at most")
        if self._context is None:
            return Claim("", lambda: self._accept(response))
        if not self._offered:
            if response:
                raise BadSyntax("the answer to the last token is empty")
            return self._offer()
        return self._end(response)

    async def _accept(self, token: bytes) -> Challenge:
        """The library may read files: in a thread."""
        try:
            self._context, answer, principal = await asyncio.to_thread(self._library.accept, token)
        except KerberosError as error:
            raise _refusal(error) from error
        self._user = self._user_of(principal)
        self.claimed = self._user
        return Challenge(answer) if answer else self._offer()

    def _offer(self) -> Challenge:
        self._offered = True
        return Challenge(self._library.wrap(self._context, bytes((NO_LAYER, 0, 0, 0))))

    def _end(self, response: bytes) -> ProvenCredentials:
        try:
            octets = self._library.unwrap(self._context, response)
        except KerberosError as error:
            raise _refusal(error) from error
        if len(octets) < 4 or octets[0] != NO_LAYER:
            raise BadSyntax("there is no security layer here: choose none")
        try:
            authzid = octets[4:].decode("utf-8")
        except UnicodeDecodeError:
            raise BadSyntax("an authorization identity is UTF-8") from None
        return ProvenCredentials(self._user, authzid, b"", "GSSAPI")

    def _user_of(self, principal: str) -> str:
        """Raises Refusal for who is no user."""
        name, _, realm = principal.rpartition("@")
        if principal in self._settings.nodes:
            return name
        if realm not in self._settings.realms or not name or not FORBIDDEN.isdisjoint(name):
            log.warning("the principal %s is no user: see plugins.sasl_gssapi.realms", principal)
            raise Refusal(Code.AUTHENTICATION_FAILED, "That principal is no user here")
        return name.lower() if self._settings.lower_case else name


def _refusal(error: KerberosError) -> Refusal:
    """Told to the log with the cure, to the client without."""
    log.warning("a Kerberos ticket is refused: %s", error)
    return Refusal(Code.AUTHENTICATION_FAILED, "The Kerberos ticket was refused")


@hookimpl
def make_mechanisms(settings: Settings) -> Sequence[Mechanism]:
    """GSSAPI, where the library is there."""
    if not settings.realms:
        raise Refusal(Code.CANNOT, 'set plugins.sasl_gssapi.realms, as ["EXAMPLE.ORG"]')
    try:
        library = Library(settings.keytab)
    except OSError as error:
        log.warning("no GSSAPI: %s; install libgssapi-krb5-2, everything else works", error)
        return ()

    keytab = settings.keytab or SYSTEM_KEYTAB
    try:
        keytab.open("rb").close()
    except OSError as error:
        log.warning(
            "no ticket will be taken: %s: %s; make it with `ktadd -k`, for the node's user",
            *(keytab, error.strerror or error),
        )

    def start(client: Client, users: AuthBackend) -> Exchange:
        return Exchange(library, settings)

    async def diagnose() -> Sequence[Fault]:
        try:
            async with asyncio.timeout(LOOK_S):
                return await asyncio.to_thread(look, library, keytab)
        except TimeoutError:
            what = f"no KDC has answered in {LOOK_S:g} s"
            return [
                Fault(what, "is it running? a firewall between? is it named in /etc/krb5.conf?")
            ]

    return (Mechanism("GSSAPI", start, needs_tls=False, diagnose=diagnose, guessable=False),)


def look(library: Library, keytab: Path) -> Sequence[Fault]:
    """What is wrong with this node's keys, its clock, and the way to the KDC: it gets a ticket for itself and takes that.
    For a thread."""
    try:
        principals = principals_of(keytab.read_bytes())
    except (OSError, ValueError) as error:
        said = (error.strerror if isinstance(error, OSError) else "") or str(error)
        cure = "make it with `ktadd -k`, for the node's user, and name it in plugins.sasl_gssapi.keytab"
        return [Fault(f"{keytab}: {said}", cure)]
    own = next((principal for principal in principals if "/" in principal), "")
    if not own:
        text = f"{keytab} has no key of a service"
        return [Fault(text, "`ktadd -k` that of imap/HOST, HOST as clients call this node")]
    service, _, host = own.partition("@")[0].partition("/")
    try:
        cache = f"MEMORY:murder looks {next(LOOKS)}"  # a new one: it is the KDC that is asked
        library.forget(
            library.accept(Initiator(library, service, host, "", keytab, own, cache).step(b""))[0]
        )
    except KerberosError as error:
        if any(words in error.said.lower() for words in NOT_TOLD):
            return []  # some KDCs (Active Directory) give services no tickets
        return [Fault(f"{own}: {error.said}", error.cure)]
    return []
