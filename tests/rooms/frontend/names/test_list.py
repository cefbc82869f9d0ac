"""LIST and its kin, octet for octet: a frontend before two backends against one backend that holds everything."""

import asyncio
import itertools
from pathlib import Path

import pytest

from murder.config.sections import NamespaceConfig
from murder.model.name import Namespace
from tests.rooms.frontend.cluster import Cluster, running_cluster

NAMESPACES = {
    "default": NamespaceConfig(),
    "alternative": NamespaceConfig(alternative=True),
    "dots": NamespaceConfig(unix_hierarchy=False),
    "dots-alternative": NamespaceConfig(unix_hierarchy=False, alternative=True),
}
# canonical name, whether it is on the second backend, further rights
MAILBOXES: list[tuple[bytes, bool, dict[str, str]]] = [
    (b"user.ana.Archive.2023.old", True, {}),
    (b"user.ana.Archive", False, {}),
    (b"user.ana.Drafts", True, {}),
    (b"user.ana.Entw&APw-rfe", False, {}),
    (b"user.ana.a b", True, {"bob": "lr"}),
    (b"user.ana.Sent", False, {}),
    (b"user.bob.for ana", True, {"ana": "lrswi"}),
    (b"user.bob.for ana.below", False, {"ana": "lr"}),
    (b"user.bob.seen only", True, {"ana": "l"}),
    (b"user.bob.secret", True, {}),
    (b"shared", False, {"anyone": "lrs"}),
    (b"shared.news", True, {"anyone": "lrs"}),
    (b"shared.news.today", False, {"anyone": "lrs"}),
    (b"shared.closed", True, {"anyone": "", "staff": "lr"}),
    (b"other.deep.down", True, {"anyone": "lr"}),
]
SUBSCRIBED = [
    b"user.ana",
    b"user.ana.Drafts",
    b"shared.news",
    b"user.ana.gone.away",
    b"user.bob.for ana",
]
REFERENCES = [
    "",
    "INBOX",
    "INBOX/",
    "user",
    "user/",
    "user/b",
    "Other Users/",
    "Shared Folders/",
    "shared/",
    "INBOX/Archive",
]
PATTERNS = [
    *(
        "*",
        "%",
        "%/%",
        "I%",
        "INBOX",
        "inbox",
        "INBOX/%",
        "INBOX*",
        "user/%",
        "user/%/%",
        "user/*",
        "shared*",
        "%a%",
    ),
    *(
        "Other Users/%",
        "Other Users",
        "Shared Folders/*",
        "Shared Folders",
        "Archive/%",
        "*old",
        "nothing",
        "other/%",
        "",
    ),
]
SELECTIONS = [
    *(
        "",
        "()",
        "(SUBSCRIBED)",
        "(REMOTE)",
        "(SUBSCRIBED RECURSIVEMATCH)",
        "(SUBSCRIBED REMOTE)",
        "(SPECIAL-USE)",
    ),
    *("(SPECIAL-USE SUBSCRIBED)", "(SPECIAL-USE RECURSIVEMATCH)", "(RECURSIVEMATCH)", "(NONSENSE)"),
]
RETURNS = [
    *(
        "",
        "RETURN ()",
        "RETURN (CHILDREN)",
        "RETURN (SUBSCRIBED)",
        "RETURN (SPECIAL-USE)",
        "RETURN (MYRIGHTS)",
    ),
    "RETURN (STATUS (MESSAGES UIDNEXT UNSEEN SIZE))",
    "RETURN (SUBSCRIBED STATUS (MESSAGES) MYRIGHTS SPECIAL-USE CHILDREN METADATA (/shared/comment /private/comment))",
    "RETURN (NONSENSE)",
]
FEW = ["*", "%", "(INBOX/% user/*)", "(* %)", "shared/%", "(Drafts Other* Shared*)"]


def commands(separator: str) -> list[str]:
    """Everything once, and the extended ones with each other."""
    found = [
        f'{word} "{reference}" "{pattern}"'
        for word in ("LIST", "LSUB")
        for reference, pattern in itertools.product(REFERENCES, PATTERNS)
    ]
    found += [
        f'LIST {selection} "" {pattern} {returns}'.replace("  ", " ").rstrip()
        for selection, pattern, returns in itertools.product(SELECTIONS, FEW, RETURNS)
    ]
    return [command.replace("/", separator) if separator != "/" else command for command in found]


class Peer:
    """A logged in connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, command: str) -> bytes:
        self._writer.write(f"t {command}\r\n".encode())
        answer = b""
        while True:
            line = await self._reader.readline()
            answer += line
            if line.startswith(b"t ") or not line:
                return answer

    async def ok(self, command: str) -> None:
        answer = await self.ask(command)
        assert answer.splitlines()[-1].startswith(b"t OK"), (command, answer)


async def logged_in(address: tuple[str, int], user: str) -> Peer:
    peer = Peer(*await asyncio.open_connection(*address))
    await peer.ok(f"LOGIN {user} secret")
    return peer


async def fill(address: tuple[str, int], namespace: Namespace, second: str) -> None:
    """The mailboxes, at the second backend where there is one."""

    def shown(name: bytes, user: str) -> str:
        return namespace.external(name, user).decode()  # type: ignore[arg-type] # canonical names

    admin = await logged_in(address, "admin")
    ana, bob = await logged_in(address, "ana"), await logged_in(address, "bob")
    for name, elsewhere, rights in MAILBOXES:
        external = shown(name, "admin")
        await admin.ok(
            f'CREATE "{external}"' + (f" {second}!default" if second and elsewhere else "")
        )
        for identifier, given in rights.items():
            await admin.ok(f'SETACL "{external}" {identifier} "{given}"')
        if name.startswith(b"user.ana."):
            await ana.ok(f'APPEND "{shown(name, "ana")}" {{5+}}\r\nhello')
    for name in SUBSCRIBED:
        await ana.ok(f'SUBSCRIBE "{shown(name, "ana")}"')
    await bob.ok(f'SUBSCRIBE "{shown(b"user.ana.a b", "bob")}"')
    await ana.ok(f'SETMETADATA "{shown(b"user.ana.Sent", "ana")}" (/private/specialuse "\\\\Sent")')
    await ana.ok(
        f'SETMETADATA "{shown(b"user.ana.Archive", "ana")}" (/private/specialuse "\\\\Archive")'
    )
    await ana.ok(f'SETMETADATA "{shown(b"user.ana.Drafts", "ana")}" (/shared/comment "here")')


def same(one: bytes, two: bytes) -> bool:
    """What a BAD says may differ."""
    last = one.splitlines()[-1][:6]
    return one == two or (last == b"t BAD " and two.splitlines()[-1][:6] == last)


@pytest.mark.limit_s(240)
@pytest.mark.parametrize("form", NAMESPACES)
async def test_a_frontend_lists_as_one_backend_would(form: str, tmp_path: Path) -> None:
    config = NAMESPACES[form]
    namespace = config.namespace()

    async def compare(direct: tuple[str, int], murder: Cluster) -> None:
        for user in ("ana", "bob", "admin"):
            for enabled in ("", "ENABLE IMAP4rev2"):
                one, two = await logged_in(direct, user), await logged_in(murder.address, user)
                if enabled:
                    await one.ok(enabled)
                    await two.ok(enabled)
                asked = commands(namespace.separator.decode())
                for word, pattern in itertools.product(
                    ("LIST", "LSUB"), ("*", "%", "INBOX*", '""')
                ):
                    plain, remote = f'{word} "" {pattern}', f'R{word} "" {pattern}'  # RFC 2193 §4
                    assert await one.ask(plain) == await two.ask(remote), remote
                step = 1 if form == "default" and user == "ana" and not enabled else 11
                for command in asked[::step]:
                    expected, got = await one.ask(command), await two.ask(command)
                    assert same(expected, got), (
                        f"{user} {enabled} {command}\n{expected.decode()}\nbut the frontend says\n{got.decode()}"
                    )

    everything = {"be1.test": ("ana", "bob")}
    homes = {"be1.test": ("ana",), "be2.test": ("bob",)}
    async with (
        running_cluster(tmp_path / "one", everything, namespace=config) as single,
        running_cluster(tmp_path / "two", homes, namespace=config) as murder,
    ):
        direct = single.backends["be1.test"].address
        await fill(direct, namespace, "")
        await fill(murder.address, namespace, "be2.test")
        await compare(direct, murder)
