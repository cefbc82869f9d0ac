"""Mailboxes of a Maildir++ tree on their way to and from other servers (murder.api.CarriesMailboxes).

UIDs, UIDVALIDITY, flags, keywords and dates stand where other software reads them. Mod-sequences, what was expunged, ids,
zones of dates, what other readers have seen and keywords beyond the 26th arrive too, in the index. A name that no
Maildir++ folder can have is refused when the mailbox is announced (`hold`), before any message goes over.
"""

import sqlite3
from collections.abc import Callable, Sequence

from murder.api import CarriedMessage, CarriedRetained
from murder.errors import Code, Refusal
from murder.kit.carry import Carrier, put_message, take_portrait
from murder.kit.expunged import is_gone, keep_carried, keep_no_others
from murder.kit.incoming import FileIncoming
from murder.kit.root import Root
from murder.kit.rows import Box, load_box
from murder.model.carried import CarriedIdentity, Portrait
from murder.model.message import Uid
from murder.model.name import MailboxName
from plugins.store_maildir.files import KEPT, join_name, read_uidlist
from plugins.store_maildir.mailbox import MaildirMailbox
from plugins.store_maildir.sync import changing, publish_all
from plugins.store_maildir.tree import Tree, add_todo

Find = Callable[[MailboxName], tuple[Root, int, str] | None]


class MaildirCarrier(Carrier):
    """See the module. What leaves is the spool's way: its store looks at the folder first."""

    def _make(
        self, db: sqlite3.Connection, root: Root, name: MailboxName, identity: CarriedIdentity
    ) -> bool:
        assert isinstance(root, Tree)
        is_new = super()._make(db, root, name, identity)
        if is_new:
            add_todo(db, "", root.path_of(name))
        return is_new

    async def receive_into(
        self, mailbox: MaildirMailbox, messages: Sequence[CarriedMessage]
    ) -> None:
        """See murder.api.carry: files into `tmp`, durable with the commit, and to their places right behind it."""
        tree, box_id = mailbox.tree, mailbox.box_id
        come = [
            message.incoming for message in messages if isinstance(message.incoming, FileIncoming)
        ]
        for incoming in come:
            incoming.pin()

        def work(db: sqlite3.Connection) -> None:
            with changing(db, tree, box_id) as folder:
                box = load_box(db, box_id, even_frozen=True)
                for carried in messages:
                    _put(db, mailbox, box, folder, carried)
                box.save(db)

        def settle(_: BaseException | None) -> None:
            for incoming in come:
                incoming.unpin()

        await tree.write(work, settle)

    async def receive_retained_into(
        self,
        mailbox: MaildirMailbox,
        after: Uid,
        up_to: Uid,
        messages: Sequence[CarriedRetained],
    ) -> None:
        """See murder.api.carry.CarriesRetained: files as `receive_into`, to where no other software takes them for
        messages."""
        tree, box_id = mailbox.tree, mailbox.box_id
        come = [
            carried.incoming for carried in messages if isinstance(carried.incoming, FileIncoming)
        ]
        uids = [carried.message.uid for carried in messages]
        for incoming in come:
            incoming.pin()

        def work(db: sqlite3.Connection) -> None:
            with changing(db, tree, box_id) as folder:
                keep_no_others(db, box_id, after, up_to, uids)
                for carried in messages:
                    _keep(db, mailbox, folder, carried)

        def settle(_: BaseException | None) -> None:
            for incoming in come:
                incoming.unpin()

        await tree.write(work, settle)

    async def complete(self, name: MailboxName, portrait: Portrait) -> None:
        root, box_id, _ = self._find(name)
        assert isinstance(root, Tree)
        tree = root

        def work(db: sqlite3.Connection) -> None:
            with changing(db, tree, box_id) as folder:
                take_portrait(db, box_id, portrait)
                listed = read_uidlist(folder)
                if listed is None or listed.next < portrait.uid_next:
                    publish_all(db, box_id, folder)  # others must not give a UID that was here

        await tree.write(work)


def _put(
    db: sqlite3.Connection,
    mailbox: MaildirMailbox,
    box: Box,
    folder: bytes,
    carried: CarriedMessage,
) -> None:
    message, file = carried.message, None
    old = db.execute(
        "SELECT email_id FROM message WHERE mailbox=? AND uid=?", (box.id, message.uid)
    ).fetchone()
    if old is not None and old[0] != message.email_id:
        raise Refusal(
            Code.CANNOT,
            f"Message {message.uid} is another one here: other software has put mail there since; "
            "move that elsewhere",
        )
    if old is None and isinstance(carried.incoming, FileIncoming):
        date = message.internal_date.timestamp()
        base = mailbox.bodies.write_octets(folder, carried.incoming, date)
        letters = mailbox.bodies.letters_for(folder, message.flags)
        file = f"{box.id}/cur/{join_name(base, letters)}"
        add_todo(db, f"{box.id}/tmp/{base}", file)
    if not put_message(db, box, carried, file):
        mailbox.bodies.flags_changed(db, message.uid)


def _keep(
    db: sqlite3.Connection, mailbox: MaildirMailbox, folder: bytes, carried: CarriedRetained
) -> None:
    message, box_id, incoming = carried.message, mailbox.box_id, carried.incoming
    if not isinstance(incoming, FileIncoming) or is_gone(db, box_id, message.uid):
        return
    base = mailbox.bodies.write_octets(folder, incoming, message.internal_date.timestamp())
    letters = mailbox.bodies.letters_for(folder, message.flags)
    file = f"{box_id}/{KEPT}/{join_name(base, letters)}"
    add_todo(db, f"{box_id}/tmp/{base}", file)
    keep_carried(db, box_id, carried, file)
