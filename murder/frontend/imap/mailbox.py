"""CREATE, DELETE, RENAME, SETACL, DELETEACL: at the backend where the mailbox is or shall be; then our list catches up.

The tagged OK is passed on only when this host's list has the change: the client's next command sees it (read your
writes). Placement is policy: the parent's backend, else what the hook chooses.
"""

from murder.api.placement import BackendLoad, NewMailbox
from murder.errors import Code, Refusal, UpstreamFailure
from murder.frontend.imap.dialogue import FrontendImap
from murder.login.imap import Running
from murder.model.entry import Location, MailboxEntry, parse_location
from murder.model.name import MailboxName, ancestors_of, is_below, owner_of
from murder.net.relay import Reply
from murder.session.imap_client import non_synchronising
from murder.wire.imap.command import Command
from murder.wire.imap.mailbox import parse_create, parse_mailbox, parse_rename
from murder.wire.token import Scanner, client_astring


async def change_at(dialogue: FrontendImap, server: str, octets: bytes, command: Command) -> Reply:
    """Send a change, without tag, as an own command; pass its tagged line on behind the catching-up."""
    upstream = await dialogue.upstream(server)
    kept: list[bytes] = []
    reply = await upstream.ask(octets, untagged=kept.append)
    if reply.is_ok:
        await dialogue.catch_up()
    selected = dialogue.selected
    if selected is not None and selected.upstream is upstream:
        dialogue.send(b"".join(line for line in kept if not line.startswith(b"* BYE")))
    dialogue.send(command.tag + b" " + reply.octets.partition(b" ")[2])
    return reply


def body_of(command: Command) -> bytes:
    """A command without its tag and line end, its literals not synchronising."""
    octets = non_synchronising(command.octets)
    return octets[len(command.tag) + 1 :].removesuffix(b"\n").removesuffix(b"\r")


def run_create(dialogue: FrontendImap, command: Command) -> Running:
    return _create(dialogue, command)


async def _create(dialogue: FrontendImap, command: Command) -> None:
    request = parse_create(Scanner(command.octets, command.start))
    name = dialogue.name_of(request.mailbox)
    given = request.partition
    if given is not None and not dialogue.user.is_admin:
        raise Refusal(Code.NO_PERMISSION, "Only administrators name a server or partition")
    if given is not None and (
        b"!" in given or given.decode("utf-8", "replace") in _servers(dialogue)
    ):
        wanted = parse_location(given)
        octets = b"CREATE " + client_astring(request.mailbox)
        if wanted.partition:
            octets += b" " + client_astring(wanted.partition.encode())
        await change_at(dialogue, wanted.server, octets, command)
        return
    known = dialogue.frontend.locator.known(name)
    server = known.server if known else await _choose(dialogue, name)
    await change_at(dialogue, server, body_of(command), command)


def _servers(dialogue: FrontendImap) -> set[str]:
    frontend = dialogue.frontend
    return {*frontend.mailboxes.count_by_server(), *frontend.whole_config.servers}


async def _choose(dialogue: FrontendImap, name: MailboxName) -> str:
    """The backend for a new mailbox. Raises Refusal."""
    parent = await _parent(dialogue, name)
    if parent is not None:
        return parent.server
    login = dialogue.user
    if not login.is_admin and owner_of(name) != login.user:
        raise Refusal(Code.NO_PERMISSION, "You may not create a mailbox there")
    frontend = dialogue.frontend
    counts = frontend.mailboxes.count_by_server()
    partition = frontend.whole_config.backend.partition
    candidates = [
        BackendLoad(
            Location(server, partition),
            counts.get(server, 0),
            weight=frontend.whole_config.server(server).weight,
        )
        for server in sorted(_servers(dialogue))
    ]
    new = NewMailbox(name, owner_of(name), login.user, None)
    chosen = frontend.plugins.choose_backend(new, [one for one in candidates if one.weight > 0])
    if chosen is None:
        raise Refusal(
            Code.CANNOT,
            "No backend takes new mailboxes: name one, as CREATE mailbox server!partition",
        )
    return chosen.server


async def _parent(dialogue: FrontendImap, name: MailboxName) -> MailboxEntry | None:
    """The nearest mailbox above, by the master's present if ours knows none."""
    locator = dialogue.frontend.locator
    above = ancestors_of(name)
    for attempt in (1, 2):
        for one in above:
            entry = locator.known(one)
            if entry is not None:
                return entry
        if attempt == 1 and above:
            await locator.catch_up()
    return None


def run_delete(dialogue: FrontendImap, command: Command) -> Running:
    return _delete(dialogue, command, parse_mailbox(Scanner(command.octets, command.start)))


async def _delete(dialogue: FrontendImap, command: Command, external: bytes) -> None:
    entry = await dialogue.find(dialogue.name_of(external))
    reply = await change_at(dialogue, entry.server, body_of(command), command)
    selected = dialogue.selected
    if reply.is_ok and selected is not None and selected.name == entry.name:
        dialogue.deselect()


def run_rename(dialogue: FrontendImap, command: Command) -> Running:
    return _rename(dialogue, command)


async def _rename(dialogue: FrontendImap, command: Command) -> None:
    request = parse_rename(Scanner(command.octets, command.start))
    old, new = dialogue.name_of(request.old), dialogue.name_of(request.new)
    entry = await dialogue.find(old)
    home = entry if is_below(new, old) else await _parent(dialogue, new)
    if home is not None and home.server != entry.server:
        raise Refusal(
            Code.CANNOT,
            f"{home.server} has the mailbox above, {entry.server} this one: a RENAME cannot move mail "
            "to another server",
        )
    await change_at(dialogue, entry.server, body_of(command), command)


def run_change_acl(dialogue: FrontendImap, command: Command) -> Running:
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    return _change_acl(dialogue, command, scanner.astring())


async def _change_acl(dialogue: FrontendImap, command: Command, external: bytes) -> None:
    entry = await dialogue.find(dialogue.name_of(external))
    await change_at(dialogue, entry.server, body_of(command), command)


def unavailable(failure: UpstreamFailure) -> Refusal:
    """A failure as a refusal, for who must go on."""
    return Refusal(Code.UNAVAILABLE, str(failure))
