"""Mailbox stores: what `murder.api.store` says, checked from outside. Each check makes its own store, in an empty folder."""

from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from murder.api.contract.at_once import counts_at_once, tells_at_once
from murder.api.contract.carry import carries_mailboxes
from murder.api.contract.check import Check, expect, hold
from murder.api.contract.mail import ANNA, OTHER, SMALL, Make, deliver, opened
from murder.api.contract.once import appends_once
from murder.api.store import (
    CountsSubscriptions,
    FlagChange,
    KeepsExpunged,
    KeepsToldSize,
    Mailbox,
    NewMessage,
    ReplacesMessages,
    RestoresExpunged,
    Retention,
    TellsExpunged,
    TellsKeywords,
    TellsModSeq,
    TellsRecent,
    TellsRetained,
)
from murder.errors import Code, Refusal
from murder.model.message import ModSeq, Uid
from murder.model.name import MailboxName, deleted_name

SENT: Final = MailboxName(b"user.anna.Sent")
DATE: Final = datetime(2024, 2, 29, 23, 59, 58, tzinfo=timezone(timedelta(hours=-5, minutes=-30)))
ODD: Final = b"Subject: \xff\x00 bare\n\r lines \r\r\n\n" + bytes(range(256)) * 7
LARGE: Final = SMALL + b"0123456789abcde\n" * 100_000
SEEN, FLAGGED, DELETED = "\\Seen", "\\Flagged", "\\Deleted"


async def refused(work: Awaitable[object], code: Code, what: str) -> None:
    """Raise Broken unless it is refused with this code."""
    try:
        await work
    except Refusal as error:
        expect(error.code, code, what)
    else:
        hold(False, f"{what}: expected Refusal({code.name}), but it was done")


async def makes_and_lists(make: Make) -> None:
    """What is created is listed, with an id and a UIDVALIDITY; it is not created twice."""
    store, _ = await opened(make)
    made = await store.create(ANNA, "default")
    hold(made.mailbox_id and made.uid_validity > 0, f"create answered {made!r}")
    await store.create(SENT, "default", "given-id")
    known = {mailbox.name: mailbox for mailbox in await store.mailboxes()}
    expect(set(known), {ANNA, SENT}, "mailboxes()")
    expect(known[ANNA], made, "what mailboxes() tells of it")
    expect(known[SENT].mailbox_id, "given-id", "the id that was given")
    await refused(store.create(ANNA, "default"), Code.ALREADY_EXISTS, "create of what exists")


async def deletes_and_repeats_it(make: Make) -> None:
    """Delete removes; deleting twice is no error; the name made again has a new UIDVALIDITY and no mail, and who has the
    old one open is not in the new one."""
    store, (inbox,) = await opened(make, ANNA)
    await deliver(store, inbox, SMALL)
    before = (await inbox.status()).uid_validity
    await store.delete(ANNA)
    await store.delete(ANNA)
    expect(list(await store.mailboxes()), [], "mailboxes() after delete")
    await refused(store.open(ANNA, "anna"), Code.NONEXISTENT, "open after delete")
    again = await store.create(ANNA, "default")
    hold(again.uid_validity != before, f"UIDVALIDITY {before} was used again")
    anew = await store.open(ANNA, "anna")
    expect((await anew.status()).messages, 0, "mail in a new mailbox")
    await refused(inbox.status(), Code.NONEXISTENT, "status of what was deleted and made again")
    await refused(inbox.changes(ModSeq(0)), Code.NONEXISTENT, "changes of it")
    await deliver(store, anew, SMALL)
    try:
        messages = list(await inbox.messages([Uid(1)]))
    except Refusal as refusal:
        expect(refusal.code, Code.NONEXISTENT, "messages of what was deleted")
    else:
        expect(messages, [], "a new mailbox's mail in the one deleted before")
    inbox.close()


async def renames_and_repeats_it(make: Make) -> None:
    """Rename keeps id, UIDs and mail, moves this one mailbox only, and may be repeated."""
    store, (sent, below) = await opened(make, SENT, MailboxName(SENT + b".below"))
    uids = await deliver(store, sent, SMALL, ODD)
    was = sent.mailbox_id
    await store.rename(SENT, OTHER)
    await store.rename(SENT, OTHER)
    names = {mailbox.name for mailbox in await store.mailboxes()}
    expect(names, {OTHER, below.name}, "names after rename")
    moved = await store.open(OTHER, "anna")
    expect(moved.mailbox_id, was, "the id after rename")
    expect(list(await moved.uids()), uids, "UIDs after rename")
    expect(bytes(await moved.octets(uids[1])), ODD, "octets after rename")


async def keeps_apart_what_was_deleted(make: Make) -> None:
    """Mailboxes of a user under DELETED are neither theirs nor lost; new ones may be made, and the old come back."""
    store, (inbox, below) = await opened(make, ANNA, SENT)
    uids = [await deliver(store, inbox, SMALL), await deliver(store, below, ODD)]
    resting = {deleted_name(name, 1_700_000_000): name for name in (ANNA, SENT)}
    for where, name in reversed(resting.items()):
        await store.rename(name, where)
        await store.rename(name, where)
    names = {mailbox.name for mailbox in await store.mailboxes()}
    expect(names, set(resting), "names after deletion")
    await store.create(ANNA, "default")
    another = await store.open(ANNA, "anna")
    expect(list(await another.uids()), [], "UIDs of a new mailbox")
    another.close()
    names = {mailbox.name for mailbox in await store.mailboxes()}
    expect(names, {ANNA, *resting}, "names beside what was deleted")
    await store.delete(ANNA)
    for where, name in resting.items():
        await store.rename(where, name)
    names = {mailbox.name for mailbox in await store.mailboxes()}
    expect(names, {ANNA, SENT}, "names of what has come back")
    for name, known, octets in zip((ANNA, SENT), uids, (SMALL, ODD), strict=True):
        back = await store.open(name, "anna")
        expect(list(await back.uids()), known, "UIDs of what has come back")
        expect(bytes(await back.octets(known[0])), octets, "octets of what has come back")
        back.close()


async def keeps_octets_exactly(make: Make) -> None:
    """What comes out is what went in, octet by octet; small, odd, large and empty."""
    store, (inbox,) = await opened(make, ANNA)
    messages = [SMALL, ODD, LARGE, b""]
    uids = await deliver(store, inbox, *messages)
    for uid, octets in zip(uids, messages, strict=True):
        hold(bytes(await inbox.octets(uid)) == octets, f"message of {len(octets)} octets differs")
    rows = await inbox.messages(uids)
    expect([row.size for row in rows], [len(octets) for octets in messages], "sizes")


async def keeps_flags_and_dates(make: Make) -> None:
    """Flags, keywords and the internal date stay as given; without a date it is now."""
    store, (inbox,) = await opened(make, ANNA)
    flags = frozenset({SEEN, "$Forwarded", "keyword"})
    (first,) = await deliver(store, inbox, SMALL, flags=flags, date=DATE)
    (second,) = await deliver(store, inbox, SMALL)
    message, other = await inbox.messages([first, second])
    expect(message.flags, flags, "flags")
    if isinstance(inbox, TellsKeywords):
        expect(sorted(await inbox.keywords()), ["$Forwarded", "keyword"], "the mailbox's keywords")
    expect(message.internal_date, DATE, "the internal date")
    expect(message.internal_date.utcoffset(), DATE.utcoffset(), "its zone")
    hold(abs(datetime.now(UTC) - other.internal_date) < timedelta(minutes=1), "no date is now")


async def counts_uids_up_for_ever(make: Make) -> None:
    """UIDs ascend within and over appends, and an expunged one never comes back."""
    store, (inbox,) = await opened(make, ANNA)
    first = await deliver(store, inbox, SMALL, SMALL, SMALL)
    expect(first, list(range(first[0], first[0] + 3)), "UIDs of one append")
    expect(list(await inbox.expunge([first[2], Uid(9999)])), [first[2]], "what expunge removed")
    (last,) = await deliver(store, inbox, SMALL)
    hold(last > first[2], f"UID {last} after {first[2]} was expunged")
    expect(list(await inbox.uids()), [*first[:2], last], "uids()")
    await refused(inbox.octets(first[2]), Code.EXPUNGE_ISSUED, "octets of what is gone")
    hold((await inbox.status()).uid_next > last, "UIDNEXT is not above the last UID")


async def changes_flags(make: Make) -> None:
    """STORE adds, removes, replaces; mod-sequences grow with real changes only."""
    store, (inbox,) = await opened(make, ANNA)
    uids = await deliver(store, inbox, SMALL, SMALL)
    before = {row.uid: row.modseq for row in await inbox.messages()}
    stored = await inbox.change_flags(uids[:1], FlagChange.ADD, frozenset({SEEN, "work"}))
    message, other = await inbox.messages()
    hold(stored.made in (0, message.modseq), "`made` is another mod-sequence than the message has")
    expect(message.flags, {SEEN, "work"}, "after ADD")
    hold(message.modseq > before[message.uid], "the mod-sequence did not grow")
    expect(other.modseq, before[other.uid], "the other message's mod-sequence")
    stored = await inbox.change_flags(uids[:1], FlagChange.ADD, frozenset({SEEN}))
    expect((await inbox.messages(uids[:1]))[0].modseq, message.modseq, "modseq, nothing changed")
    expect(stored.made, 0, "`made`, nothing changed")
    await inbox.change_flags(uids[:1], FlagChange.REMOVE, frozenset({SEEN}))
    expect((await inbox.messages(uids[:1]))[0].flags, {"work"}, "after REMOVE")
    await inbox.change_flags(uids, FlagChange.REPLACE, frozenset({FLAGGED}))
    expect([row.flags for row in await inbox.messages()], [{FLAGGED}] * 2, "after REPLACE")


async def leaves_what_changed_since(make: Make) -> None:
    """With UNCHANGEDSINCE, a message changed after it is left alone and told of."""
    store, (inbox,) = await opened(make, ANNA)
    uids = await deliver(store, inbox, SMALL, SMALL)
    known = (await inbox.status()).highest_modseq
    await inbox.change_flags(uids[:1], FlagChange.ADD, frozenset({SEEN}))
    stored = await inbox.change_flags(uids, FlagChange.ADD, frozenset({DELETED}), known)
    expect(list(stored.modified), uids[:1], "modified")
    expect([row.uid for row in stored.messages], uids[1:], "messages stored")
    expect((await inbox.messages(uids[:1]))[0].flags, {SEEN}, "the one that was left alone")


async def tells_what_happened_since(make: Make) -> None:
    """changes() tells new messages, new flags and what vanished; nothing where nothing happened."""
    store, (inbox,) = await opened(make, ANNA)
    uids = await deliver(store, inbox, SMALL, SMALL, SMALL)
    start = (await inbox.status()).highest_modseq
    nothing = await inbox.changes(start)
    expect((list(nothing.changed), list(nothing.vanished)), ([], []), "when nothing happened")
    await inbox.change_flags(uids[:1], FlagChange.ADD, frozenset({SEEN}))
    await inbox.expunge(uids[1:2])
    (new,) = await deliver(store, inbox, SMALL)
    changes = await inbox.changes(start)
    hold(changes.complete, "it no longer knows what happened a moment ago")
    expect([row.uid for row in changes.changed], [uids[0], new], "changed")
    expect(list(changes.vanished), [uids[1]], "vanished")
    expect(changes.highest_modseq, (await inbox.status()).highest_modseq, "highest_modseq")
    hold(changes.highest_modseq > start, "HIGHESTMODSEQ did not grow")
    everything = await inbox.changes(ModSeq(0))
    expect([row.uid for row in everything.changed], [uids[0], uids[2], new], "changes since ever")


async def copies_and_moves(make: Make) -> None:
    """COPY and MOVE keep octets, flags and dates and tell old and new UIDs; MOVE leaves nothing behind."""
    store, (inbox, sent) = await opened(make, ANNA, SENT)
    await deliver(store, sent, SMALL)
    uids = await deliver(store, inbox, SMALL, ODD, flags=frozenset({FLAGGED, "work"}), date=DATE)
    copied = await inbox.copy([*uids, Uid(9999)], sent)
    expect(list(copied), uids, "source UIDs of COPY")
    new = list(copied.values())
    expect(new, sorted(new), "target UIDs of COPY, ascending")
    expect(bytes(await sent.octets(new[1])), ODD, "octets of the copy")
    row = (await sent.messages(new[:1]))[0]
    expect((row.flags, row.internal_date), ({FLAGGED, "work"}, DATE), "flags and date of the copy")
    moved = await inbox.move(uids[:1], sent)
    expect(list(moved), uids[:1], "source UIDs of MOVE")
    expect(list(await inbox.uids()), uids[1:], "what MOVE left")
    expect(bytes(await sent.octets(moved[uids[0]])), SMALL, "octets of what was moved")
    itself = await inbox.copy(uids[1:], inbox)
    hold(itself[uids[1]] > uids[1], "a copy into the same mailbox is a new message")


async def counts(make: Make) -> None:
    """status() counts messages, unseen, deleted and octets."""
    store, (inbox,) = await opened(make, ANNA)
    uids = await deliver(store, inbox, SMALL, ODD, SMALL)
    await inbox.change_flags(uids[:1], FlagChange.ADD, frozenset({SEEN}))
    await inbox.change_flags(uids[1:2], FlagChange.ADD, frozenset({DELETED}))
    status = await inbox.status()
    expect(
        (status.messages, status.unseen, status.deleted, status.size),
        (3, 2, 1, 2 * len(SMALL) + len(ODD)),
        "messages, unseen, deleted, size",
    )


async def keeps_each_readers_seen(make: Make) -> None:
    """In a mailbox that is not their own, each reader has their own \\Seen; other flags are shared."""
    store, (inbox,) = await opened(make, ANNA)
    uids = await deliver(store, inbox, SMALL)
    theirs = await store.open(ANNA, "bert")
    await theirs.change_flags(uids, FlagChange.ADD, frozenset({SEEN, FLAGGED}))
    expect((await theirs.messages())[0].flags, {SEEN, FLAGGED}, "what the reader sees")
    fresh = await store.open(ANNA, "anna")
    expect((await fresh.messages())[0].flags, {FLAGGED}, "what the owner sees")


async def tells_mod_sequences(make: Make) -> None:
    """What a mailbox's changes have come to is known without opening it, after each of them."""
    store, (inbox,) = await opened(make, ANNA)
    if not isinstance(store, TellsModSeq):
        return
    for change in ("an empty mailbox's", "after a message", "after its flags", "after it went"):
        modseq = (await inbox.status()).highest_modseq
        expect(await store.modseq_of(ANNA), (inbox.mailbox_id, modseq), change)
        if change.startswith("an"):
            uids = await deliver(store, inbox, SMALL)
        elif change.endswith("message"):
            await inbox.change_flags(uids, FlagChange.ADD, frozenset({FLAGGED}))
        else:
            await inbox.expunge(uids)
    expect(await store.modseq_of(MailboxName(b"user.nobody")), None, "of one that is not there")


async def claims_recent_once(make: Make) -> None:
    """A message is \\Recent for one session only."""
    store, (inbox,) = await opened(make, ANNA)
    uids = await deliver(store, inbox, SMALL, SMALL)
    if isinstance(inbox, TellsRecent):
        expect(sorted(await inbox.recent()), uids, "what the next session will be told")
    expect(sorted(await inbox.claim_recent()), uids, "the first session's")
    again = await store.open(ANNA, "anna")
    expect(sorted(await again.claim_recent()), [], "the second session's")


async def keeps_subscriptions(make: Make) -> None:
    """Subscriptions are each user's own, and may name what does not exist."""
    store, _ = await opened(make)
    await store.subscribe("anna", SENT, True)
    await store.subscribe("anna", SENT, True)
    await store.subscribe("bert", ANNA, True)
    expect(set(await store.subscriptions("anna")), {SENT}, "anna's")
    if isinstance(store, CountsSubscriptions):
        counts = [await store.count_subscriptions(user, 10) for user in ("anna", "nobody")]
        expect(counts, [1, 0], "how many are anna's and a stranger's")
        await store.subscribe("anna", ANNA, True)
        expect(await store.count_subscriptions("anna", 1), 1, "how many, counted up to one")
        are_subscribed = [
            await store.is_subscribed("anna", name) for name in (ANNA, MailboxName(b"x"))
        ]
        expect(are_subscribed, [True, False], "whether anna's")
        await store.subscribe("anna", ANNA, False)
    await store.subscribe("anna", SENT, False)
    await store.subscribe("anna", SENT, False)
    expect(set(await store.subscriptions("anna")), set(), "anna's, taken back")
    expect(set(await store.subscriptions("nobody")), set(), "a stranger's")


async def tells_its_listener(make: Make) -> None:
    """watch() hears of every change."""

    class Ear:
        def __init__(self) -> None:
            self.heard: list[str] = []

        def mailbox_changed(self, mailbox_id: str) -> None:
            self.heard.append(mailbox_id)

    store, (inbox,) = await opened(make, ANNA)
    ear = Ear()
    store.watch(ear)
    uids = await deliver(store, inbox, SMALL)
    hold(inbox.mailbox_id in ear.heard, "it did not tell of an append")
    ear.heard.clear()
    await inbox.expunge(uids)
    hold(inbox.mailbox_id in ear.heard, "it did not tell of an expunge")


async def replaces_messages(make: Make) -> None:
    """A message comes where others go, within a mailbox or into another: both or neither."""
    store, (inbox, sent) = await opened(make, ANNA, SENT)
    if not isinstance(inbox, ReplacesMessages):
        return
    uids = await deliver(store, inbox, SMALL, ODD, SMALL)

    async def replace(uid: Uid, octets: bytes, target: Mailbox) -> tuple[Uid, list[Uid]] | None:
        incoming = store.incoming()
        await incoming.write(octets)
        try:
            new = NewMessage(incoming, frozenset({FLAGGED}), None)
            done = await inbox.replace([uid], new, target)
        finally:
            await incoming.close()
        return None if done is None else (done[0], list(done[1]))

    for target, octets in ((inbox, LARGE), (sent, SMALL)):
        before = await inbox.status(), (await target.status()).uid_next
        done = await replace(uids[0], octets, target)
        if done is None:
            expect((await inbox.status(), (await target.status()).uid_next), before, "nothing")
            continue
        new, gone = done
        expect(gone, uids[:1], "what has gone")
        expect(new, before[1], "the new UID")
        hold(bytes(await target.octets(new)) == octets, "the new octets differ")
        (row,) = await target.messages([new])
        expect(row.flags, frozenset({FLAGGED}), "its flags")
        expect(list((await inbox.changes(before[0].highest_modseq)).vanished), gone, "vanished")
        await refused(replace(uids[0], SMALL, target), Code.NONEXISTENT, "replacing what has gone")
        expect((await target.status()).uid_next, new + 1, "what comes next, where nothing came")
        uids = [*uids[1:], new]


async def keeps_what_was_expunged(make: Make) -> None:
    """What is expunged or moved away can be read by those who have not been told, until they have let go of it."""
    store, (inbox, sent) = await opened(make, ANNA, SENT)
    if not isinstance(store, KeepsExpunged):
        return
    hold(isinstance(inbox, TellsExpunged), "its mailboxes do not tell what is kept")
    assert isinstance(inbox, TellsExpunged)

    class Workers:
        bits = 0

        def holders(self, mailbox: Mailbox) -> int:
            return self.bits

    workers = Workers()
    store.keep_for(workers)
    uids = await deliver(store, inbox, SMALL, ODD, LARGE, SMALL, flags=frozenset({FLAGGED, "work"}))
    await inbox.keep_summary(uids[1], b"summary")
    rows = {row.uid: row for row in await inbox.messages()}
    await inbox.expunge(uids[:1])
    expect(list(await inbox.expunged(uids)), [], "kept for nobody")
    workers.bits = 6
    await inbox.expunge(uids[1:2])
    between = (await inbox.status()).highest_modseq
    await inbox.move(uids[2:3], sent)
    expect(list(await inbox.uids()), uids[3:], "uids()")
    expect(list(await inbox.messages(uids)), [rows[uids[3]]], "messages()")
    expect((await inbox.status()).messages, 1, "status()")
    expect(list((await inbox.changes(ModSeq(0))).vanished), uids[:3], "vanished")
    expect(list(await inbox.expunged(uids)), [rows[uid] for uid in uids[1:3]], "expunged()")
    expect(bytes(await inbox.octets(uids[1])), ODD, "octets of what was expunged")
    expect(await inbox.summary(uids[1]) in (b"summary", None), True, "its summary")
    hold(bytes(await inbox.octets(uids[2])) == LARGE, "octets of what was moved away differ")
    await refused(inbox.octets(uids[0]), Code.EXPUNGE_ISSUED, "octets of what nobody keeps")
    stored = await inbox.change_flags(uids[1:3], FlagChange.ADD, frozenset({SEEN}))
    expect(list(stored.messages), [], "flags of what was expunged")
    expect(dict(await inbox.copy(uids[1:3], sent)), {}, "copies of it")
    inbox.let_go(between, 2)
    inbox.let_go(between, 4)
    inbox.let_go((await inbox.status()).highest_modseq, 2)
    await deliver(store, inbox, SMALL)  # behind what was to be done soon
    expect([row.uid for row in await inbox.expunged(uids)], uids[2:3], "what one still holds")
    await refused(inbox.octets(uids[1]), Code.EXPUNGE_ISSUED, "octets of what all let go of")


async def brings_back_what_was_expunged(make: Make) -> None:
    """What was expunged is kept for its time, in no count, and comes back with new UIDs and all else as it was; what was
    moved away is not kept."""
    store, (inbox, sent) = await opened(make, ANNA, SENT)
    if not isinstance(store, RestoresExpunged):
        return
    assert isinstance(inbox, TellsRetained)
    flags = frozenset({FLAGGED, DELETED, SEEN, "work"})
    early = await deliver(store, inbox, SMALL)
    await inbox.expunge(early)
    expect(list(await inbox.retained(Uid(0), 9)), [], "kept before anybody said so")
    store.retain(Retention(keep_s=3600.0))
    uids = await deliver(store, inbox, SMALL, ODD, LARGE, SMALL, flags=flags, date=DATE)
    theirs = await store.open(ANNA, "bert")
    await theirs.change_flags(uids[1:2], FlagChange.ADD, frozenset({SEEN}))
    rows = {row.uid: row for row in await inbox.messages(uids)}
    await inbox.move(uids[3:], sent)
    await inbox.expunge(uids[:3])
    kept = await inbox.retained(Uid(0), 9)
    expect([retained.message for retained in kept], [rows[uid] for uid in uids[:3]], "retained()")
    age = datetime.now(UTC) - kept[0].at
    hold(timedelta(seconds=-1) < age < timedelta(hours=1), f"expunged at {kept[0].at}")
    expect(
        [retained.message.uid for retained in await inbox.retained(uids[0], 1)],
        uids[1:2],
        "one of them",
    )
    expect((await inbox.status()).messages, 0, "status()")
    await store.rename(ANNA, OTHER)
    moved = await store.open(OTHER, "anna")
    assert isinstance(moved, TellsRetained)
    last = (await moved.status()).uid_next
    before = (await moved.status()).highest_modseq
    back = await moved.restore([*uids[1:], Uid(99)])
    expect(list(back), uids[1:3], "what came back")
    hold(min(back.values()) >= last, f"UID {min(back.values())} may have been told already")
    again = await moved.messages()
    expect([row.uid for row in again], list(back.values()), "UIDs")
    for old, row in zip(back, again, strict=True):
        expect(row.flags, rows[old].flags - {DELETED}, "flags")
        expect(row.internal_date, rows[old].internal_date, "its date")
        expect((row.email_id, row.size), (rows[old].email_id, rows[old].size), "id and size")
        hold(row.modseq > before, "its mod-sequence has been told already")
    hold(bytes(await moved.octets(again[0].uid)) == ODD, "octets differ")
    hold(bytes(await moved.octets(again[1].uid)) == LARGE, "octets of a large one differ")
    theirs = await store.open(OTHER, "bert")
    seen = [SEEN in row.flags for row in await theirs.messages()]
    expect(seen, [True, False], "seen by another")
    expect(dict(await moved.restore(uids)), {uids[0]: Uid(max(back.values()) + 1)}, "the rest")
    await moved.expunge([again[0].uid])
    store.retain(Retention())
    expect(await store.purge(), 1, "what has gone")
    expect(list(await moved.retained(Uid(0), 9)), [], "what is kept when nothing is")
    await refused(moved.octets(again[0].uid), Code.EXPUNGE_ISSUED, "octets of what has gone")


async def keeps_told_sizes(make: Make) -> None:
    """What is told of a message's size comes with it, goes along with copies, and is put right by who has looked."""
    store, (inbox, sent) = await opened(make, ANNA, SENT)
    if not isinstance(inbox, KeepsToldSize) or not isinstance(sent, KeepsToldSize):
        return
    await store.create(MailboxName(b"user.bert"), "default")
    theirs = await store.open(MailboxName(b"user.bert"), "anna")
    uids = await deliver(store, inbox, SMALL, SMALL)
    for octets in (ODD, LARGE):
        incoming = store.incoming()
        await incoming.write(octets)
        size = len(octets) + 10
        uids += await inbox.append([NewMessage(incoming, told_size=size)])
        await incoming.close()
    sizes = [0, 0, len(ODD) + 10, len(LARGE) + 10]
    rows = await inbox.messages(uids)
    expect([row.told_size for row in rows], sizes, "told_size")
    expect([row.size for row in rows], [len(SMALL)] * 2 + [len(ODD), len(LARGE)], "size")
    expect([row.told_size for row in (await inbox.changes(ModSeq(0))).changed], sizes, "changes()")
    expect(await inbox.told_octets(), 20, "told_octets()")
    for target in (sent, theirs):
        copies = await inbox.copy(uids[1:], target)
        messages = await target.messages(list(copies.values()))
        expect([row.told_size for row in messages], sizes[1:], "of copies")
    await inbox.keep_told_size(uids[2], 0)
    await inbox.keep_told_size(uids[0], 5)
    await deliver(store, inbox, SMALL)  # behind these hints
    rows = await inbox.messages(uids)
    expect([row.told_size for row in rows], [5, 0, 0, sizes[3]], "after somebody has looked")
    await inbox.expunge(uids)
    expect(await inbox.told_octets(), 0, "of what is gone")
    again = await deliver(store, inbox, SMALL)
    expect([row.told_size for row in await inbox.messages(again)], [0], "of a new message")


STORE_CHECKS: Final[tuple[Check, ...]] = (
    makes_and_lists,
    deletes_and_repeats_it,
    renames_and_repeats_it,
    keeps_apart_what_was_deleted,
    keeps_octets_exactly,
    keeps_flags_and_dates,
    counts_uids_up_for_ever,
    changes_flags,
    leaves_what_changed_since,
    tells_what_happened_since,
    copies_and_moves,
    counts,
    keeps_each_readers_seen,
    tells_mod_sequences,
    claims_recent_once,
    keeps_subscriptions,
    tells_its_listener,
    replaces_messages,
    keeps_what_was_expunged,
    brings_back_what_was_expunged,
    keeps_told_sizes,
    tells_at_once,
    counts_at_once,
    appends_once,
    carries_mailboxes,
)
