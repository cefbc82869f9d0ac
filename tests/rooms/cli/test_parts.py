"""What commands fetch of the mailbox list: the part that they speak of, and where the master tells no part, all of it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.admin.operate.backends import all_backends, find_backend
from murder.admin.operate.moves import chosen, plan
from murder.admin.operate.parts import (
    beginning_of,
    held,
    rows_at,
    rows_meant,
    rows_resting,
    rows_within,
)
from murder.errors import Code, Refusal
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName, Namespace, deleted_name

HIERARCHIES = [
    Namespace(),
    Namespace(unix_hierarchy=False),
    Namespace(alternative=True),
    Namespace(domains=True),
    Namespace(domains=True, alternative=True, unix_hierarchy=False),
]
NAMES = [
    *(b"user.ana", b"user.ana.Sent", b"user.anab", b"user.bert.x^y", b"shared", b"shared.a.b"),
    *(b"INBOXES", b"e.org!user.ana", b"e.org!user.ana.Sent", b"e.org!shared.a", b"f.org!user.ana"),
]


def row(name: bytes, server: str = "be1", acl: bytes = b"ana\tlr\t") -> MailboxEntry:
    return MailboxEntry(MailboxName(name), EntryState.ACTIVE, f"{server}!p".encode(), acl)


class Telling:
    """A master that tells parts, or (a Cyrus) does not; `asked` has what it was asked for."""

    def __init__(
        self, rows: list[MailboxEntry], *, parts: bool = True, namespace: Namespace = HIERARCHIES[0]
    ) -> None:
        self.master = self
        self.namespace = namespace
        self.config = SimpleNamespace(
            servers={}, namespace=SimpleNamespace(domains=namespace.domains), file="murder.toml"
        )
        self.asked: list[object] = []
        self._rows, self._parts = rows, parts

    def _part(self, asked: object, rows: list[MailboxEntry]) -> list[MailboxEntry] | None:
        self.asked += [asked] if self._parts else []
        return rows if self._parts else None

    async def prefixed(self, prefix: bytes) -> list[MailboxEntry] | None:
        return self._part(prefix, [row for row in self._rows if row.name.startswith(prefix)])

    async def below(self, name: bytes) -> list[MailboxEntry] | None:
        return self._part(
            name, [row for row in self._rows if (row.name + b".").startswith(name + b".")]
        )

    async def servers(self) -> dict[str, int] | None:
        counts = {row.server: 0 for row in self._rows}
        for each in self._rows:
            counts[each.server] += 1
        return None if self._part("servers", []) is None else counts

    async def list_server(self, server: str) -> list[MailboxEntry]:
        self.asked.append(server)
        return [row for row in self._rows if row.location.partition and row.server == server]

    async def find(self, name: bytes) -> MailboxEntry | None:
        return next((row for row in self._rows if row.name == name), None)

    async def rows(self) -> list[MailboxEntry]:
        self.asked.append("all")
        return self._rows

    async def heads(self) -> list[MailboxEntry]:
        return await self.rows()

    def name(self, external: str) -> MailboxName:
        return self.namespace.internal(external.encode(), "")

    def external(self, name: MailboxName) -> bytes:
        return self.namespace.external(name, "")


def reached(*names: bytes, **more: Any) -> Any:
    return cast(Any, Telling([row(name) for name in names], **more))


PIECES = st.sampled_from(
    "user a an ana / . * % @ e.org shared INBOX Sent ^ user/an user.an Other|Users Shared|Folders".split()
)


@pytest.mark.parametrize("namespace", HIERARCHIES)
@given(pieces=st.lists(PIECES, min_size=1, max_size=6))
def test_whatever_fits_a_pattern_begins_as_is_said(namespace: Namespace, pieces: list[str]) -> None:
    pattern = "".join(pieces).replace("|", " ")
    names = [name for name in NAMES if namespace.domains or b"!" not in name]
    reach = reached(*names, namespace=namespace)
    prefix = beginning_of(reach, pattern)
    if "*" not in pattern and "%" not in pattern:
        return
    try:
        entries = chosen(reach, reach._rows, pattern)
    except Refusal as refusal:
        assert refusal.code is Code.NONEXISTENT
        return
    assert all(entry.name.startswith(prefix) for entry in entries)


@pytest.mark.parametrize(
    ("pattern", "namespace", "prefix"),
    [
        ("user/an*", HIERARCHIES[0], b"user.an"),
        ("user.an%", HIERARCHIES[1], b"user.an"),
        ("Other Users/an*", HIERARCHIES[2], b"user.an"),
        ("user/an*@e.org", HIERARCHIES[3], b"e.org!user.an"),
        ("user/an*", HIERARCHIES[3], b""),
        ("user/an*@e.*", HIERARCHIES[3], b""),
        ("*/Sent", HIERARCHIES[0], b""),
        ("INBOX*", HIERARCHIES[0], b""),
    ],
)
def test_the_beginning_of_a_pattern(pattern: str, namespace: Namespace, prefix: bytes) -> None:
    assert beginning_of(reached(namespace=namespace), pattern) == prefix


@pytest.mark.parametrize("acls", [False, True])
async def test_of_the_list_what_is_meant_is_fetched(acls: bool) -> None:
    gone = deleted_name(MailboxName(b"user.ana"), 1)
    names = (*NAMES[:6], gone, deleted_name(MailboxName(b"shared"), 2))
    for what, meant in (
        ("ana", [b"user.ana", b"user.ana.Sent"]),
        ("user/ana", [b"user.ana", b"user.ana.Sent"]),
        ("user/an*", [b"user.ana", b"user.ana.Sent", b"user.anab"]),
    ):
        reach = reached(*names)
        rows = await rows_meant(reach, what, acls=acls)
        assert [row.name for row in rows] == meant and "all" not in reach.asked
        old = reached(*names, parts=False)
        everything = await rows_meant(old, what, acls=acls)
        assert chosen(old, everything, what) == chosen(reach, rows, what)
        assert old.asked == ["all"]  # once, though a word may be a user or a mailbox
    reach = reached(*names)
    assert len(await rows_resting(reach)) == 2 and reach.asked == [b"DELETED."]
    two = await rows_within(reach, MailboxName(b"user.ana"), MailboxName(b"shared"))
    assert [row.name for row in two] == [b"user.ana", b"user.ana.Sent", b"shared", b"shared.a.b"]


async def test_all_backends_are_known_without_their_mailboxes() -> None:
    rows = [row(b"a", "be1"), row(b"b", "be2.e.org"), row(b"c", "be1")]
    for parts, asked in ((True, "servers"), (False, "all")):
        reach = cast(Any, Telling(rows, parts=parts))
        assert await held(reach) == {"be1": 2, "be2.e.org": 1}
        reach.config.servers = {"be3": None}
        assert await all_backends(reach) == ["be1", "be2.e.org", "be3"]
        assert await find_backend(reach, "be2") == "be2.e.org"
        with pytest.raises(Refusal, match=r"known are be1, be2\.e\.org, be3"):
            await find_backend(reach, "be4")
        assert set(reach.asked) == {asked}


async def test_of_a_cyrus_master_no_mailbox_without_a_partition_is_missing() -> None:
    rows = [row(b"a", "old"), row(b"b", "be1")]
    rows[0] = MailboxEntry(rows[0].name, EntryState.ACTIVE, b"old", b"")
    reach = cast(Any, Telling(rows, parts=False))
    assert await rows_at(reach, "old") == rows[:1]
    reach = cast(Any, Telling(rows))
    assert await rows_at(reach, "be1") == rows[1:] and "all" not in reach.asked


def test_a_plan_counts_at_each_server_what_moves_along() -> None:
    rows = [
        *(row(b"user.a", "be1"), row(b"user.a.b", "be2"), row(b"user.a.b.c", "be1")),
        *(row(b"user.a.b.d", "be2"), row(b"user.ab", "be1"), row(b"user.c", "be3")),
    ]
    planned = plan(rows, "be3", "", rows)
    assert [(each.root, each.source, each.mailboxes) for each in planned] == [
        (b"user.a", "be1", 2),
        (b"user.a.b", "be2", 2),
        (b"user.ab", "be1", 1),
    ]
    (alone,) = plan(rows[:1], "be3", "", rows)
    assert alone.mailboxes == 2
