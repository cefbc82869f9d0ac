"""What a restore brings back, and where: decided from the point, the master's list and what the backends have.

Three ways. *Back*: mailboxes that are nowhere, or that the master names at a backend that has lost them, under their own
names. *Beside*: into a folder, whatever is there now. *Instead*: what is there now is set aside into one folder, the
messages of the point come into the mailboxes that are there, with UIDs above all that they had; mail goes on arriving.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from murder.admin.operate.backup.kept import (
    Entry,
    Point,
    Unit,
    moment,
    read_mailbox,
    read_point,
    read_unit,
    time_of,
)
from murder.admin.operate.backup.link import READ, Links
from murder.admin.operate.backup.put import Coming, Tree
from murder.admin.operate.backup.take import root_of
from murder.admin.operate.backup.vault import Vault
from murder.admin.operate.lists import names_at
from murder.admin.operate.parts import rows_deleted, rows_within
from murder.admin.operate.reach import Reach, data_of
from murder.errors import Code, Refusal
from murder.model.entry import MailboxEntry
from murder.model.name import (
    MailboxName,
    before_deletion,
    collation_key,
    inbox_of,
    is_below,
    is_deleted,
    is_inbox,
    moved,
)
from murder.model.query.status import StatusItem
from murder.wire.imap.mailboxes.status import parse_counts
from murder.wire.nodes.carry import format_name
from murder.wire.token import string


@dataclass(slots=True)
class Planned:
    """What a restore does. `left`: mailboxes of the point that do not come back, and why; `made_since`: such as come back
    empty. `replaced`: mailboxes whose messages are exchanged, and where their copies wait."""

    point: str
    trees: list[Tree] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    made_since: list[str] = field(default_factory=list)
    replaced: list[tuple[MailboxName, MailboxName]] = field(default_factory=list)
    aside: MailboxName | None = None


def points_of(vault: Vault, root: MailboxName | None) -> list[Point]:
    """The points that have this unit, or all; the oldest first."""
    points = [read_point(vault, name) for name in vault.points()]
    return [point for point in points if root is None or root in point.units]


def point_at(vault: Vault, at: str, has: "Collection[MailboxName] | None", what: str) -> Point:
    """The last point before that time ("": the last of all) that has one of these. Raises Refusal."""
    until = moment(at) if at else None
    for name in reversed(vault.points()):
        if until is not None and time_of(name) >= until:
            continue
        point = read_point(vault, name)
        if has is None or any(root in point.units for root in has):
            return point
    when = f" before {at}" if at else ""
    raise Refusal(Code.NONEXISTENT, f"{vault.folder} has no point{when} with {what}")


class Planning:
    """See the module. Raises Refusal, UpstreamFailure."""

    def __init__(self, reach: Reach, vault: Vault, point: Point) -> None:
        self._reach = reach
        self._vault = vault
        self._point = point

    def _kept(self, name: MailboxName) -> tuple[dict[MailboxName, Entry], list[Unit]]:
        """The mailboxes of the point at and below a name."""
        units = []
        for root, digest in self._point.units.items():
            if root == root_of(name) or is_below(root, name):
                units.append(read_unit(self._vault, digest))
        kept = {
            mailbox.name: mailbox
            for unit in units
            for mailbox in unit.mailboxes
            if is_below(mailbox.name, name)
        }
        if not kept:
            name_shown = self._reach.shown(name)
            raise Refusal(Code.NONEXISTENT, f"{name_shown} is not in the point {self._point.name}")
        return kept, units

    async def beside(self, name: MailboxName, target: MailboxName) -> Planned:
        """A mailbox and those below it, as they were, under another name."""
        planned = Planned(self._point.name)
        kept, _ = self._kept(name)
        taken = await rows_within(self._reach, target)
        if taken:
            text = f"{self._reach.shown(taken[0].name)} is there already: name another folder with --into"
            raise Refusal(Code.ALREADY_EXISTS, text)
        place = None
        for near in dict.fromkeys((root_of(target), name, root_of(name))):
            place = place or await self._reach.master.find(near)
        if place is None:
            text = f"{self._reach.shown(root_of(target))} does not exist: restore it without --into"
            raise Refusal(Code.NONEXISTENT, text)
        tops = self._tops(kept)
        comings = []
        for old, mailbox in sorted(kept.items()):
            if b"#" in old[len(name) :]:
                planned.left[self._reach.shown(old)] = "scripts come back in their place only"
                continue
            new = moved(old, name, target)
            comings.append(Coming(new, place.raw_acl, mailbox, with_notes=False))
        if name not in kept:  # the name above them is no mailbox itself
            for top in tops:
                root = moved(top, name, target)
                below = [coming for coming in comings if is_below(coming.name, root)]
                planned.trees.append(self._tree(root, place.server, below))
        else:
            planned.trees.append(self._tree(target, place.server, comings))
        return planned

    @staticmethod
    def _tops(names: Collection[MailboxName]) -> list[MailboxName]:
        """Those that are below none of the others: in order, each stands behind what it is below."""
        tops: list[MailboxName] = []
        for name in sorted(names, key=collation_key):
            if not tops or not is_below(name, tops[-1]):
                tops.append(name)
        return tops

    def _tree(
        self, root: MailboxName, server: str, comings: Sequence[Coming], partition: str = ""
    ) -> Tree:
        return Tree(root, server, partition, comings)

    async def back(self, name: MailboxName, server: str = "") -> Planned:
        """What is nowhere, or lost where the master says it is, under its own name; `server` for what is nowhere. Raises
        Refusal where all of it is there."""
        planned = Planned(self._point.name)
        kept, units = self._kept(name)
        rows = {row.name: row for row in await rows_within(self._reach, name)}
        there: dict[str, set[MailboxName]] = {}
        wanted: dict[str, dict[MailboxName, Coming]] = {}
        for mailbox_name in sorted(kept.keys() | rows.keys()):
            row, mailbox = rows.get(mailbox_name), kept.get(mailbox_name)
            home = self._home(row, mailbox, rows, server)
            if row is not None:
                if home not in there:
                    there[home] = await names_at(self._reach, home)
                if mailbox_name in there[home]:
                    planned.left[self._reach.shown(mailbox_name)] = f"it is there, at {home}"
                    continue
            wanted.setdefault(home, {})[mailbox_name] = self._coming(
                mailbox_name, row, mailbox, planned
            )
        if not wanted:
            name_shown = self._reach.shown(name)
            text = (
                f"{name_shown} is there: --into FOLDER restores it beside, --instead in its place"
            )
            raise Refusal(Code.ALREADY_EXISTS, text)
        subscriptions = {unit.root: unit.subscriptions for unit in units}
        for home, comings in wanted.items():
            planned.trees += self._trees(home, comings, subscriptions)
        return planned

    def _home(
        self,
        row: MailboxEntry | None,
        mailbox: Entry | None,
        rows: Mapping[MailboxName, MailboxEntry],
        server: str,
    ) -> str:
        if row is not None:
            return row.server
        assert mailbox is not None
        inbox = rows.get(root_of(mailbox.name))
        if inbox is not None:
            return inbox.server
        return server or read_mailbox(self._vault, mailbox.digest).server

    def _coming(
        self,
        name: MailboxName,
        row: MailboxEntry | None,
        mailbox: Entry | None,
        planned: Planned,
    ) -> Coming:
        if mailbox is None:
            assert row is not None
            planned.made_since.append(self._reach.shown(name))
            return Coming(name, row.raw_acl, None)
        if row is not None:  # whoever has rights by now
            return Coming(name, row.raw_acl, mailbox)
        return Coming(name, read_mailbox(self._vault, mailbox.digest).raw_acl, mailbox)

    def _trees(
        self,
        server: str,
        comings: Mapping[MailboxName, Coming],
        subscriptions: Mapping[MailboxName, Sequence[MailboxName]],
    ) -> list[Tree]:
        """What is missing, by its topmost mailboxes."""
        trees = []
        for top in self._tops(comings):
            below = [comings[coming] for coming in sorted(comings) if is_below(coming, top)]
            subscribed = subscriptions.get(top, ()) if is_inbox(top) else ()
            trees.append(Tree(top, server, "", below, subscribed))
        return trees

    async def backend(self, server: str) -> Planned:
        """All that the master names at a backend and that it has lost."""
        planned = Planned(self._point.name)
        there = await names_at(self._reach, server)
        units: dict[MailboxName, dict[MailboxName, MailboxEntry]] = {}
        rows = {row.name: row for row in await self._reach.rows()}
        links = Links(self._reach, READ)
        for row in rows.values():
            if row.server == server and row.is_active and row.name not in there:
                if is_deleted(row.name) and await _is_there(links, row):
                    continue
                units.setdefault(root_of(row.name), {})[row.name] = row
        links.close()
        for root, missing in units.items():
            kept, subscriptions = self._unit(root)
            comings = {
                name: self._coming(name, row, kept.get(name), planned)
                for name, row in sorted(missing.items())
            }
            planned.trees += self._trees(server, comings, {root: subscriptions})
            for name in kept.keys() - rows.keys():
                planned.left[self._reach.shown(name)] = "the master has it no more"
        for root in self._point.units.keys() - {root_of(name) for name in rows}:
            planned.left[self._reach.shown(root)] = "the master has it no more"
        return planned

    def _unit(self, root: MailboxName) -> tuple[dict[MailboxName, Entry], Sequence[MailboxName]]:
        digest = self._point.units.get(root)
        if digest is None:
            return {}, ()
        unit = read_unit(self._vault, digest)
        return {mailbox.name: mailbox for mailbox in unit.mailboxes}, unit.subscriptions

    async def instead(self, user: str) -> Planned:
        """All mailboxes of a user as they were. Those that are gone come back; of the others the messages are exchanged."""
        inbox = inbox_of(user)
        kept, units = self._kept(inbox)
        planned = Planned(self._point.name)
        rows = {row.name: row for row in await rows_within(self._reach, inbox)}
        row = rows.get(inbox)
        if row is None:
            return await self.back(inbox)
        stage = root_of_copies(inbox, self._point.name)
        planned.aside = MailboxName(b"%s.Replaced-%s" % (inbox, self._point.name.encode()))
        there = await names_at(self._reach, row.server)
        staged: list[Coming] = []
        missing: dict[MailboxName, Coming] = {}
        for name, mailbox in sorted(kept.items()):
            present = rows.get(name)
            if present is None or (present.server == row.server and name not in there):
                missing[name] = self._coming(name, present, mailbox, planned)
            elif b"#" in name[len(inbox) :]:
                planned.left[self._reach.shown(name)] = "scripts stay as they are now"
            elif present.server != row.server:
                planned.left[self._reach.shown(name)] = f"it is at {present.server}"
            else:
                copy = moved(name, inbox, stage)
                staged.append(Coming(copy, row.raw_acl, mailbox, with_notes=False))
                planned.replaced.append((name, copy))
        for name in sorted(rows.keys() - kept.keys()):
            if not is_below(name, stage) and not is_below(name, planned.aside):
                planned.left[self._reach.shown(name)] = "it is not in the point, and stays"
        subscriptions = {unit.root: unit.subscriptions for unit in units}
        if staged and stage not in rows:
            planned.trees.append(Tree(stage, row.server, "", staged, subscriptions.get(inbox, ())))
        planned.trees += self._trees(row.server, missing, subscriptions)
        return planned


async def _is_there(links: Links, row: MailboxEntry) -> bool:
    """Of what no LIST tells."""
    try:
        await (await links.to(row.server)).count(row.name)
    except Refusal as refusal:
        if refusal.code is not Code.NONEXISTENT:
            raise
        return False
    return True


def root_of_copies(inbox: MailboxName, point: str) -> MailboxName:
    """Where messages wait that are to come in the place of others."""
    return MailboxName(b"%s.Restored-%s" % (inbox, point.encode()))


class Exchange:
    """The second half of `instead`: what is there is set aside, what waits takes its place. What has been set aside is
    written down, and moving the rest can be done twice: the same call goes on after a crash."""

    def __init__(self, reach: Reach, vault: Vault, user: str, planned: Planned) -> None:
        self._reach = reach
        self._vault = vault
        self._user = user
        self._planned = planned
        name = hashlib.sha256(f"{planned.point} {user}".encode()).hexdigest()[:32]
        self._path = vault.folder / "restores" / f"{name}.aside"
        self._server = ""

    async def run(self) -> int:
        """How many messages have come into their places. Raises Refusal, UpstreamFailure."""
        inbox, planned = inbox_of(self._user), self._planned
        assert planned.aside is not None
        self._server = (await self._reach.find(inbox)).server
        done = set(self._path.read_text().split("\n")) if self._path.exists() else set()
        count = 0
        for name, copy in planned.replaced:
            if await self._reach.master.find(copy) is None:
                continue  # done already
            if format_name(name) not in done:
                await self._set_aside(name, moved(name, inbox, planned.aside))
                done.add(format_name(name))
                self._vault.replace(self._path, "\n".join(sorted(done)).encode())
            count += await self._move_all(copy, name)
        for _, copy in sorted(planned.replaced, key=lambda pair: -len(pair[1])):
            if await self._reach.master.find(copy) is not None:
                await self._ask(b"DELETE " + self._shown(copy))
        self._path.unlink(missing_ok=True)
        if planned.replaced:
            await self._clear_away(root_of_copies(inbox, planned.point))
        return count

    async def _clear_away(self, stage: MailboxName) -> None:
        """Deletion is delayed: copies that are empty by now would stand among what people have deleted themselves."""
        links = Links(self._reach, READ)
        try:
            for row in await rows_deleted(self._reach, stage):
                before = before_deletion(row.name)
                if before is None or not is_below(before[0], stage):
                    continue  # a master that tells no part (Cyrus) tells all
                if not (await (await links.to(row.server)).count(row.name)).messages:
                    command = b"DELETE " + string(self._reach.external(row.name))
                    await self._reach.execute(row.server, command)
        except Refusal as refusal:
            if refusal.code is not Code.NONEXISTENT:
                raise
        finally:
            links.close()

    def _shown(self, name: MailboxName) -> bytes:
        return string(self._reach.namespace.external(name, self._user))

    async def _ask(self, command: bytes) -> None:
        """Whatever it says beside, of however many messages."""
        await self._reach.execute(self._server, command, user=self._user, untagged=lambda _: None)

    async def _set_aside(self, name: MailboxName, aside: MailboxName) -> None:
        if not await self._count(name):
            return
        try:
            await self._ask(b"CREATE " + self._shown(aside))
        except Refusal as refusal:
            if refusal.code is not Code.ALREADY_EXISTS:
                raise
        await self._move_all(name, aside)

    async def _count(self, name: MailboxName) -> int:
        command = b"STATUS %s (MESSAGES)" % self._shown(name)
        reply = await self._reach.execute(self._server, command, user=self._user)
        counts = [parse_counts(answer) for answer in data_of(reply, b"STATUS")]
        return sum(count.get(StatusItem.MESSAGES, 0) for count in counts)

    async def _move_all(self, source: MailboxName, target: MailboxName) -> int:
        """How many have moved."""
        count = await self._count(source)
        if count:
            await self._ask(b"SELECT " + self._shown(source))
            await self._ask(b"UID MOVE 1:* " + self._shown(target))
            await self._ask(b"UNSELECT")
        return count
