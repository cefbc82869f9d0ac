"""Messages that scripts send: their fields and bodies as octets with CRLF (RFC 5322, RFC 2045, RFC 2047)."""

import hashlib
import re
from collections.abc import Iterable
from email.header import Header
from typing import Final

from murder.sieve.run.addresses import Address
from murder.sieve.run.machine import Machine
from murder.sieve.run.words import format_date

LINE: Final = 78  # octets of a header's line, where it can be folded (RFC 5322 §2.1.1)
MOST_REFERENCES: Final = 30  # of a reply: the first, and the last ones
PRODUCT: Final = "murder"
_PLAIN: Final = re.compile(r"[\x20-\x7e]*\Z")
_MESSAGE_ID: Final = re.compile(rb"<[^<>\s]{1,500}>")
_BREAKS: Final = re.compile(r"\r?\n|\r")


def format_field(name: str, value: str, line_end: bytes = b"\r\n") -> bytes:
    """A whole field, folded; text that is not ASCII encoded."""
    value = _BREAKS.sub(" ", value.replace("\r\n ", " ").replace("\r\n\t", "\t")).strip()
    if not value.isascii():
        return _encoded_field(name, value, line_end)
    lines = [f"{name}:"]
    for word in re.split(r"(?<=\S)(?=[ \t])", f" {value}" if value else ""):
        if len(lines[-1]) + len(word) > LINE and lines[-1] != f"{name}:" and word.strip():
            lines.append(word)
        else:
            lines[-1] += word
    return line_end.join(line.encode("ascii", "replace") for line in lines) + line_end


def _encoded_field(name: str, value: str, line_end: bytes) -> bytes:
    text = Header(value.encode("utf-8", "replace").decode(), "utf-8", LINE - 2, name).encode(
        linesep="\n"
    )
    return f"{name}: {text}".encode("ascii", "replace").replace(b"\n", line_end) + line_end


def shortened(text: str, characters: int) -> str:
    """No longer than that; where something is left off, an ellipsis says so."""
    return text if len(text) <= characters else text[: characters - 1] + "\u2026"


def format_address(address: Address) -> str:
    """With its name, where it has one."""
    if not address.name:
        return f"<{address}>"
    if _PLAIN.match(address.name):
        quoted = address.name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}" <{address}>'
    name = Header(address.name.encode("utf-8", "replace").decode(), "utf-8").encode(linesep=" ")
    return f"{name} <{address}>"


def format_lines(text: str) -> bytes:
    """A text as a body: lines end with CRLF, the last, too."""
    text = _BREAKS.sub("\r\n", text)
    if text and not text.endswith("\r\n"):
        text += "\r\n"
    return text.encode("utf-8", "surrogateescape")


def format_message(fields: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """A message as it is sent, CRLF line ends."""
    return b"".join(format_field(name, value) for name, value in fields) + b"\r\n" + body


def message_id(machine: Machine, *facts: str) -> str:
    """The same when the same message is answered again: who gets two can tell."""
    joined = "\0".join((machine.original.key(), *facts)).encode("utf-8", "surrogateescape")
    host = machine.circumstances.host or "localhost"
    return f"<sieve-{hashlib.sha256(joined).hexdigest()[:32]}@{host}>"


def common_fields(machine: Machine, *facts: str) -> list[tuple[str, str]]:
    """What stands in each message that a script makes. The facts make its Message-ID, so that the same one has the same."""
    return [
        ("X-Sieve", PRODUCT),
        ("Message-ID", message_id(machine, *facts)),
        ("Date", format_date(machine.circumstances.now)),
    ]


def threading_fields(machine: Machine) -> list[tuple[str, str]]:
    """In-Reply-To and References of a reply (RFC 5322 §3.6.4)."""
    own = _MESSAGE_ID.findall(
        b" ".join(field.value for field in machine.message.named("message-id"))
    )
    if not own:
        return []
    known = _MESSAGE_ID.findall(
        b" ".join(field.value for field in machine.message.named("references"))
    )
    if not known:
        before = machine.message.named("in-reply-to")
        known = _MESSAGE_ID.findall(b" ".join(field.value for field in before))[:1]
    if len(known) > MOST_REFERENCES:
        known = [known[0], *known[-MOST_REFERENCES:]]
    ids = [known_id.decode("ascii", "replace") for known_id in (*known, own[0])]
    return [("In-Reply-To", ids[-1]), ("References", " ".join(ids))]
