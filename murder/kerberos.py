"""Kerberos tickets: MIT's library by ctypes, and either side of SASL GSSAPI (RFC 4752). No security layer: that is TLS.

Everything here may block, for files and for a KDC: call it in a thread. What goes wrong has the library's words, and the
cure beside them.
"""

import ctypes
import ctypes.util
import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from murder.errors import BadSyntax

NO_LAYER: Final = 1  # RFC 4752 §3.3
MAX_TOKEN: Final = 65536
LIBRARY: Final = "libgssapi_krb5.so.2"
CURES: Final = (  # what an error is like in lower case, and what to do
    ("clock skew|not yet valid", "set both clocks (NTP): Kerberos bears five minutes"),
    ("cannot contact any kdc", "is the KDC running, and does /etc/krb5.conf say where?"),
    ("cannot find kdc", "name the realm's KDC in /etc/krb5.conf, or in DNS"),
    ("cannot resolve", "the KDC's name in /etc/krb5.conf has no address"),
    (
        "keytab is likely out of date|cannot decrypt ticket|not with enctype",
        "the key is not the KDC's any more: `ktadd` it anew; who has an older ticket gets a new one (kinit)",
    ),
    (
        "not found in keytab",
        "`klist -k` shows whose keys it has; the client asks for SERVICE/HOST by the name it calls",
    ),
    ("server .* not found", "the other server has no key: `addprinc -randkey SERVICE/HOST`, HOST as it is called"),
    ("client .* not found", "that principal is not in the KDC: `addprinc`, and `ktadd` for its keytab"),
    ("preauthentication failed|password incorrect|integrity check", "the key is not the KDC's any more: `ktadd` it anew"),
    (
        "no credentials|no kerberos credentials|no suitable keys",
        "name this node's keytab in node.keytab; `klist -k` shows whose keys it has",
    ),
    ("no key table|key table entry", "make the keytab, for the node's user, and name it in plugins.sasl_gssapi.keytab"),
    (
        "keytab",
        "`klist -k` shows whose keys it has; the client asks for SERVICE/HOST by the name it calls",
    ),
    ("wrong principal", "add that principal's key: `ktadd`"),
    ("another mechanism", "the client is to ask for Kerberos, not for SPNEGO or NTLM"),
    ("permission denied", "the node's user must be able to read the keytab"),
    ("expired", "whoever calls must get a new ticket (kinit)"),
)  # fmt: skip
_GSS_CODE, _MECHANISM_CODE = 1, 2
_CONTINUE_NEEDED: Final = 1
_ERROR_MASK: Final = 0xFFFF0000
_INITIATE: Final = 1  # what credentials are for
_MUTUAL: Final = 2  # the other end proves itself too
_HOSTBASED: Final = bytes.fromhex("2a864886f71201020104")  # GSS_C_NT_HOSTBASED_SERVICE
_PRINCIPAL: Final = bytes.fromhex("2a864886f71201020201")  # GSS_KRB5_NT_PRINCIPAL_NAME


_BY_KERBEROS: Final = (
    re.compile(  # RFC 2743 §3.1: a tag, a length, the mechanism's name (RFC 4752 §3.1: this one)
        rb"\x60(?:[\x00-\x7f]|\x81.|\x82..|\x83...)\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02",
        re.DOTALL,
    )
)


class KerberosError(Exception):
    """In the library's words, and what to do about it."""

    def __init__(self, said: str) -> None:
        self.said = said
        lower = said.lower()
        self.cure = next(
            (cure for words, cure in CURES if re.search(words, lower)), "see the KDC's log"
        )
        super().__init__(f"{said}; {self.cure}")


class _Buffer(ctypes.Structure):
    _fields_ = [("length", ctypes.c_size_t), ("value", ctypes.c_void_p)]


class _Oid(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint32), ("elements", ctypes.c_void_p)]


class _Pair(ctypes.Structure):
    _fields_ = [("key", ctypes.c_char_p), ("value", ctypes.c_char_p)]


class _Store(ctypes.Structure):
    _fields_ = [("count", ctypes.c_uint32), ("elements", ctypes.POINTER(_Pair))]


def _buffer(octets: bytes) -> tuple[_Buffer, Any]:
    """And what must be kept while it is used."""
    held = ctypes.create_string_buffer(octets, len(octets))
    return _Buffer(len(octets), ctypes.cast(held, ctypes.c_void_p)), held


def _oid(octets: bytes) -> tuple[_Oid, Any]:
    held = ctypes.create_string_buffer(octets, len(octets))
    return _Oid(len(octets), ctypes.cast(held, ctypes.c_void_p)), held


def principals_of(keytab: bytes) -> list[str]:
    """Whose keys a keytab has: `imap/fe1.example.org@EXAMPLE.ORG`. Raises ValueError for what is none."""
    if keytab[:2] != b"\x05\x02":
        raise ValueError("that is not a keytab")
    principals, at = [], 2
    try:
        while at < len(keytab):
            (size,) = struct.unpack_from(">i", keytab, at)
            at += 4
            if size > 0:  # else: one that was taken out
                principals.append(_principal_in(keytab[at : at + size]))
            at += abs(size)
            if not size:
                break
    except struct.error:
        raise ValueError("that keytab breaks off") from None
    return list(dict.fromkeys(principals))


def _principal_in(entry: bytes) -> str:
    """Of an entry: how many parts; the realm and each part, behind their lengths."""
    (count,) = struct.unpack_from(">H", entry)
    parts, at = [], 2
    for _ in range(count + 1):
        (length,) = struct.unpack_from(">H", entry, at)
        parts.append(entry[at + 2 : at + 2 + length].decode("utf-8", "replace"))
        at += 2 + length
    return "/".join(parts[1:]) + "@" + parts[0]


class Library:
    """What is called of it. `keytab` has the keys of services here. Raises OSError where the library is not there."""

    def __init__(self, keytab: Path | None = None) -> None:
        self._gss: Any = ctypes.CDLL(ctypes.util.find_library("gssapi_krb5") or LIBRARY)
        pointer, word, number = ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32), ctypes.c_uint32
        buffer, integer = ctypes.POINTER(_Buffer), ctypes.c_int
        handle, oid = ctypes.POINTER(pointer), ctypes.POINTER(_Oid)
        gss = self._gss
        gss.gss_accept_sec_context.argtypes = [
            *(word, handle, pointer, buffer, pointer, handle),
            *(handle, buffer, word, word, handle),
        ]
        gss.gss_init_sec_context.argtypes = [
            *(word, pointer, handle, pointer, pointer, number, number),
            *(pointer, buffer, handle, buffer, word, word),
        ]
        gss.gss_acquire_cred_from.argtypes = [
            *(word, pointer, number, pointer, integer),
            *(ctypes.POINTER(_Store), handle, handle, word),
        ]
        gss.gss_import_name.argtypes = [word, buffer, oid, handle]
        gss.gss_display_name.argtypes = [word, pointer, buffer, handle]
        gss.gss_wrap.argtypes = [
            *(word, pointer, integer, number, buffer, ctypes.POINTER(integer), buffer),
        ]
        gss.gss_unwrap.argtypes = [
            *(word, pointer, buffer, buffer, ctypes.POINTER(integer), word),
        ]
        gss.gss_release_buffer.argtypes = [word, buffer]
        gss.gss_release_name.argtypes = [word, handle]
        gss.gss_release_cred.argtypes = [word, handle]
        gss.gss_delete_sec_context.argtypes = [word, handle, buffer]
        gss.gss_display_status.argtypes = [word, number, integer, pointer, word, buffer]
        if keytab is not None:
            gss.krb5_gss_register_acceptor_identity.argtypes = [ctypes.c_char_p]
            gss.krb5_gss_register_acceptor_identity(str(keytab).encode())

    # --- a server's side

    def accept(self, token: bytes) -> tuple[Any, bytes, str]:
        """The context of a client's first token, what it is answered, and the principal. Raises KerberosError."""
        if not _BY_KERBEROS.match(token):
            raise KerberosError("the client's token is of another mechanism than Kerberos")
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
            self._check(code, minor.value)
            if code & _CONTINUE_NEEDED:
                raise KerberosError("the client's mechanism takes more than one step")
            display_name = _Buffer()
            gss.gss_display_name(ctypes.byref(minor), name, ctypes.byref(display_name), None)
            return context, said, self._taken(display_name).decode("utf-8", "replace")
        except BaseException:
            self.forget(context)
            raise
        finally:
            self.release_name(name)

    # --- a client's side

    def credentials(self, keytab: Path | None, principal: str, cache: str) -> Any:
        """What a client has to show: by its keytab's key, tickets being kept in `cache`, or, without, as the system says. To
        be given back by `release`. Raises KerberosError."""
        minor, made = ctypes.c_uint32(), ctypes.c_void_p()
        name = self._name(principal, _PRINCIPAL) if principal else ctypes.c_void_p()
        store = None
        if keytab is not None:
            pairs = (_Pair * 2)(
                _Pair(b"client_keytab", str(keytab).encode()), _Pair(b"ccache", cache.encode())
            )
            store = _Store(2, pairs)
        try:
            code = self._gss.gss_acquire_cred_from(
                *(ctypes.byref(minor), name, 0xFFFFFFFF, None, _INITIATE),
                *(ctypes.byref(store) if store is not None else None, ctypes.byref(made)),
                *(None, None),
            )
            self._check(code, minor.value)
        finally:
            self.release_name(name)
        return made

    def initiate(
        self, credentials: Any, context: Any, name: Any, token: bytes
    ) -> tuple[bytes, bool]:
        """The next token to the server whose last one this is, and whether the context stands. Raises KerberosError."""
        minor, answer = ctypes.c_uint32(), _Buffer()
        given, held = _buffer(token)
        code = self._gss.gss_init_sec_context(
            *(ctypes.byref(minor), credentials, ctypes.byref(context), name, None, _MUTUAL, 0),
            *(None, ctypes.byref(given), None, ctypes.byref(answer), None, None),
        )
        del held
        said = self._taken(answer)
        self._check(code, minor.value)
        return said, not code & _CONTINUE_NEEDED

    def service(self, service: str, host: str) -> Any:
        """The name of a service at a host; to be given back by `release_name`."""
        return self._name(f"{service}@{host}", _HOSTBASED)

    def _name(self, text: str, kind: bytes) -> Any:
        minor, made = ctypes.c_uint32(), ctypes.c_void_p()
        given, held = _buffer(text.encode())
        oid, octets = _oid(kind)
        code = self._gss.gss_import_name(
            ctypes.byref(minor), ctypes.byref(given), ctypes.byref(oid), ctypes.byref(made)
        )
        del held, octets
        self._check(code, minor.value)
        return made

    # --- both

    def wrap(self, context: Any, octets: bytes) -> bytes:
        """For the other end alone. Raises KerberosError."""
        minor, made, state = ctypes.c_uint32(), _Buffer(), ctypes.c_int()
        given, held = _buffer(octets)
        code = self._gss.gss_wrap(
            *(ctypes.byref(minor), context, 0, 0, ctypes.byref(given)),
            *(ctypes.byref(state), ctypes.byref(made)),
        )
        del held
        self._check(code, minor.value)
        return self._taken(made)

    def unwrap(self, context: Any, octets: bytes) -> bytes:
        """Raises KerberosError for what the other end has not made."""
        minor, made = ctypes.c_uint32(), _Buffer()
        given, held = _buffer(octets)
        code = self._gss.gss_unwrap(
            *(ctypes.byref(minor), context, ctypes.byref(given), ctypes.byref(made)),
            *(None, None),
        )
        del held
        self._check(code, minor.value)
        return self._taken(made)

    def forget(self, context: Any) -> None:
        if context:
            minor = ctypes.c_uint32()
            self._gss.gss_delete_sec_context(ctypes.byref(minor), ctypes.byref(context), None)

    def release(self, credentials: Any) -> None:
        """Give credentials back."""
        if credentials:
            minor = ctypes.c_uint32()
            self._gss.gss_release_cred(ctypes.byref(minor), ctypes.byref(credentials))

    def release_name(self, name: Any) -> None:
        """Give a name back."""
        if name:
            minor = ctypes.c_uint32()
            self._gss.gss_release_name(ctypes.byref(minor), ctypes.byref(name))

    def _taken(self, buffer: _Buffer) -> bytes:
        octets = ctypes.string_at(buffer.value, buffer.length) if buffer.value else b""
        minor = ctypes.c_uint32()
        self._gss.gss_release_buffer(ctypes.byref(minor), ctypes.byref(buffer))
        return octets

    def _check(self, major: int, minor: int) -> None:
        if major & _ERROR_MASK:
            said = self._text(minor, _MECHANISM_CODE) if minor else ""  # which is more to the point
            raise KerberosError(said or self._text(major, _GSS_CODE))

    def _text(self, code: int, kind: int) -> str:
        minor, context, message = ctypes.c_uint32(), ctypes.c_uint32(), _Buffer()
        self._gss.gss_display_status(
            *(ctypes.byref(minor), code, kind, None, ctypes.byref(context), ctypes.byref(message))
        )
        return self._taken(message).decode("utf-8", "replace")


class Initiator:
    """A client's side of one exchange: for `service` at `host`, as `user` ("": as who the ticket is of). `keytab` and
    `principal` are whose key it shows; None and "": what the system has."""

    def __init__(
        self,
        library: Library,
        service: str,
        host: str,
        user: str,
        keytab: Path | None,
        principal: str,
        cache: str = "",
    ) -> None:
        self._library = library
        self._user = user.encode()
        self._context, self._stands = ctypes.c_void_p(), False
        self._name = self._credentials = None
        self._name = library.service(service, host)
        cache = cache or f"MEMORY:{keytab} {principal}"  # of this process
        self._credentials = library.credentials(keytab, principal, cache)

    def __del__(self) -> None:
        with suppress(AttributeError):  # where it was not made
            self._library.forget(self._context)
            self._library.release(self._credentials)
            self._library.release_name(self._name)

    def step(self, challenge: bytes) -> bytes:
        """What the server's challenge is answered. Raises KerberosError, BadSyntax."""
        if len(challenge) > MAX_TOKEN:
            raise BadSyntax(f"a token has {MAX_TOKEN} octets at most")
        if not self._stands:
            token, self._stands = self._library.initiate(
                self._credentials, self._context, self._name, challenge
            )
            return token
        layers = self._library.unwrap(self._context, challenge)
        if len(layers) != 4 or not layers[0] & NO_LAYER:
            raise BadSyntax("it wants a security layer of GSSAPI: there is none here, use TLS")
        return self._library.wrap(self._context, bytes((NO_LAYER, 0, 0, 0)) + self._user)
