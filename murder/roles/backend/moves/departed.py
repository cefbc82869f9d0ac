"""Mailboxes that have left for another server, as long as the store keeps what they were."""

from murder.api.store import MailboxStore
from murder.errors import Refusal
from murder.model.entry import EntryState, Location, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.backend.moves.alone import ADDING_S, alone_with
from murder.roles.backend.moves.journal import Journal, Side, State, may_be_only_here


class Departed:
    """See the module. Reads the journal of moves; who asks here about such a mailbox has an old list."""

    def __init__(self, journal: Journal, store: MailboxStore) -> None:
        self._journal = journal
        self._store = store
        self._acls: tuple[str, dict[MailboxName, bytes]] = ("", {})  # of one move

    def is_kept(self, name: MailboxName) -> bool:
        """Whether the store has it for a move's sake, and the list rightly does not show it."""
        return self._journal.keeps(name) is not None

    def has_left(self, name: MailboxName) -> bool:
        """Whether it has gone to another server, and is still kept here."""
        move = self._journal.keeps(name)
        return move is not None and move.side is Side.OUT

    def row(self, name: MailboxName) -> MailboxEntry | None:
        """The row, as it was, of what has gone to another server and is still kept here."""
        move = self._journal.keeps(name)
        if move is None or move.side is not Side.OUT:
            return None
        if self._acls[0] != move.id:  # one that is asked for again and again is read once
            handed = self._journal.handed(move)
            self._acls = (move.id, dict(handed.rows) if handed else {})
        place = bytes(Location(move.server, move.partition))
        return MailboxEntry(name, EntryState.ACTIVE, place, self._acls[1].get(name, b""))

    async def make_room_for(self, name: MailboxName, mailbox_id: str, move_id: str = "") -> None:
        """Let go of what has moved away under this name, unless it is this mailbox that comes back; and of what has come as
        that from another server, and is not there any more: else nobody could take the name. `move_id`: of whom it is for,
        who has said already that the name is theirs. Raises Refusal."""
        moves = [move for move in self._journal.moves() if name in move.names]
        is_only_here = any(may_be_only_here(move) for move in moves if move.id != move_id)
        for move in moves:
            if move.side is Side.OUT and move.state is State.DONE:
                if not is_only_here:  # else what the store has under that name is what has come
                    await self._let_go(name, mailbox_id)
            elif (
                move.side is Side.IN
                and move.state is State.COPYING
                and not (is_only_here or may_be_only_here(move))
            ):
                async with alone_with(self._journal, move, ADDING_S) as now:
                    if now.state is State.COPYING:
                        await self._let_go(name, mailbox_id)

    async def _let_go(self, name: MailboxName, mailbox_id: str) -> None:
        try:
            mailbox = await self._store.open(name, "")
        except Refusal:
            return
        is_same = mailbox.mailbox_id == mailbox_id
        mailbox.close()
        if not is_same:
            await self._store.delete(name)
