"""A script as a message, as Cyrus' `sieve_db` writes and reads it: the name is its Subject, the script its body.

The octets of the script stand in the body as they came. Knows nothing of mailboxes.
"""

import base64
import hashlib
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from murder.errors import Code, Refusal
from murder.mime.header import decode_value
from murder.mime.section import select_fields

MAX_NAME_OCTETS: Final = 512  # RFC 5804 §1.6: at least 128 characters
MAX_HEADER_OCTETS: Final = 16 * 1024  # of what others wrote, too
WORD_OCTETS: Final = 39  # in base64 with its frame and `Subject: ` less than the 76 of RFC 2047 §2
_PLAIN: Final = re.compile(rb"[!-~](?:[ -~]{0,58}[!-~])?\Z")
_NOT_IN_NAMES: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # RFC 5804 §1.6
_FILE_NAME: Final = re.compile(rb'filename="?([0-9A-Za-z-]{1,64})"?')
_HEADER_END: Final = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True, slots=True)
class ScriptMessage:
    """What is read of one. `id` is Cyrus' own name for it, which a change keeps, and of whose file it is the name less
    `.sieve`; `begin`: where the script begins."""

    name: str
    id: str
    begin: int


def check_script_name(name: str) -> None:
    """Raises Refusal."""
    if not name or len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_OCTETS:
        raise Refusal(Code.CANNOT, f"The name of a script has 1 to {MAX_NAME_OCTETS} octets")
    if _NOT_IN_NAMES.search(name) or not name.isprintable():
        raise Refusal(Code.CANNOT, "The name of a script has no control characters")


def format_script(
    name: str, script: bytes | memoryview, sender: str, server_name: str, id: str = ""
) -> bytes:
    """The header of its message, blank line included: the script follows. `sender` is the user it belongs to."""
    address = sender if "@" in sender else f"{sender}@{server_name}"
    digest = hashlib.sha1(script, usedforsecurity=False).hexdigest()
    fields = (
        b"From: " + _as_value(f"<{address}>"),
        b"Subject: " + _as_value(name),
        b"Date: " + format_datetime(datetime.now(UTC)).encode(),
        f"Message-ID: <{digest}@{server_name}>".encode(),
        b"Content-Type: application/sieve; charset=utf-8",
        b"Content-Length: %d" % len(script),
        b'Content-Disposition: attachment;\r\n\tfilename="%b.sieve"'
        % (id or str(uuid.uuid4())).encode(),
        b"MIME-Version: 1.0",
    )
    return b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def parse_script(octets: memoryview) -> ScriptMessage:
    """Of any message; one without a Subject has no name."""
    head = bytes(octets[:MAX_HEADER_OCTETS])
    end = _HEADER_END.search(head)
    begin = end.end() if end is not None else len(octets)
    header = head[:begin]
    subject = select_fields(header, (b"Subject",), True).partition(b":")[2].strip()
    disposition = _FILE_NAME.search(select_fields(header, (b"Content-Disposition",), True))
    return ScriptMessage(
        decode_value(subject), disposition[1].decode() if disposition else "", begin
    )


def _as_value(text: str) -> bytes:
    """As it is where everybody reads it so, else in encoded words (RFC 2047 §2), none with a part of a character."""
    octets = text.encode("utf-8", "surrogateescape")
    if _PLAIN.match(octets) and b"=?" not in octets:
        return octets
    words: list[bytes] = []
    held = b""
    for letter in text:
        encoded = letter.encode("utf-8", "surrogateescape")
        if len(held) + len(encoded) > WORD_OCTETS:
            words.append(held)
            held = b""
        held += encoded
    return b"\r\n ".join(b"=?UTF-8?B?" + base64.b64encode(word) + b"?=" for word in (*words, held))
