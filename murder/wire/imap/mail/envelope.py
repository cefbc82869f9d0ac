"""ENVELOPE in a FETCH answer (RFC 3501 §7.4.2 and §9 `envelope`)."""

from murder.model.part import Address, Envelope
from murder.wire.token import nstring


# envelope = "(" env-date SP env-subject SP env-from SP env-sender SP env-reply-to SP env-to SP env-cc SP env-bcc
#            SP env-in-reply-to SP env-message-id ")"
def format_envelope(envelope: Envelope) -> bytes:
    """The value, without its name."""
    pieces = (
        nstring(envelope.date),
        nstring(envelope.subject),
        _format_addresses(envelope.from_),
        _format_addresses(envelope.sender),
        _format_addresses(envelope.reply_to),
        _format_addresses(envelope.to),
        _format_addresses(envelope.cc),
        _format_addresses(envelope.bcc),
        nstring(envelope.in_reply_to),
        nstring(envelope.message_id),
    )
    return b"(" + b" ".join(pieces) + b")"


def format_envelope_piece(envelope: Envelope) -> bytes:
    """`ENVELOPE (…)`, a piece for `format_fetch`."""
    return b"ENVELOPE " + format_envelope(envelope)


# env-to = "(" 1*address ")" / nil; address = "(" addr-name SP addr-adl SP addr-mailbox SP addr-host ")"
def _format_addresses(addresses: tuple[Address, ...]) -> bytes:
    if not addresses:
        return b"NIL"
    each = [
        b"(%s %s %s %s)"
        % (
            nstring(address.name),
            nstring(address.route),
            nstring(address.mailbox),
            nstring(address.host),
        )
        for address in addresses
    ]
    return b"(" + b"".join(each) + b")"
