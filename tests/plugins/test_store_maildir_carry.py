"""Mailboxes that move to and from a Maildir++ tree, as Dovecot then reads it, or has made it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from murder.api import CarriedMessage, CarriesMailboxes, MailboxStore
from murder.errors import Code, Refusal
from murder.model.carried import digest_line
from murder.model.message import ModSeq, Uid
from plugins.store_memory import MemoryStore
from tests.kit.process import open_folder
from tests.plugins.test_store_maildir import (
    INBOX,
    ONE,
    SUB,
    Dovecot,
    append,
    fetched,
    filled_by,
    flags_in,
    numbers_in,
    stored,
)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Where Dovecot's own user may go."""
    with open_folder() as folder:
        yield folder


async def carry(source: MailboxStore, target: MailboxStore) -> None:
    """INBOX, as a move does."""
    assert isinstance(source, CarriesMailboxes) and isinstance(target, CarriesMailboxes)
    portrait = await source.portrait(INBOX, ModSeq(0))
    held = await target.hold(INBOX, "default", portrait.identity)
    mailbox = await source.open(INBOX, "ana")
    for row in await source.rows(INBOX, ModSeq(0), Uid(0), 100):
        incoming = None
        if row.uid not in held.uids:
            incoming = target.incoming()
            await incoming.write(await mailbox.octets(row.uid))
        await target.receive(INBOX, [CarriedMessage(row, incoming)])
    await target.complete(INBOX, portrait)
    theirs = await target.open(INBOX, "ana")
    assert await theirs.status() == await mailbox.status()
    lines = [digest_line(row) for row in await mailbox.messages()]
    assert [digest_line(row) for row in await theirs.messages()] == lines
    for uid in await mailbox.uids():
        assert bytes(await theirs.octets(uid)) == bytes(await mailbox.octets(uid))
    mailbox.close()
    theirs.close()


async def test_what_arrives_dovecot_reads_with_its_uids_flags_and_dates(tmp_path: Path) -> None:
    dovecot = Dovecot(tmp_path)

    async with stored(tmp_path) as store:
        source = MemoryStore()
        await source.create(INBOX, "default")
        inbox = await source.open(INBOX, "ana")
        for number in range(6):
            flags = frozenset({"\\Seen", "work"}) if number % 2 else frozenset({"\\Flagged"})
            await append(source, inbox, ONE, flags)  # type: ignore[arg-type] # any store
        await inbox.expunge([Uid(2), Uid(6)])
        await carry(source, store)
        inbox.close()
    said = dovecot.say(
        "STATUS INBOX (UIDNEXT UIDVALIDITY)",
        "EXAMINE INBOX",
        "UID FETCH 1:* FLAGS",
        ("APPEND INBOX", ONE),
    )
    assert numbers_in(said, "INBOX")[1] == 7, "Dovecot would give a UID again"
    seen = {"\\Seen", "work"}
    assert fetched(said) == {1: {"\\Flagged"}, 3: {"\\Flagged"}, 4: seen, 5: {"\\Flagged"}}
    assert re.search(r"\[APPENDUID \d+ 7\]", said)


async def test_what_dovecot_made_leaves_with_its_uids_flags_and_dates(tmp_path: Path) -> None:
    said = filled_by(Dovecot(tmp_path))

    async with stored(tmp_path) as store:
        target = MemoryStore()
        await carry(store, target)
        inbox = await target.open(INBOX, "ana")
        status = await inbox.status()
        assert (status.uid_validity, status.uid_next) == numbers_in(said, "INBOX")
        assert await flags_in(inbox) == {2: set(), 3: {"work"}, 4: {"\\Answered", "\\Draft"}}
        (two,) = await inbox.messages([Uid(2)])
        assert two.internal_date.isoformat() == "2020-02-01T03:04:05+00:00"
        inbox.close()


async def test_mail_that_others_put_into_a_kept_copy_is_not_written_over(tmp_path: Path) -> None:
    """It has the UID that the mailbox gave to another message at its new place: it cannot come back as it is."""

    async with stored(tmp_path) as store:
        await store.create(INBOX, "default")
        inbox = await store.open(INBOX, "ana")
        await append(store, inbox, ONE)
        elsewhere = MemoryStore()
        await carry(store, elsewhere)
        await store.freeze(INBOX, True)
        (tmp_path / "mail/ana/Maildir/new/1700000000.M1P1.host").write_bytes(
            b"Subject: late\n\nx\n"
        )
        there = await elsewhere.open(INBOX, "ana")
        await append(elsewhere, there, ONE)  # type: ignore[arg-type] # any store
        with pytest.raises(Refusal) as refused:
            await carry(elsewhere, store)
        assert (
            refused.value.code is Code.CANNOT and "Message 2 is another one" in refused.value.text
        )
        assert bytes(await inbox.octets(Uid(2))) == b"Subject: late\r\n\r\nx\r\n"
        inbox.close()
        there.close()


async def test_a_folder_that_somebody_else_has_made_is_not_taken_for_what_arrives(
    tmp_path: Path,
) -> None:
    async with stored(tmp_path) as store:
        for part in ("cur", "new", "tmp"):
            (tmp_path / "mail/ana/Maildir/.Sub.Folder" / part).mkdir(parents=True)
        source = MemoryStore()
        await source.create(SUB, "default")
        portrait = await source.portrait(SUB, ModSeq(0))
        with pytest.raises(Refusal) as refused:
            await store.hold(SUB, "default", portrait.identity)
        assert refused.value.code is Code.ALREADY_EXISTS
