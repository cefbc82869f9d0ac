"""Mail from outside: from any IMAP server, or from a Maildir++ tree, into a user's mailboxes here. Differences only.

A message is known again by its Message-ID, date, subject and size, so an import can be run as often as wanted: what is
here already stays, its flags follow the source. Flags, keywords and dates come along. What the source says is not
believed: it may be a stranger's server (`sources`).
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from murder.admin.operate.reach import Reach
from murder.admin.operate.sources import Found, Key, Source, flags_of, known_message
from murder.errors import Code, Refusal
from murder.model.name import Namespace, inbox_of
from murder.wire.imap.date import format_date_time
from murder.wire.imap.mail.fetched import parse_fetch_response
from murder.wire.token import string


@dataclass(slots=True)
class Brought:
    """How far an import is."""

    folders: int = 0
    messages: int = 0
    octets: int = 0
    flags: int = 0
    present: int = 0


# --- bringing


class Import:
    """Into one user's mailboxes; `tell` hears how far it is."""

    def __init__(
        self, reach: Reach, user: str, source: Source, tell: Callable[[Brought], None]
    ) -> None:
        self._reach = reach
        self._user = user
        self._source = source
        self._tell = tell
        self._server = ""
        self.brought = Brought()

    async def run(self) -> Brought:
        """Raises Refusal, UpstreamFailure: what was brought until then stays, and the next run goes on."""
        if self._reach.credential.password is not None:
            raise Refusal(
                Code.NO_PERMISSION,
                "An administrator's password cannot put mail into users' mailboxes: use an operator's certificate",
            )
        self._server = (await self._reach.find(inbox_of(self._user))).server
        for folder in await asyncio.to_thread(self._source.folders):
            await self._folder(folder)
            self.brought.folders += 1
            self._tell(self.brought)
        return self.brought

    async def _ask(self, command: bytes, untagged: Callable[[bytes], None] | None = None) -> None:
        await self._reach.execute(self._server, command, user=self._user, untagged=untagged)

    async def _folder(self, folder: tuple[str, ...]) -> None:
        name = self._name(folder)
        if folder != ("INBOX",):
            try:
                await self._ask(b"CREATE " + name)
            except Refusal as refusal:
                if refusal.code is not Code.ALREADY_EXISTS:
                    raise
        here = await self._present(name)
        there = self._source.messages(folder)
        while (message := await asyncio.to_thread(next, there, None)) is not None:
            present = here.get(message.key)
            if present is None:
                await self._bring(name, folder, message)
            else:
                self.brought.present += 1
                await self._follow(present, message)
            self._tell(self.brought)

    def _name(self, folder: tuple[str, ...]) -> bytes:
        """The folder as this murder calls it: below INBOX, or beside it in the alternative namespace."""
        namespace = self._reach.namespace
        if folder == ("INBOX",):
            return string(b"INBOX")
        levels = [_level(namespace, level) for level in folder if level != "INBOX"]
        if namespace.personal_prefix == b"" and levels:  # no name leads to where others' mail is
            roots = {namespace.users_prefix[:-1], namespace.shared_prefix[:-1], b"INBOX"}
            levels[0] = b"_" + levels[0] if levels[0] in roots else levels[0]
        return string(namespace.personal_prefix + namespace.separator.join(levels))

    async def _present(self, name: bytes) -> Mapping[Key, tuple[bytes, frozenset[str]]]:
        """What is here already: its UID and flags by key."""
        messages: dict[Key, tuple[bytes, frozenset[str]]] = {}

        def take(response: bytes) -> None:
            message = parse_fetch_response(response)
            known = known_message(message) if message is not None else None
            if message is not None and known is not None:
                key, uid = known
                messages[key] = (b"%d" % uid, flags_of(message))

        await self._ask(b"SELECT " + name)
        words = b"(UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE SUBJECT FROM)])"
        await self._ask(b"UID FETCH 1:* " + words, untagged=take)
        return messages

    async def _bring(self, name: bytes, folder: tuple[str, ...], message: Found) -> None:
        try:
            octets, date = await asyncio.to_thread(self._source.take, folder, message)
        except Refusal as refusal:
            if refusal.code is Code.EXPUNGE_ISSUED:
                return
            raise
        flags = " ".join(sorted(message.flags)).encode()
        head = b"APPEND %s (%s) %s {%d+}\r\n" % (name, flags, format_date_time(date), len(octets))
        await self._ask(head + octets)
        self.brought.messages += 1
        self.brought.octets += len(octets)

    async def _follow(self, present: tuple[bytes, frozenset[str]], message: Found) -> None:
        uid, flags = present
        more = message.flags - flags
        if more:
            words = " ".join(sorted(more)).encode()
            await self._ask(b"UID STORE %s +FLAGS.SILENT (%s)" % (uid, words))
            self.brought.flags += 1


def _level(namespace: Namespace, level: str) -> bytes:
    """One level of a name as it may be called here: what would cut it in two, or is no name's, becomes `_`."""
    octets = level.encode("ascii", "replace").replace(namespace.separator, b"_")
    return octets.replace(b"^", b"_") if namespace.unix_hierarchy else octets
