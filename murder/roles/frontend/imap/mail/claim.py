"""Whose a message is that several sessions move from a backend without UID XREMOVE: a conditional STORE says it (RFC 7162).

Each sets `\\Deleted` on condition that nobody has changed the message since it looked; who succeeds expunges it, all others
have lost it. Where it was `\\Deleted` before, that is taken back first, likewise. This runs on a connection of its own: a
client that knows nothing of CONDSTORE shall not be told of MODSEQ from then on.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from murder.errors import BadSyntax, Code, Refusal, UpstreamKind
from murder.model.flag import DELETED
from murder.model.message import ModSeq, Uid
from murder.model.seqset import compress
from murder.net.outgoing.exchange import Reply
from murder.net.outgoing.relay import ImapUpstream
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.internal import execute, refusal_of
from murder.roles.frontend.imap.mail.crossing import UIDS_OF_COMMAND, Removal
from murder.roles.frontend.imap.selected import Selected
from murder.wire.imap.mail.fetched import parse_fetch_response
from murder.wire.imap.seqset import format_ranges, read_ranges
from murder.wire.token import client_astring

CLAIMS: Final = b"CONDSTORE"  # the capability that this needs
ROUNDS: Final = 10  # of others changing other flags meanwhile


@dataclass(frozen=True, slots=True)
class _Seen:
    """A message as it was when we looked."""

    modseq: ModSeq
    is_deleted: bool


async def remove_claimed(
    dialogue: FrontendImap, selected: Selected, uids: Sequence[Uid], removal: Removal
) -> None:
    """Expunge those that this session gets hold of. Raises UpstreamFailure: then nobody knows."""

    def keep(response: bytes) -> bool:
        removal.news.append(response)
        return True

    async with dialogue.spare_upstream(selected.server) as upstream:
        mailbox = client_astring(dialogue.external(selected.name))
        reply = await upstream.execute(b"SELECT " + mailbox + b" (CONDSTORE)")
        for at in range(0, len(uids), UIDS_OF_COMMAND):
            if not reply.is_ok:
                break
            claim = _Claim(upstream)
            won = await claim.take(uids[at : at + UIDS_OF_COMMAND])
            if won:
                reply = await upstream.execute(b"UID EXPUNGE " + format_ranges(compress(won)))
                if not reply.is_ok:
                    await _settle(upstream)
                # what is still there had its mark taken off by another session: it is theirs
                left = await claim.look(won)
                removal.removed += [uid for uid in won if uid not in left]
                if reply.is_ok and b"QRESYNC" in dialogue.enabled:
                    removal.code = reply.code if reply.code.startswith(b"HIGHESTMODSEQ ") else b""
            removal.refusal = claim.refusal
        if not reply.is_ok:
            removal.refusal = refusal_of(reply)
    await execute(dialogue, selected.upstream, b"NOOP", keep)


async def _settle(upstream: ImapUpstream) -> None:
    """An expunge was refused, and may have been done all the same: what has gone may be read until it is told. Raises
    UpstreamFailure where nobody knows."""
    reply = await upstream.execute(b"NOOP")
    if not reply.is_ok:
        raise upstream.failure(UpstreamKind.UNAVAILABLE, reply.text)


class _Claim:
    """For some messages of the mailbox that is selected there. `refusal`: what was in the way of those not won or lost."""

    def __init__(self, upstream: ImapUpstream) -> None:
        self._upstream = upstream
        self.refusal: Refusal | None = None

    async def take(self, uids: Sequence[Uid]) -> list[Uid]:
        """Those that are ours now: marked, to be expunged."""
        seen = await self.look(uids)
        marked = [uid for uid in seen if seen[uid].is_deleted]
        unmarked = await self._change(b"-FLAGS.SILENT", {uid: seen.pop(uid) for uid in marked})
        seen.update(await self.look(unmarked))
        lost = {uid for uid in unmarked if uid in seen and seen[uid].is_deleted}
        won = await self._change(
            b"+FLAGS.SILENT", {uid: row for uid, row in seen.items() if uid not in lost}
        )
        return sorted(won)

    async def _change(self, verb: bytes, seen: dict[Uid, _Seen]) -> list[Uid]:
        """Put the mark on, or take it off; those where it was this session that did."""
        done: list[Uid] = []
        for _ in range(ROUNDS):
            if not seen:
                return done
            changed = await self._store(verb, seen)
            done += changed
            others = await self.look([uid for uid in seen if uid not in changed])
            # what has the other mark now has been taken by somebody else; else it was some other flag
            seen = {
                uid: row for uid, row in others.items() if row.is_deleted is seen[uid].is_deleted
            }
        self.refusal = Refusal(
            Code.IN_USE, "Other sessions keep changing these messages: try again"
        )
        return done

    async def _store(self, verb: bytes, seen: dict[Uid, _Seen]) -> Collection[Uid]:
        """Of these, what nobody has changed since they were `seen`. What has been expunged is told of by no FETCH."""
        newest = max(row.modseq for row in seen.values())
        uids: set[Uid] = set()

        def take(response: bytes) -> None:
            fetched = parse_fetch_response(response)
            if fetched is not None and fetched.uid in seen and (fetched.modseq or 0) > newest:
                uids.add(fetched.uid)

        command = b"UID STORE %s (UNCHANGEDSINCE %d) %s (\\Deleted)"
        octets = command % (format_ranges(compress(sorted(seen))), newest, verb)
        reply = await self._upstream.execute(octets, untagged=take)
        if reply.word == b"BAD" or not (reply.is_ok or reply.code.startswith(b"MODIFIED")):
            self.refusal = refusal_of(reply)
            return ()
        changed = self._changed(reply)
        return [uid for uid in uids if not any(low <= uid <= high for low, high in changed)]

    def _changed(self, reply: Reply) -> list[tuple[int, int]]:
        """By others, as the code MODIFIED tells."""
        word, _, ranges = reply.code.partition(b" ")
        if word.upper() != b"MODIFIED":
            return []
        try:
            return [(min(ends), max(ends)) for ends in read_ranges(ranges)]
        except BadSyntax as error:
            raise self._upstream.failure(UpstreamKind.PROTOCOL, str(error)) from error

    async def look(self, uids: Collection[Uid]) -> dict[Uid, _Seen]:
        """How they are now; what is gone is missing."""
        rows: dict[Uid, _Seen] = {}

        def take(response: bytes) -> None:
            fetched = parse_fetch_response(response)
            if fetched is None or fetched.uid is None or fetched.modseq is None:
                return
            if fetched.flags is not None and fetched.uid in wanted:
                rows[fetched.uid] = _Seen(fetched.modseq, DELETED in fetched.flags)

        wanted = frozenset(uids)
        if wanted:
            chosen = format_ranges(compress(sorted(wanted)))
            command = b"UID FETCH " + chosen + b" (UID FLAGS MODSEQ)"
            reply = await self._upstream.execute(command, untagged=take)
            if not reply.is_ok:
                self.refusal = refusal_of(reply)
        return rows
