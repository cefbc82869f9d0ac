"""The mail log: a line for each recipient of a message, in the log and in files that `murder ctl message trace` reads; where
it is full, also for what clients do with messages."""

import re
import time
from collections.abc import Mapping
from typing import Final

from murder.log import Facts, Keep, plain_log
from murder.trail.lines import Trail

KIND: Final = "mail"  # of the files
HEAD_OCTETS: Final = 16 * 1024  # of a message: where its Message-ID is looked for
MAX_ID_OCTETS: Final = 250
_say: Final = plain_log.info
_MESSAGE_ID: Final = re.compile(rb"(?:\A|\n)Message-ID:[ \t]*(?:\r?\n[ \t]+)?([^\s]{1,250})", re.I)


class MailLog:
    """Written to by the sessions of a worker. Costs nothing where the site wants none. A line is in its file within a tenth
    of a second (`log.plain`); a kill in between costs it, never the mail."""

    def __init__(self) -> None:
        self._keep: Keep | None = None
        self.is_full = False

    def keep(self, trail: Trail | None, *, is_full: bool = False) -> None:
        """From now on, also of sessions that have begun; None: nothing."""
        self._keep = None if trail is None else trail.append
        self.is_full = is_full and trail is not None

    def info(self, event: str, facts: Facts, rows: int = 1) -> None:
        """None of the facts is a secret. `rows`: of so many messages."""
        if self._keep is not None:
            _say(event, facts, keep=self._keep, rows=rows)


# What a session says of itself; our id, and the sender's; sender and recipient; octets; when it began and was answered
Handled = tuple[Mapping[str, object], str, str, bytes, bytes, int, float, float]


def facts_of(handled: Handled) -> dict[str, object]:
    """Of a message, for one of its recipients."""
    session, id, message_id, sender, recipient, size, began_at, now = handled
    return {
        **session,
        "id": id,
        "message_id": message_id,
        "sender": sender,
        "recipient": recipient,
        "size": size,
        "ms": round((now - began_at) * 1000),
    }


def new_id(cid: str, number: int) -> str:
    """Of a message, as senders' and our logs have it: when, on which connection, the how-manieth there."""
    return f"{int(time.time()):x}-{cid}-{number:x}"


class HeadOf:
    """The beginning of a message, as far as its Message-ID."""

    __slots__ = ("_held", "_is_over", "message_id")

    def __init__(self) -> None:
        self.message_id = ""
        self._held = bytearray()
        self._is_over = False

    def feed(self, octets: bytes) -> None:
        """What comes, from its first octet on."""
        if self._is_over:
            return
        held, looked_at = self._held, max(0, len(self._held) - 3)
        held += octets[: HEAD_OCTETS - len(held)]
        end = held.find(b"\r\n\r\n", looked_at)
        if end < 0 and len(held) < HEAD_OCTETS:
            return
        self._held, self._is_over = bytearray(), True
        match = _MESSAGE_ID.search(held, 0, end if end >= 0 else len(held))
        if match:
            text = match[1].decode("utf-8", "replace")
            self.message_id = "".join(
                character if character.isprintable() else "?" for character in text
            )
