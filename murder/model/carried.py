"""A mailbox on its way to another server: what is told of it beside its messages' octets.

Everything a client remembers must arrive unchanged: UIDVALIDITY, UIDs, mod-sequences, what was expunged when, and who
has seen what; so no client has to synchronise anew (RFC 7162).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from murder.model.message import Message, ModSeq, Uid, UidValidity

NOT_TOLD: Final = Uid(0)


@dataclass(frozen=True, slots=True)
class CarriedIdentity:
    """Which mailbox it is, whatever it is called (RFC 8474, RFC 3501 §2.3.1.1)."""

    mailbox_id: str
    uid_validity: UidValidity


@dataclass(frozen=True, slots=True)
class Portrait:
    """A mailbox without its messages. `expunged` are those since the mod-sequence that was asked for, in that order;
    `seen` has the messages that each reader other than the owner has seen, all of them."""

    identity: CarriedIdentity
    uid_next: Uid
    highest_modseq: ModSeq
    expunged: Sequence[tuple[ModSeq, Uid]] = ()
    seen: Mapping[str, Sequence[Uid]] = field(default_factory=dict)
    recent_from: Uid = NOT_TOLD  # the first message that no session has been told of; 0: not known


@dataclass(frozen=True, slots=True)
class Held:
    """What the receiving side has: all that happened up to `modseq`, and the octets of these messages."""

    modseq: ModSeq
    uids: Sequence[Uid] = ()


def digest_line(message: Message) -> bytes:
    """A message's row as both sides digest it: the same text for the same facts, whatever the store."""
    saved = int(message.save_date.timestamp()) if message.save_date else 0
    date = message.internal_date.strftime("%Y%m%d%H%M%S%z")
    flags = " ".join(sorted(flag.lower() for flag in message.flags))
    line = (
        f"{message.uid}|{flags}|{date}|{saved}|{message.size}|{message.modseq}|{message.email_id}\n"
    )
    return line.encode("utf-8", "surrogateescape")
