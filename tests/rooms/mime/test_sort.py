"""Base subjects, SORT and THREAD (RFC 5256)."""

import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.mime.envelope import parse_envelope
from murder.mime.sort import Sortable, keyed, needs_envelope, put_in_order
from murder.mime.subject import base_subject
from murder.mime.thread import message_ids, threadable
from murder.model.message import Message, ModSeq, Uid
from murder.model.query.search import SortKey, SortOrder
from murder.model.query.thread import Thread, Threadable, by_ordered_subject, by_references
from murder.wire.imap.mail.thread import format_thread

SUBJECTS = [
    (b"hello", "hello", False),
    (b"Re: hello", "hello", True),
    (b"RE : hello", "hello", True),
    (b"Fwd: hello", "hello", True),
    (b"fw: re: hello", "hello", True),
    (b"re[2]: hello", "hello", True),
    (b"[list] hello", "hello", False),
    (b"[list] re: hello", "hello", True),
    (b"re: [list] [more] fwd: hello", "hello", True),
    (b"[only]", "[only]", False),
    (b"re: [only]", "[only]", True),
    (b"hello (fwd)", "hello", True),
    (b"hello (fwd) (FWD)  ", "hello", True),
    (b"[fwd: hello]", "hello", True),
    (b"[Fwd: re: hello (fwd)]", "hello", True),
    (b"re:", "", True),
    (b"reply: hello", "reply: hello", False),
    (b"  a \t  b ", "a b", False),
    (b"=?utf-8?q?Re=3A_Gr=C3=BC=C3=9Fe?=", "gru\u0308sse", True),
    (b"", "", False),
]


@pytest.mark.parametrize(("value", "text", "is_reply"), SUBJECTS)
def test_base_subjects(value: bytes, text: str, is_reply: bool) -> None:
    found = base_subject(value)
    assert (found.text, found.is_reply) == (text, is_reply)


@given(st.text("Re: []()fwd \t", max_size=60))
def test_a_base_subject_has_nothing_left_to_take_off(text: str) -> None:
    once = base_subject(text.encode())
    assert base_subject(once.text.encode()).text == once.text


@pytest.mark.parametrize("piece", [b"re: ", b"[a]", b"(fwd)", b"[fwd: ", b" ", b"re[", b"[a] re "])
def test_a_subject_of_prefixes_only_takes_no_time(piece: bytes) -> None:
    begin = time.process_time()
    base_subject(piece * 100_000)
    assert time.process_time() - begin < 1.0


DAY = datetime(2024, 1, 1, tzinfo=UTC)


def message(number: int, header: bytes = b"", size: int = 1, day: int = 0) -> Sortable:
    return Sortable(
        number,
        Message(Uid(number), frozenset(), DAY + timedelta(days=day), size, ModSeq(1)),
        parse_envelope(header, 0, len(header)),
    )


MAIL = [
    message(
        1,
        b"Subject: b\nFrom: =?utf-8?q?Z=C3=BC?= <a@x>\nDate: Wed, 03 Jan 2024 00:00:00 +0000\n\n",
        30,
        5,
    ),
    message(2, b"Subject: Re: A\nFrom: z@x\nDate: Wed, 03 Jan 2024 01:00:00 +0200\n\n", 10, 4),
    message(3, b"Subject: a\nFrom: M <m@x>\nTo: g: q@x;\n\n", 20, 3),
    message(4, b"", 20, 2),
]


@pytest.mark.parametrize(
    ("orders", "numbers"),
    [
        ([SortOrder(SortKey.SUBJECT)], [4, 2, 3, 1]),
        ([SortOrder(SortKey.SUBJECT, True)], [1, 2, 3, 4]),
        ([SortOrder(SortKey.SUBJECT), SortOrder(SortKey.SIZE, True)], [4, 3, 2, 1]),
        ([SortOrder(SortKey.SIZE)], [2, 3, 4, 1]),
        ([SortOrder(SortKey.ARRIVAL)], [4, 3, 2, 1]),
        ([SortOrder(SortKey.DATE)], [2, 1, 4, 3]),
        ([SortOrder(SortKey.FROM)], [4, 1, 3, 2]),
        ([SortOrder(SortKey.TO)], [1, 2, 4, 3]),
        ([SortOrder(SortKey.CC)], [1, 2, 3, 4]),
        ([SortOrder(SortKey.DISPLAYFROM)], [4, 3, 2, 1]),
        ([SortOrder(SortKey.DISPLAYTO)], [1, 2, 4, 3]),
    ],
)
def test_messages_are_put_in_order(orders: list[SortOrder], numbers: list[int]) -> None:
    assert put_in_order([keyed(mail, orders) for mail in MAIL], orders) == numbers


def test_some_keys_need_no_header() -> None:
    assert not needs_envelope([SortOrder(SortKey.ARRIVAL), SortOrder(SortKey.SIZE, True)])
    assert needs_envelope([SortOrder(SortKey.SIZE), SortOrder(SortKey.DATE)])


def mail(
    number: int,
    own: str = "",
    refs: str = "",
    subject: str = "",
    reply: bool = False,
    day: int | None = None,
) -> Threadable:
    sent = (DAY + timedelta(days=number if day is None else day)).timestamp()
    return Threadable(number, sent, subject, reply, own, tuple(refs.split()))


THREADS: list[tuple[list[Threadable], bytes]] = [
    ([], b"* THREAD\r\n"),
    ([mail(2)], b"* THREAD (2)\r\n"),
    # RFC 5256 §4: the example's shape
    (
        [
            mail(2, "x"),
            mail(3, "a"),
            mail(6, "b", "a"),
            mail(4, "c", "a b"),
            mail(23, "d", "a b c"),
            mail(44, "e", "a b"),
            mail(7, "f", "a b e", day=45),
            mail(96, "g", "f"),
        ],
        b"* THREAD (2)(3 6 (4 23)(44 7 96))\r\n",
    ),
    # the parent is missing: a place for it with two children, none with one
    ([mail(1, "b", "a"), mail(2, "c", "a")], b"* THREAD ((1)(2))\r\n"),
    ([mail(1, "b", "a"), mail(2, "c", "b")], b"* THREAD (1 2)\r\n"),
    # an answer that came before what it answers
    ([mail(1, "b", "a", day=9), mail(2, "a", day=1)], b"* THREAD (2 1)\r\n"),
    # messages that contradict each other: who comes first is right
    ([mail(1, "a"), mail(2, "b", "c a", day=0), mail(3, "c", "b")], b"* THREAD (3 1 2)\r\n"),
    ([mail(1, "b", "c a"), mail(2, "c", "b")], b"* THREAD (2 1)\r\n"),
    # a loop
    ([mail(1, "a", "b"), mail(2, "b", "a")], b"* THREAD (2 1)\r\n"),
    ([mail(1, "a", "a")], b"* THREAD (1)\r\n"),
    # one that names itself last belongs nowhere; a later one may say where
    ([mail(1, "a"), mail(2, "b", "a b")], b"* THREAD (1)(2)\r\n"),
    ([mail(1, "a"), mail(2, "b", "a b"), mail(3, "c", "a b")], b"* THREAD (1 2 3)\r\n"),
    # the same id twice
    ([mail(1, "a"), mail(2, "a"), mail(3, "b", "a")], b"* THREAD (1 3)(2)\r\n"),
    # by subject: a reply goes below, equals go side by side
    ([mail(1, "a", "", "s"), mail(2, "b", "", "s", True)], b"* THREAD (1 2)\r\n"),
    ([mail(1, "a", "", "s", True), mail(2, "b", "", "s")], b"* THREAD (2 1)\r\n"),
    (
        [mail(1, "a", "", "s"), mail(2, "b", "", "s"), mail(3, "c", "", "s")],
        b"* THREAD ((1)(2)(3))\r\n",
    ),
    (
        [
            mail(1, "b", "a", "s"),
            mail(2, "c", "a", "s"),
            mail(3, "d", "", "s"),
            mail(4, "e", "z", "s"),
            mail(5, "f", "z", "s"),
        ],
        b"* THREAD ((1)(2)(3)(4)(5))\r\n",
    ),
]


@pytest.mark.parametrize(("messages", "line"), THREADS)
def test_threads_by_references(messages: list[Threadable], line: bytes) -> None:
    assert format_thread(by_references(messages)) == line


def test_threads_by_ordered_subject() -> None:
    messages = [
        mail(1, subject="b"),
        mail(2, subject="a", day=0),
        mail(3, subject="b"),
        mail(4, subject="a"),
        mail(5, subject="a"),
    ]
    assert format_thread(by_ordered_subject(messages)) == b"* THREAD (2 (4)(5))(1 3)\r\n"


IDS = st.sampled_from("abcdefgh")


@given(
    st.lists(
        st.tuples(
            IDS,
            st.lists(IDS, max_size=4),
            st.sampled_from(["", "s", "t"]),
            st.booleans(),
            st.integers(0, 5),
        ),
        max_size=12,
    )
)
def test_every_message_is_in_one_thread_once(
    rows: list[tuple[str, list[str], str, bool, int]],
) -> None:
    messages = [
        mail(number, own, " ".join(refs), subject, reply, day)
        for number, (own, refs, subject, reply, day) in enumerate(rows, start=1)
    ]
    for threads in (by_references(messages), by_ordered_subject(messages)):
        line = format_thread(threads).decode()
        assert sorted(map(int, re.findall(r"\d+", line))) == list(range(1, len(rows) + 1))
        assert line.count("(") == line.count(")")
        assert "()" not in line


def test_a_thread_as_deep_as_the_mailbox_is_no_trouble() -> None:
    messages = [mail(n, f"m{n}", f"m{n - 1}" if n > 1 else "", day=n) for n in range(1, 20_001)]
    begin = time.process_time()
    line = format_thread(by_references(messages))
    assert line == b"* THREAD (" + b" ".join(b"%d" % n for n in range(1, 20_001)) + b")\r\n"
    assert time.process_time() - begin < 5.0
    assert isinstance(by_references(messages[::-1])[0], Thread)


def test_references_come_from_the_header() -> None:
    assert message_ids(b'<a@b> junk <"c"@d>\t<e@f>') == ("a@b", "c@d", "e@f")
    header = b"Message-ID: <x@y>\nIn-Reply-To: <a@b> from <c@d>\nSubject: Re: s\n\n"
    one = message(1, header)
    found = threadable(1, one.message, one.envelope)
    assert (found.message_id, found.references, found.subject) == ("x@y", ("a@b",), "s")
    assert found.is_reply
