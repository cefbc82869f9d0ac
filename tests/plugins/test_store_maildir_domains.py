"""Shared mailboxes of several domains as Maildirs: each has a tree of its own, and is found again by its name."""

from pathlib import Path

import pytest

from murder.model.name import MailboxName
from plugins.store_maildir.store import MaildirStore, Settings
from tests.plugins.test_store_maildir import append

ONE = b"Subject: one\r\n\r\nhello\r\n"


@pytest.mark.parametrize("shared", ["mail/+%n", "mail/%d/+%n"])
async def test_shared_mailboxes_of_two_domains_are_two(tmp_path: Path, shared: str) -> None:
    names = [MailboxName(b"x.org!news"), MailboxName(b"y.org!news")]
    settings = Settings(users="mail/%u/Maildir", shared=shared)
    store = MaildirStore(settings, tmp_path)
    await store.start()
    for name in names:
        await store.create(name, "default")
    await append(store, await store.open(names[1], "ana"), ONE)
    await store.stop()
    again = MaildirStore(settings, tmp_path)
    await again.start()
    assert sorted(stored.name for stored in await again.mailboxes()) == names
    counts = [len(await (await again.open(name, "ana")).messages()) for name in names]
    assert counts == [0, 1]
    await again.stop()


@pytest.mark.parametrize("shared", ["mail/+%n", "mail/%d/+%n"])
async def test_an_at_in_a_shared_mailboxs_name_is_a_letter(tmp_path: Path, shared: str) -> None:
    """What has one shares no folder with what is called as its beginning: who may read one would have read both."""
    names = [MailboxName(name) for name in (b"x.org!@y", b"x.org!news", b"x.org!news@y")]
    store = MaildirStore(Settings(users="mail/%u/Maildir", shared=shared), tmp_path)
    await store.start()
    for name in names:
        await store.create(name, "default")
    await append(store, await store.open(names[1], "ana"), ONE)
    assert sorted(stored.name for stored in await store.mailboxes()) == names
    counts = [len(await (await store.open(name, "ana")).messages()) for name in names]
    assert counts == [0, 1, 0]
    await store.stop()
