"""What a helper process runs: it asks PAM, which blocks, and whose modules may do what they like to a process. Knows
nothing of murder: the node hands its source to a Python of its own.

A question is five strings behind two octets of length each (service, user, password, address, folder of PAM's files), an
answer is a line: `OK NAME`, `WRONG`, `UNKNOWN`, `DENIED TEXT`, `AWAY TEXT`.
"""

import ctypes
import ctypes.util
import os
import struct
import sys
from typing import Any, Final

SUCCESS, AUTH_ERR, USER_UNKNOWN, MAXTRIES = 0, 7, 10, 11
PERM_DENIED, CRED_ERR = 6, 17
PROMPTS: Final = (1, 2)  # with and without echo
USER_ITEM: Final = 2
RHOST_ITEM: Final = 4
FAIL_DELAY_ITEM: Final = 10


class _Message(ctypes.Structure):
    _fields_ = [("style", ctypes.c_int), ("text", ctypes.c_char_p)]


class _Response(ctypes.Structure):
    _fields_ = [("text", ctypes.c_void_p), ("code", ctypes.c_int)]


_DELAY = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
_TALK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.POINTER(_Response)),
    ctypes.c_void_p,
)


class _Conversation(ctypes.Structure):
    _fields_ = [("talk", _TALK), ("data", ctypes.c_void_p)]


def ask_pam(service: bytes, user: bytes, password: bytes, address: bytes, folder: bytes) -> str:
    """What PAM says, as a line. Blocks."""
    pam: Any = ctypes.CDLL(ctypes.util.find_library("pam") or "libpam.so.0")
    libc: Any = ctypes.CDLL(None)
    libc.calloc.restype = libc.strdup.restype = ctypes.c_void_p
    libc.calloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
    libc.strdup.argtypes = [ctypes.c_char_p]
    pam.pam_strerror.restype = ctypes.c_char_p
    pam.pam_strerror.argtypes = [ctypes.c_void_p, ctypes.c_int]
    for function in ("pam_end", "pam_authenticate", "pam_acct_mgmt"):
        getattr(pam, function).argtypes = [ctypes.c_void_p, ctypes.c_int]
    pam.pam_get_item.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p)]
    pam.pam_set_item.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]

    def talk(count: int, messages: Any, responses: Any, _data: Any) -> int:
        made = libc.calloc(count, ctypes.sizeof(_Response))
        responses[0] = ctypes.cast(made, ctypes.POINTER(_Response))
        for at in range(count):  # every question is for the password
            if messages[at].contents.style in PROMPTS:
                responses[0][at].text = libc.strdup(password)
        return 0

    conversation = _Conversation(_TALK(talk), None)
    handle = ctypes.c_void_p()
    pointers = ctypes.byref(conversation), ctypes.byref(handle)
    if folder:
        code = pam.pam_start_confdir(service, user, pointers[0], folder, pointers[1])
    else:
        code = pam.pam_start(service, user, *pointers)
    if code != SUCCESS:
        return f"AWAY the service {service.decode()} cannot be begun ({code})"
    try:
        if address:
            pam.pam_set_item(
                handle, RHOST_ITEM, ctypes.cast(ctypes.c_char_p(address), ctypes.c_void_p)
            )
        # the node makes who guesses wait, not the next who asks
        no_delay = _DELAY(lambda _code, _microseconds, _data: None)
        pam.pam_set_item(handle, FAIL_DELAY_ITEM, ctypes.cast(no_delay, ctypes.c_void_p))
        code = pam.pam_authenticate(handle, 0)
        was_right = code == SUCCESS
        code = pam.pam_acct_mgmt(handle, 0) if was_right else code
        item = ctypes.c_void_p()
        pam.pam_get_item(handle, USER_ITEM, ctypes.byref(item))
        name = ctypes.cast(item, ctypes.c_char_p).value or user
        said: bytes | None = pam.pam_strerror(handle, code)
    finally:
        pam.pam_end(handle, code)
    return _line(code, was_right, name, (said or b"").decode("utf-8", "replace"))


def _line(code: int, was_right: bool, name: bytes, text: str) -> str:
    if code == SUCCESS:
        return f"OK {name.decode('utf-8', 'replace')}"
    if was_right:
        return f"DENIED {text}"
    if code in (AUTH_ERR, MAXTRIES, PERM_DENIED, CRED_ERR):
        return "WRONG"
    return "UNKNOWN" if code == USER_UNKNOWN else f"AWAY {text} ({code})"


def _read(stream: Any, size: int) -> bytes:
    octets = b""
    while len(octets) < size:
        more = stream.read(size - len(octets))
        if not more:
            raise EOFError
        octets += more
    return octets


def serve() -> None:
    """Answer one question after the other, until there are no more."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a module prints is no answer
    while True:
        try:
            fields = [_read(source, struct.unpack(">H", _read(source, 2))[0]) for _ in range(5)]
        except EOFError:
            return
        try:
            line = ask_pam(*fields)
        except (OSError, AttributeError) as error:
            line = f"AWAY there is no PAM on this host: {error}"
        sink.write(" ".join(line.split()).encode()[:1000] + b"\n")
        sink.flush()


if __name__ == "__main__":
    serve()
