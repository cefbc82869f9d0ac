"""SEARCH by what the store keeps of messages: it tells the same as their octets, which are not read then."""

import asyncio
import itertools
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import cast

import pytest

from murder.api.store import Mailbox
from murder.mime.structure import parse_structure
from murder.mime.text import addresses_have, header_has
from murder.model.message import Message, ModSeq, Uid
from murder.model.query.search import AddressHas, DateIs, DateOf, HeaderHas, Relation, SearchKey
from murder.net.turns import Turn
from murder.roles.backend.changes.updates import View
from murder.roles.backend.imap.search.criteria import Scene
from murder.roles.backend.imap.search.judging import Judge

TEXTS = ("", "hello", "world", "grüße", "re: x", "zzz", "hello world", "a b")
SCENE = Scene(1, 1, (), datetime.now(UTC))


class Keeping:
    """A mailbox of one message, which keeps what it is given and counts how often its octets are read."""

    mailbox_id = "keeping"

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._summary: bytes | None = None
        self.read = 0
        self.asked = 0
        self.message = Message(
            Uid(1), frozenset(), datetime.now(UTC), len(octets), modseq=ModSeq(1)
        )

    async def octets(self, _: Uid) -> memoryview:
        self.read += 1
        return memoryview(self._octets)

    async def summary(self, _: Uid) -> bytes | None:
        self.asked += 1
        return self._summary

    async def summaries(self, uids: list[Uid]) -> dict[Uid, bytes]:
        return dict.fromkeys(uids, self._summary) if self._summary is not None else {}

    async def keep_summary(self, _: Uid, summary: bytes) -> None:
        self._summary = summary

    def fulfils(self, key: SearchKey) -> bool:
        view = View(cast("Mailbox", self), True)
        view.uids.append(1)
        judge = Judge(view, key, SCENE, Turn())
        return bool(asyncio.run(judge.chosen([self.message])))


ONE_SUBJECT = (
    b"Subject: hello world\r\nFrom: Ann <ann@hello.example>\r\n\r\nzzz\r\n",
    b"From: a@b\r\n\r\nSubject: hello\r\n",
    b"Subject:\r\nTo: world <w@x>\r\n\r\nx",
    b"subject : RE:   x\r\nDate: Mon, 30 Nov 2026 04:00:00 +0000\r\n\r\nx\r\n",
    b"Subject: =?utf-8?q?Gr=C3?=\r\n =?utf-8?b?w7zDn2U=?= hello\r\n  world\r\n\r\nx\r\n",
    b"X: y\r\nSubject: =?utf-8?q?gr=C3=BC=C3?= =?utf-8?q?=9Fe?=\r\n\r\nx\r\n",
    b"Subject: a\tb\xff\xc3\xbc\r\n\r\nx\r\n",
    b"Subject: a\r b\r\n\r\nx\r\n",
    b"no header at all",
    b"",
)
OTHERS = (
    b"Subject: hello\r\nSubject: world\r\n\r\nx\r\n",
    b"SUBJECT: hello\r\nFrom: x@y\r\nsubject: zzz\r\n\r\n",
    b"X: " + b"y" * 20_000 + b"\r\nSubject: hello\r\n\r\nx\r\n",
)


@pytest.mark.parametrize("octets", [*ONE_SUBJECT, *OTHERS])
def test_what_is_kept_tells_the_same_as_the_message(octets: bytes) -> None:
    root = parse_structure(octets)
    mailbox = Keeping(octets)
    for _ in range(2):  # the first may make what the second finds
        for text in TEXTS:
            for name in ("subject", "from"):
                want = header_has(octets, root, name, text)
                assert mailbox.fulfils(HeaderHas(name, text)) is want, (name, text)
            for name in ("from", "to", "cc", "bcc"):
                want = addresses_have(octets, root, name, text)
                assert mailbox.fulfils(AddressHas(name, text)) is want, (name, text)


@pytest.mark.parametrize("octets", ONE_SUBJECT)
def test_what_is_kept_is_enough(octets: bytes) -> None:
    mailbox = Keeping(octets)
    keys: list[SearchKey] = [HeaderHas("subject", text) for text in TEXTS]
    keys += [AddressHas(name, "x") for name in ("from", "to", "cc", "bcc")]
    keys.append(DateIs(DateOf.SENT, Relation.SINCE, date(2030, 1, 1)))
    mailbox.fulfils(keys[0])
    assert mailbox.read == 1
    for key in keys:
        mailbox.fulfils(key)
    assert mailbox.read == 1
    assert mailbox.asked == 0, "one message was asked for alone: the store tells of many at once"
    mailbox.fulfils(HeaderHas("x-other", "x"))
    assert mailbox.read == 2


def test_a_large_message_is_not_parsed_for_its_subject() -> None:
    mailbox = Keeping(b"Subject: hello\r\n\r\n" + b"x" * 20_000)
    for _ in range(2):
        assert mailbox.fulfils(HeaderHas("subject", "hello"))
    assert mailbox.read == 2
    assert mailbox.fulfils(AddressHas("from", "x")) is False  # which parses it
    assert mailbox.fulfils(HeaderHas("subject", "hello"))
    assert mailbox.read == 3


class Many(Keeping):
    """Notes how often its reader had rested before it was asked."""

    def __init__(self, turn: Turn) -> None:
        super().__init__(b"Subject: hello\r\n\r\nx\r\n")
        self._turn = turn
        self.rests: list[int] = []

    async def summaries(self, uids: list[Uid]) -> dict[Uid, bytes]:
        self.rests.append(self._turn.rests)
        return await super().summaries(uids)


def test_what_is_asked_of_the_store_is_chosen_in_fair_turns() -> None:
    """The criteria may be thousands, and each message is judged by them all."""
    ticks = itertools.count()
    turn = Turn(clock=lambda: next(ticks) / 1000)  # each look takes a millisecond
    mailbox = Many(turn)
    view = View(cast("Mailbox", mailbox), True)
    view.uids.extend(range(1, 51))
    messages = [replace(mailbox.message, uid=Uid(uid)) for uid in view.uids]
    judge = Judge(view, HeaderHas("subject", "hello"), SCENE, turn)
    assert len(asyncio.run(judge.chosen(messages))) == 50
    assert mailbox.rests[0] >= 5
