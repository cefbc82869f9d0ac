"""A structure in a few hundred octets, for a store's cache: JSON of nested lists, octets as Latin-1.

JSON, because reading it runs in C, and no octets in a cache file can make it run code. Versioned: what this
version did not write is not read, and the caller parses the message again.
"""

import json
from collections.abc import Callable
from typing import Any, Final

from murder.model.part import Address, Envelope, Part

VERSION: Final = 2
MAX_SUMMARY_OCTETS: Final = 64 * 1024  # above it parsing again is the better deal than keeping
_EMPTY: Final = Envelope()


def dump_structure(root: Part) -> bytes | None:
    """The summary, or None where it would be too large to be kept."""
    text = json.dumps([VERSION, _dump_part(root)], ensure_ascii=False, separators=(",", ":"))
    octets = text.encode("utf-8")
    return octets if len(octets) <= MAX_SUMMARY_OCTETS else None


def load_structure(summary: bytes, *, envelopes: bool = True) -> Part | None:
    """The structure, or None where these octets are no summary of this version. Without `envelopes` these are empty where
    they are: to read them is most of the work."""
    try:
        version, root = json.loads(summary)
        load = _load_envelope if envelopes else _no_envelope
        return _load_part(root, load) if version == VERSION else None
    except (ValueError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def load_envelope(summary: bytes) -> Envelope | None:
    """The message's own, without its parts; None as `load_structure`."""
    try:
        version, root = json.loads(summary)
        return _load_envelope(root[15]) if version == VERSION and root[15] is not None else None
    except (ValueError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def _text(octets: bytes | None) -> str | None:
    return None if octets is None else octets.decode("latin-1")


def _octets(text: Any) -> bytes | None:
    return None if text is None else text.encode("latin-1")


def _dump_pairs(pairs: tuple[tuple[bytes, bytes], ...]) -> list[str]:
    return [octets.decode("latin-1") for pair in pairs for octets in pair]


def _load_pairs(flat: list[str]) -> tuple[tuple[bytes, bytes], ...]:
    if not flat:
        return ()
    words = [text.encode("latin-1") for text in flat]
    return tuple(zip(words[0::2], words[1::2], strict=True))


def _dump_part(part: Part) -> list[Any]:
    disposition = part.disposition
    return [
        part.media[0].decode("latin-1"),
        part.media[1].decode("latin-1"),
        _dump_pairs(part.parameters),
        part.header_start,
        part.body_start,
        part.body_end,
        part.lines,
        _text(part.content_id),
        _text(part.description),
        _text(part.encoding),
        _text(part.md5),
        None if disposition is None else [_text(disposition[0]), _dump_pairs(disposition[1])],
        [_text(language) for language in part.languages],
        _text(part.location),
        [_dump_part(child) for child in part.children],
        None if part.envelope is None else _dump_envelope(part.envelope),
    ]


def _load_part(fields: list[Any], load_envelope: Callable[[list[Any]], Envelope]) -> Part:
    disposition = fields[11]
    return Part(
        media=(fields[0].encode("latin-1"), fields[1].encode("latin-1")),
        parameters=_load_pairs(fields[2]),
        header_start=int(fields[3]),
        body_start=int(fields[4]),
        body_end=int(fields[5]),
        lines=int(fields[6]),
        content_id=None if fields[7] is None else fields[7].encode("latin-1"),
        description=None if fields[8] is None else fields[8].encode("latin-1"),
        encoding=fields[9].encode("latin-1"),
        md5=None if fields[10] is None else fields[10].encode("latin-1"),
        disposition=None
        if disposition is None
        else (disposition[0].encode("latin-1"), _load_pairs(disposition[1])),
        languages=tuple([language.encode("latin-1") for language in fields[12]])
        if fields[12]
        else (),
        location=None if fields[13] is None else fields[13].encode("latin-1"),
        children=tuple([_load_part(child, load_envelope) for child in fields[14]])
        if fields[14]
        else (),
        envelope=None if fields[15] is None else load_envelope(fields[15]),
    )


def _dump_addresses(addresses: tuple[Address, ...]) -> list[list[str | None]]:
    return [
        [_text(address.name), _text(address.route), _text(address.mailbox), _text(address.host)]
        for address in addresses
    ]


def _load_addresses(rows: list[list[Any]]) -> tuple[Address, ...]:
    return tuple([Address(*map(_octets, row)) for row in rows])


def _dump_envelope(envelope: Envelope) -> list[Any]:
    """Sender and Reply-To that only repeat From are written as 0."""
    from_ = envelope.from_
    return [
        _text(envelope.date),
        _text(envelope.subject),
        _dump_addresses(from_),
        0 if envelope.sender == from_ else _dump_addresses(envelope.sender),
        0 if envelope.reply_to == from_ else _dump_addresses(envelope.reply_to),
        _dump_addresses(envelope.to),
        _dump_addresses(envelope.cc),
        _dump_addresses(envelope.bcc),
        _text(envelope.in_reply_to),
        _text(envelope.message_id),
        _text(envelope.references),
    ]


def _no_envelope(_: list[Any]) -> Envelope:
    return _EMPTY


def _load_envelope(fields: list[Any]) -> Envelope:
    """Lists that are empty, as most are, cost no call."""
    date, subject, of_from, of_sender, of_reply_to, to, cc, bcc, *texts = fields
    in_reply_to, message_id, references = texts[:3]
    from_ = _load_addresses(of_from) if of_from else ()
    return Envelope(
        date=None if date is None else date.encode("latin-1"),
        subject=None if subject is None else subject.encode("latin-1"),
        from_=from_,
        sender=from_ if of_sender == 0 else _load_addresses(of_sender),
        reply_to=from_ if of_reply_to == 0 else _load_addresses(of_reply_to),
        to=_load_addresses(to) if to else (),
        cc=_load_addresses(cc) if cc else (),
        bcc=_load_addresses(bcc) if bcc else (),
        in_reply_to=None if in_reply_to is None else in_reply_to.encode("latin-1"),
        message_id=None if message_id is None else message_id.encode("latin-1"),
        references=None if references is None else references.encode("latin-1"),
    )
