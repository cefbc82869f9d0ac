"""The ways in at nodes as they run, the short ones too that a login takes whose password is known: what is wrong costs and
is logged alike, what is right is counted alike, whether the user is at this node, behind it, or passed on as a whole.
"""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from murder.api.auth import Denied, Identity, LoginAttempt
from murder.auth.penalty import Penalties
from murder.log import set_up
from tests.kit.peer import Peer
from tests.kit.waiting import Naps, until_soon
from tests.rooms.frontend.cluster import Remembering
from tests.rooms.serve.test_ways_in import RIGHT, is_good, told
from tests.rooms.unified.nodes import Node, Parts, running_nodes

HERE = {"n1.test": ("anna",)}
BEHIND = {"n1.test": ("zoe",), "n2.test": ("anna",)}
ROLES: dict[str, tuple[dict[str, Sequence[str]], dict[str, Any]]] = {
    "unified": (dict(HERE), {}),
    "frontend": (dict(BEHIND), {}),
    "multiplexor": (dict(BEHIND), {"mode": "multiplexor"}),
}
WAYS = [
    *(("imap", way) for way in ("COMMAND", "PLAIN", "LOGIN")),
    *(("pop3", way) for way in ("COMMAND", "PLAIN", "LOGIN")),
    *(("sieve", way) for way in ("PLAIN", "LOGIN")),
    *product(("imap", "pop3", "sieve"), ("OAUTHBEARER", "XOAUTH2")),
]
BYE = {"imap": b"z LOGOUT\r\n", "pop3": b"QUIT\r\n", "sieve": b"LOGOUT\r\n"}


class Tokens(Remembering):
    """Takes tokens, too."""

    openid_configuration = "https://id.test/.well-known/openid-configuration"
    scope = "mail"

    async def check_token(self, attempt: LoginAttempt, user: str, token: str) -> Identity | Denied:
        return Identity("anna") if token == RIGHT.decode() else Denied.UNKNOWN


async def come(node: Node, kind: str) -> Peer:
    peer = await Peer.at(node.ports[kind])
    await peer.until(b"OK" if kind == "sieve" else b"* OK" if kind == "imap" else b"+OK")
    return peer


@pytest.mark.parametrize("role", ROLES)
async def test_all_ways_in_are_alike_at_nodes_as_they_run(
    role: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up("info", "json")
    monkeypatch.setattr(Parts, "auth_backends", lambda parts: [("tokens", Tokens())])
    homes, settings = ROLES[role]
    naps = Naps()
    async with running_nodes(tmp_path, homes, max_connections_per_user=1, **settings) as murder:
        node = murder.nodes["n1.test"]
        gate = node.frontend.gate
        gate.penalties = Penalties(sleep=naps.sleep, clock=naps.clock)
        for number, (kind, way) in enumerate(WAYS * 2):  # in the second round all of it is known
            capfd.readouterr()
            peer = await come(node, kind)
            wrong = b"guess%d" % number  # the same one again would cost nothing
            assert not is_good(kind, await told(peer, kind, way, wrong))
            assert gate.penalties.failures("127.0.0.1", "anna") == 1, (kind, way)
            assert naps.taken == [2.0] * (number + 1)
            line = await told(peer, kind, way, RIGHT)
            assert is_good(kind, line), (kind, way, line)
            assert gate.penalties.failures("127.0.0.1", "anna") == 0
            other = await come(node, kind)
            assert not is_good(kind, await told(other, kind, way, RIGHT)), (kind, way)
            await other.close()
            peer.send(BYE[kind])
            while await peer.line():
                pass
            await peer.close()
            await until_soon(lambda: not gate.connections.counter._of)
            lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
            logins = [
                tuple(map(line.get, ("event", "user", "protocol", "mechanism", "peer", "problem")))
                for line in lines
                if line["event"].startswith("login.") and line["role"] == "frontend"
            ]
            by = {"imap": "LOGIN", "pop3": "USER"}[kind] if way == "COMMAND" else way
            who = ("anna", kind, by, "127.0.0.1")
            assert logins == [
                ("login.failed", *who, "AUTHENTICATIONFAILED"),
                ("login.succeeded", *who, None),
                ("login.failed", *who, "LIMIT"),
            ], (kind, way)
