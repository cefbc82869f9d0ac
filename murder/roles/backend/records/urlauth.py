"""Keys that prove URLs: who made a URL with URLAUTH, and that nobody has altered it (RFC 4467 §4, mechanism INTERNAL).

A key is made of two secrets: one of the user's in that mailbox, and one of the user's in all of them. RESETKEY with a
mailbox changes the first, without one the second, and either takes all URLs back that were made with it. Both stand as
notes in the backend's list file, so that every worker has them; a rename or delete of the mailbox carries the first.
"""

import hmac
import json
import secrets
from hashlib import blake2b
from typing import Final

from murder.errors import Code, Refusal
from murder.model.name import MailboxName
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.change import PutNote
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.transaction import ListTransaction

VERSION: Final = b"01"  # of how tokens are made: their first two digits
KEY_OCTETS: Final = 32


def url_key(name: MailboxName) -> str:
    """Under which a mailbox's secrets stand."""
    return "u/" + name.decode("latin-1")


def _user_key(user: str) -> str:
    digest = blake2b(user.encode("utf-8", "surrogateescape"), digest_size=16)
    return "U/" + digest.hexdigest()


class UrlKeys:
    """See the module."""

    def __init__(self, mailbox_list: MailboxList, ledger: Ledger, max_users: int = 1000) -> None:
        self._max_users = max_users
        self._list = mailbox_list
        self._ledger = ledger

    async def token(self, name: MailboxName, user: str, rump: bytes) -> bytes:
        """The proof for a URL up to its access identifier; makes the key where there is none, durably."""
        key = self._key(name, user)
        if key is None:
            await self.reset(name, user, keep=True)
            key = self._key(name, user)
            assert key is not None  # reset has just made it
        return _token(key, rump)

    def proves(self, name: MailboxName, user: str, rump: bytes, token: bytes) -> bool:
        """Whether the token is the one that the user's key gives; in a time that tells nothing of it."""
        key = self._key(name, user)
        expected = _token(key or secrets.token_bytes(KEY_OCTETS), rump)
        return hmac.compare_digest(expected, token) and key is not None

    async def reset(self, name: MailboxName | None, user: str, *, keep: bool = False) -> None:
        """A new key for this mailbox (None: for all): URLs of before prove nothing. `keep`: only where there is none."""
        fresh = secrets.token_hex(KEY_OCTETS)

        def propose(transaction: ListTransaction) -> None:
            note = _user_key(user) if name is None else url_key(name)
            octets = transaction.note(note)
            present: dict[str, str] = json.loads(octets) if octets else {}
            if not keep or user not in present:
                if name is not None and user not in present and len(present) >= self._max_users:
                    raise Refusal(
                        Code.LIMIT, f"URLs of one mailbox may be made by {self._max_users} users"
                    )
                present[user] = fresh
                transaction.apply(PutNote(note, json.dumps(present).encode()))

        await self._ledger.submit(propose)

    def _key(self, name: MailboxName, user: str) -> bytes | None:
        of_mailbox = self._secret(url_key(name), user)
        if of_mailbox is None:
            return None
        return of_mailbox + (self._secret(_user_key(user), user) or b"")

    def _secret(self, note: str, user: str) -> bytes | None:
        octets = self._list.note(note)
        keys: dict[str, str] = json.loads(octets) if octets else {}
        return bytes.fromhex(keys[user]) if user in keys else None


def _token(key: bytes, rump: bytes) -> bytes:
    return VERSION + hmac.digest(key, rump, "sha256").hex().encode()
