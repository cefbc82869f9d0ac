"""The power of mailboxes to move to another server: what `murder.api.carry` says, checked from outside."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone

from murder.api.carry import CarriedMessage, CarriesMailboxes
from murder.api.contract.check import expect, hold
from murder.api.store import FlagChange, Mailbox, MailboxStore, NewMessage
from murder.errors import Code, Refusal
from murder.model.carried import digest_line
from murder.model.message import ModSeq, Uid
from murder.model.name import MailboxName

Make = Callable[[], Awaitable[MailboxStore]]

HERE, THERE = MailboxName(b"user.anna"), MailboxName(b"user.bert")
BESIDE, APART = MailboxName(b"user.anna.beside"), MailboxName(b"shared.apart")
OCTETS = (b"Subject: small\r\n\r\nx\r\n", b"Subject: large\r\n\r\n" + b"y" * 200_000 + b"\r\n")
ODD = b"Subject: odd\r\n\r\none\r\r\ntwo\r\nbare\nend"
DATE = datetime(2011, 12, 13, 14, 15, 16, tzinfo=timezone(timedelta(hours=-3, minutes=-30)))


async def carries_mailboxes(make: Make) -> None:
    """A mailbox arrives under another name as it left: UIDVALIDITY, UIDs, mod-sequences, flags, dates, tombstones,
    octets; what comes later follows; frozen, it refuses changes, and nobody claims what is recent. (Only of a store
    that has this power.)"""
    store = await make()
    if not isinstance(store, CarriesMailboxes):
        return
    made = await store.create(HERE, "default")
    inbox = await store.open(HERE, "anna")
    for octets in (*OCTETS, *OCTETS, ODD):
        await _append(store, inbox, octets, frozenset({"\\Seen", "$Word"}))
    await inbox.expunge([Uid(2)])
    await inbox.claim_recent()
    await _append(store, inbox, OCTETS[0], frozenset())
    await _carry(store, ModSeq(0))
    await _same(store, made.mailbox_id)
    before = (await inbox.status()).highest_modseq
    await inbox.change_flags([Uid(1)], FlagChange.REPLACE, frozenset({"\\Flagged"}))
    await inbox.expunge([Uid(3), Uid(5)])
    await _carry(store, before)
    await _same(store, made.mailbox_id)
    await store.freeze(HERE, True)
    await store.freeze(HERE, True)
    hold(await store.is_frozen(HERE), "it does not know that it is frozen")
    try:
        await inbox.change_flags([Uid(1)], FlagChange.ADD, frozenset({"\\Seen"}))
    except Refusal as refusal:
        expect(refusal.code, Code.IN_USE, "a change of a frozen mailbox")
    else:
        hold(False, "a frozen mailbox was changed")
    await _move_is_refused(store, inbox)
    expect(set(await inbox.claim_recent()), set(), "what is recent in a frozen mailbox")
    await store.freeze(HERE, False)
    expect(set(await inbox.claim_recent()), {Uid(6)}, "what is recent where it was frozen before")
    await inbox.change_flags([Uid(1)], FlagChange.ADD, frozenset({"\\Seen"}))
    inbox.close()
    there = await store.open(THERE, "bert")
    expect(await _append(store, there, ODD, frozenset()), Uid(7), "the UID that comes next")
    hold(bytes(await there.octets(Uid(7))) == ODD, "what came later is not as it came")
    there.close()


async def _move_is_refused(store: MailboxStore, inbox: Mailbox) -> None:
    """A MOVE out of a frozen mailbox, to the same user's and to another's."""
    for name in (BESIDE, APART):
        await store.create(name, "default")
        other = await store.open(name, "anna")
        try:
            await inbox.move([Uid(1), Uid(4)], other)
        except Refusal as refusal:
            expect(refusal.code, Code.IN_USE, "a MOVE out of a frozen mailbox")
        else:
            hold(False, "a message was moved out of a frozen mailbox")
        expect(list(await other.uids()), [], "what a refused MOVE has left in the target")
        other.close()
        await store.delete(name)
    expect(list(await inbox.uids()), [1, 4, 6], "what a refused MOVE has left behind")


async def _append(
    store: MailboxStore, mailbox: Mailbox, octets: bytes, flags: frozenset[str]
) -> Uid:
    incoming = store.incoming()
    await incoming.write(octets)
    (uid,) = await mailbox.append([NewMessage(incoming, flags, DATE)])
    await incoming.close()
    return uid


async def _carry(store: MailboxStore, since: ModSeq) -> None:
    """As a move does, but within one store: so the copy has an id of its own."""
    assert isinstance(store, CarriesMailboxes)
    portrait = await store.portrait(HERE, since)
    identity = type(portrait.identity)("carried", portrait.identity.uid_validity)
    held = await store.hold(THERE, "default", identity)
    expect(held.modseq, since, "what the target has")
    mailbox = await store.open(HERE, "anna")
    carried = []
    for row in await store.rows(HERE, since, Uid(0), 100):
        incoming = None
        if row.uid not in held.uids:
            incoming = store.incoming()
            await incoming.write(await mailbox.octets(row.uid))
        carried.append(CarriedMessage(row, incoming))
    await store.receive(THERE, carried)
    await store.receive(THERE, carried)  # twice, as after a crash
    for message in carried:
        if message.incoming is not None:
            await message.incoming.close()
    await store.complete(THERE, portrait)
    await store.complete(THERE, portrait)
    mailbox.close()


async def _same(store: MailboxStore, mailbox_id: str) -> None:
    ours, theirs = await store.open(HERE, "anna"), await store.open(THERE, "bert")
    expect(ours.mailbox_id, mailbox_id, "the id of the source")
    expect(await theirs.status(), await ours.status(), "the counts")
    lines = [digest_line(row) for row in await ours.messages()]
    expect([digest_line(row) for row in await theirs.messages()], lines, "the rows")
    expect(await theirs.changes(ModSeq(0)), await ours.changes(ModSeq(0)), "the changes")
    for uid in await ours.uids():
        hold(bytes(await theirs.octets(uid)) == bytes(await ours.octets(uid)), "octets differ")
    ours.close()
    theirs.close()
