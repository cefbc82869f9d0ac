"""What is asked of every server. A group yields `(key, value)`; values are compared between servers."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.peers import corpus
from tests.peers.client import Client, pairs

MISSING: Final = object()  # this server did not take the question

Found = Iterator[tuple[str, Any]]


def fill(client: Client, mailbox: str, messages: Iterator[tuple[str, bytes]]) -> dict[str, int]:
    """A new mailbox with these messages; their names with sequence numbers, of those that the server took."""
    client.command(b"DELETE %s" % mailbox.encode())
    client.must(b"CREATE %s" % mailbox.encode())
    numbers: dict[str, int] = {}
    for name, message in messages:
        if client.append(mailbox, message).word == "OK":
            numbers[name] = len(numbers) + 1
    client.must(b"SELECT %s" % mailbox.encode())
    return numbers


def fetch(client: Client, number: int, items: bytes) -> dict[str, Any]:
    answer = client.command(b"FETCH %d %s" % (number, items))
    if answer.word != "OK":
        return {"": answer.word}
    found: dict[str, Any] = {}
    for line in answer.values("FETCH"):
        found.update(pairs(line[2]))
    return found


def structure(client: Client) -> Found:
    numbers = fill(client, "INBOX/structure", corpus.structures())
    yield from _structures(client, numbers)


def line_ends(client: Client) -> Found:
    numbers = fill(client, "INBOX/ends", corpus.bare_lf())
    yield from _structures(client, numbers)


def _structures(client: Client, numbers: dict[str, int]) -> Found:
    for name, number in numbers.items():
        found = fetch(client, number, b"(BODY BODYSTRUCTURE RFC822.SIZE)")
        for item in ("BODY", "BODYSTRUCTURE", "RFC822.SIZE"):
            yield f"{name} {item}", normal(found.get(item))


def normal(value: Any) -> Any:
    """Words of media types and the like in upper case, whatever the server likes."""
    if isinstance(value, list):
        return [normal(one) for one in value]
    if isinstance(value, bytes):
        return value.upper()
    return value


SECTIONS: Final = (
    *(
        b"",
        b"HEADER",
        b"TEXT",
        b"1",
        b"1.MIME",
        b"1.HEADER",
        b"1.TEXT",
        b"2",
        b"2.MIME",
        b"3",
        b"1.1",
        b"1.1.MIME",
        b"1.2",
    ),
    *(
        b"1.1.1",
        b"1.1.2",
        b"2.1",
        b"1.HEADER.FIELDS (Subject)",
        b"HEADER.FIELDS (Subject From)",
        b"2.MIME",
        b"4",
        b"5",
        b"6",
    ),
    *(
        b"HEADER.FIELDS (Nonexistent)",
        b"HEADER.FIELDS.NOT (Subject From)",
        b"1.HEADER.FIELDS.NOT (From)",
        b"1.1.TEXT",
        b"9",
    ),
)


def sections(client: Client) -> Found:
    numbers = fill(client, "INBOX/sections", corpus.structures())
    for name, number in numbers.items():
        for section in SECTIONS:
            found = fetch(client, number, b"BODY.PEEK[%s]" % section)
            values = [value for key, value in found.items() if key.startswith("BODY[") or key == ""]
            yield f"{name} [{section.decode()}]", values[0] if values else MISSING


def line_end_sections(client: Client) -> Found:
    numbers = fill(client, "INBOX/ends", corpus.bare_lf())
    for name, number in numbers.items():
        for section in SECTIONS:
            found = fetch(client, number, b"BODY.PEEK[%s]" % section)
            values = [value for key, value in found.items() if key.startswith("BODY[") or key == ""]
            yield f"{name} [{section.decode()}]", values[0] if values else MISSING


def envelope(client: Client) -> Found:
    numbers = fill(client, "INBOX/envelope", corpus.headers())
    names = "DATE SUBJECT FROM SENDER REPLY-TO TO CC BCC IN-REPLY-TO MESSAGE-ID".split()
    for name, number in numbers.items():
        found = fetch(client, number, b"ENVELOPE").get("ENVELOPE") or []
        for field, value in zip(names, found, strict=False):
            yield f"{name} {field}", value


GROUPS: Final[dict[str, Callable[[Client], Found]]] = {
    "structure": structure,
    "sections": sections,
    "line_ends": line_ends,
    "line_end_sections": line_end_sections,
    "envelope": envelope,
}
