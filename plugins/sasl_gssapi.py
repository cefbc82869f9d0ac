"""SASL GSSAPI: Kerberos tickets, by RFC 4752, for every protocol; nodes may log in so at a master, as RFC 3656 has it.

`[plugins] use = ["sasl_gssapi"]`. The keytab has a key for each service that clients ask for: `imap/fe1.example.org@REALM`,
`pop/…`, `lmtp/…`, `sieve/…`, `mupdate/…`. A principal of one of `realms` is the user of that name, one with an instance
(`anna/admin`) is nobody. There is no security layer: that is TLS.

MIT's library is called by ctypes, where the host has it (Debian: libgssapi-krb5-2); without, there is one line in the log
and no such mechanism. What a ticket is refused for is in the log, too: a clock that is apart, a key that is not in the
keytab.
"""

import asyncio
import ctypes
import ctypes.util
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
    Mechanism,
    ProvenCredentials,
    SaslStep,
    hookimpl,
)
from murder.errors import BadSyntax, Code, Refusal

MAX_TOKEN: Final = 65536
NO_LAYER: Final = 1  # RFC 4752 §3.3
GSS_CODE, MECHANISM_CODE = 1, 2
CONTINUE_NEEDED: Final = 1
ERROR_MASK: Final = 0xFFFF0000
FORBIDDEN: Final = frozenset(' /%*"\\')
CURES: Final = (
    ("clock skew", "set both clocks (NTP): Kerberos bears five minutes"),
    ("no key table", "make the keytab, and name it in plugins.sasl_gssapi.keytab"),
    (
        "keytab",
        "`klist -k` shows whose keys it has; the client asks for SERVICE/HOST by the name it calls",
    ),
    ("wrong principal", "add that principal's key: `ktadd`"),
    ("permission denied", "the node's user must be able to read the keytab"),
    ("expired", "the client must get a new ticket (kinit)"),
)

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
    lower_case: bool = field(
        default=True, metadata={"doc": "User names are taken in lower case, as Cyrus does."}
    )


class _Buffer(ctypes.Structure):
    _fields_ = [("length", ctypes.c_size_t), ("value", ctypes.c_void_p)]


def _buffer(octets: bytes) -> tuple[_Buffer, Any]:
    """And what must be kept while it is used."""
    held = ctypes.create_string_buffer(octets, len(octets))
    return _Buffer(len(octets), ctypes.cast(held, ctypes.c_void_p)), held


class Library:
    """What is called of libgssapi_krb5. Raises OSError where it is not there."""

    def __init__(self, keytab: Path | None) -> None:
        name = ctypes.util.find_library("gssapi_krb5") or "libgssapi_krb5.so.2"
        self._gss: Any = ctypes.CDLL(name)
        pointer, word, number = ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32), ctypes.c_uint32
        buffer, integer = ctypes.POINTER(_Buffer), ctypes.c_int
        handle = ctypes.POINTER(pointer)
        gss = self._gss
        gss.gss_accept_sec_context.argtypes = [
            *(word, handle, pointer, buffer, pointer, handle),
            *(handle, buffer, word, word, handle),
        ]
        gss.gss_display_name.argtypes = [word, pointer, buffer, handle]
        gss.gss_wrap.argtypes = [
            *(word, pointer, integer, number, buffer, ctypes.POINTER(integer), buffer),
        ]
        gss.gss_unwrap.argtypes = [
            *(word, pointer, buffer, buffer, ctypes.POINTER(integer), word),
        ]
        gss.gss_release_buffer.argtypes = [word, buffer]
        gss.gss_release_name.argtypes = [word, handle]
        gss.gss_delete_sec_context.argtypes = [word, handle, buffer]
        gss.gss_display_status.argtypes = [word, number, integer, pointer, word, buffer]
        if keytab is not None:
            gss.krb5_gss_register_acceptor_identity.argtypes = [ctypes.c_char_p]
            gss.krb5_gss_register_acceptor_identity(str(keytab).encode())

    def accept(self, token: bytes) -> tuple[Any, bytes, str]:
        """The context of a client's first token, what it is answered, and the principal. Blocks. Raises Refusal."""
        gss, minor = self._gss, ctypes.c_uint32()
        context, name, answer = ctypes.c_void_p(), ctypes.c_void_p(), _Buffer()
        given, held = _buffer(token)
        code = gss.gss_accept_sec_context(
            ctypes.byref(minor),
            *(ctypes.byref(context), None, ctypes.byref(given), None, ctypes.byref(name)),
            *(None, ctypes.byref(answer), None, None, None),
        )
        del held
        said = self._taken(answer)
        try:
            if code & ERROR_MASK:
                raise self._refusal(code, minor.value)
            if code & CONTINUE_NEEDED:
                raise Refusal(Code.AUTHENTICATION_FAILED, "The Kerberos ticket was refused")
            shown = _Buffer()
            gss.gss_display_name(ctypes.byref(minor), name, ctypes.byref(shown), None)
            return context, said, self._taken(shown).decode("utf-8", "replace")
        except BaseException:
            self.forget(context)
            raise
        finally:
            if name:
                gss.gss_release_name(ctypes.byref(minor), ctypes.byref(name))

    def wrap(self, context: Any, octets: bytes) -> bytes:
        minor, made, state = ctypes.c_uint32(), _Buffer(), ctypes.c_int()
        given, held = _buffer(octets)
        code = self._gss.gss_wrap(
            *(ctypes.byref(minor), context, 0, 0, ctypes.byref(given)),
            *(ctypes.byref(state), ctypes.byref(made)),
        )
        del held
        if code & ERROR_MASK:
            raise self._refusal(code, minor.value)
        return self._taken(made)

    def unwrap(self, context: Any, octets: bytes) -> bytes:
        """Raises Refusal for what the client has not made."""
        minor, made = ctypes.c_uint32(), _Buffer()
        given, held = _buffer(octets)
        code = self._gss.gss_unwrap(
            *(ctypes.byref(minor), context, ctypes.byref(given), ctypes.byref(made)),
            *(None, None),
        )
        del held
        if code & ERROR_MASK:
            raise self._refusal(code, minor.value)
        return self._taken(made)

    def forget(self, context: Any) -> None:
        if context:
            minor = ctypes.c_uint32()
            self._gss.gss_delete_sec_context(ctypes.byref(minor), ctypes.byref(context), None)

    def _taken(self, buffer: _Buffer) -> bytes:
        octets = ctypes.string_at(buffer.value, buffer.length) if buffer.value else b""
        minor = ctypes.c_uint32()
        self._gss.gss_release_buffer(ctypes.byref(minor), ctypes.byref(buffer))
        return octets

    def _refusal(self, major: int, minor: int) -> Refusal:
        """Told to the log with the cure, to the client without."""
        said = f"{self._text(major, GSS_CODE)}: {self._text(minor, MECHANISM_CODE)}"
        cure = next((cure for words, cure in CURES if words in said.lower()), "see the KDC's log")
        log.warning("a Kerberos ticket is refused: %s; %s", said, cure)
        return Refusal(Code.AUTHENTICATION_FAILED, "The Kerberos ticket was refused")

    def _text(self, code: int, kind: int) -> str:
        minor, context, shown = ctypes.c_uint32(), ctypes.c_uint32(), _Buffer()
        self._gss.gss_display_status(
            *(ctypes.byref(minor), code, kind, None, ctypes.byref(context), ctypes.byref(shown))
        )
        return self._taken(shown).decode("utf-8", "replace")


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
        self._context, answer, principal = await asyncio.to_thread(self._library.accept, token)
        self._user = self._user_of(principal)
        self.claimed = self._user
        return Challenge(answer) if answer else self._offer()

    def _offer(self) -> Challenge:
        self._offered = True
        return Challenge(self._library.wrap(self._context, bytes((NO_LAYER, 0, 0, 0))))

    def _end(self, response: bytes) -> ProvenCredentials:
        octets = self._library.unwrap(self._context, response)
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
        if realm not in self._settings.realms or not name or not FORBIDDEN.isdisjoint(name):
            log.warning("the principal %s is no user: see plugins.sasl_gssapi.realms", principal)
            raise Refusal(Code.AUTHENTICATION_FAILED, "That principal is no user here")
        return name.lower() if self._settings.lower_case else name


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

    def start(client: Client, users: AuthBackend) -> Exchange:
        return Exchange(library, settings)

    return (Mechanism("GSSAPI", start, needs_tls=False),)
