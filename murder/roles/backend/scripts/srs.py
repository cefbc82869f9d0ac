"""Whose address stands in the envelope of what is redirected: as it came, the recipient's, or one of this site by which the
bounce finds its way back (Sender Rewriting Scheme, as libsrs2 and postsrsd write and read it: they take the bounces).
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Final, Literal

HASH_LETTERS: Final = 4
DAY_S: Final = 86_400
_DAYS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SEPARATORS: Final = "=+-"

Choice = Literal["sender", "recipient", "srs"]


class RedirectSenders:
    """`domain`: of this site, where bounces are taken back; `secret`: as the one who takes them has it."""

    def __init__(
        self,
        choice: Choice = "sender",
        domain: str = "",
        secret: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._choice = choice
        self._domain = domain
        self._secret = secret.encode()
        self._clock = clock

    def of(self, sender: str, recipient: str) -> str:
        """For a message from `sender` (empty: a bounce, and stays so) that came to `recipient`."""
        if not sender or self._choice == "sender":
            return sender
        return recipient if self._choice == "recipient" else self._rewritten(sender)

    def _rewritten(self, sender: str) -> str:
        local, _, host = sender.rpartition("@")
        if not local or host.lower() == self._domain.lower():
            return sender
        word = local[:5].upper()
        if word[:4] == "SRS0" and word[4:] in _SEPARATORS and len(word) == 5:
            return self._again(host, local[4:])
        if word[:4] == "SRS1" and word[4:] in _SEPARATORS and len(word) == 5:
            _, _, rest = local[5:].partition("=")  # without the hash of who rewrote it last
            first, equals, behind = rest.partition("=")
            if first and equals and behind:
                return self._again(first, behind)
        day = int(self._clock()) // DAY_S
        stamp = _DAYS[day >> 5 & 31] + _DAYS[day & 31]
        return f"SRS0={self._hash(stamp, host, local)}={stamp}={host}={local}@{self._domain}"

    def _again(self, host: str, behind: str) -> str:
        """What another one has rewritten: its own host first, whoever comes between is left out."""
        return f"SRS1={self._hash(host, behind)}={host}={behind}@{self._domain}"

    def _hash(self, *facts: str) -> str:
        octets = "".join(facts).lower().encode("utf-8", "surrogateescape")
        digest = hmac.new(self._secret, octets, hashlib.sha1).digest()
        return base64.b64encode(digest).decode()[:HASH_LETTERS]
