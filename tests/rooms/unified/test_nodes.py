"""Nodes that are frontend and backend in one: own mailboxes within the process, others proxied, on the same ports."""

import asyncio
from base64 import b64encode
from ipaddress import ip_network
from pathlib import Path

from murder.model.name import MailboxName
from murder.net.outgoing.within import LocalConnection
from murder.roles.backend.imap.dialogue import BackendImap
from tests.kit.managesieve import ManageSieve
from tests.kit.peer import Peer
from tests.kit.waiting import until_soon
from tests.rooms.frontend.cluster import PROXY
from tests.rooms.unified.nodes import Node, running_nodes

MESSAGE = b"Subject: hello\r\n\r\nIt works.\r\n"


async def at(node: Node, user: str) -> Peer:
    peer = await Peer.at(node.ports["imap"])
    await peer.until(b"* OK")
    await peer.ok(f"LOGIN {user} secret")
    return peer


def selected_at(node: Node) -> list[BackendImap]:
    """The backend's sessions with a mailbox."""
    sessions = node.backend.sessions
    return [one for one in sessions if isinstance(one, BackendImap) and one.view is not None]


async def test_own_mail_is_served_within_the_process_and_the_rest_by_the_other_node(
    tmp_path: Path,
) -> None:
    async with running_nodes(tmp_path) as nodes:
        n1, n2 = nodes.nodes["n1.test"], nodes.nodes["n2.test"]
        for user, home in (("ana", n1), ("bob", n2)):
            peer = await at(n1, user)
            await peer.ok("SELECT INBOX")
            await peer.ok(b"APPEND INBOX {%d+}\r\n%b" % (len(MESSAGE), MESSAGE))
            assert b"* STATUS INBOX (MESSAGES 1)" in await peer.ok("STATUS INBOX (MESSAGES)")
            (session,) = home.backend.sessions
            assert isinstance(session.connection, LocalConnection) is (home is n1)
            assert not n2.frontend.sessions  # which would pass it on once more
            await peer.close()
            await until_soon(lambda home=home: not selected_at(home))  # type: ignore[misc]


async def test_an_administrator_of_the_backend_alone_speaks_with_it_by_a_password(
    tmp_path: Path,
) -> None:
    async with running_nodes(tmp_path) as nodes:
        n1 = nodes.nodes["n1.test"]
        keeper, admin = await at(n1, "keeper"), await at(n1, "admin")
        own = await keeper.ok('LIST "" "*"')
        assert [b"user/ana" in line for line in own if b"LIST" in line.split(b" ")[1]] == [True]
        assert any(b"user/bob" in line for line in await admin.ok('LIST "" "*"'))
        await keeper.ok("XCOMPARE user/ana")  # what `murder ctl` asks of backends
        direct = [
            one for one in n1.backend.sessions if not isinstance(one.connection, LocalConnection)
        ]
        assert len(direct) == 1


async def test_a_message_is_copied_and_moved_between_this_node_and_another(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        n1, n2 = nodes.nodes["n1.test"], nodes.nodes["n2.test"]
        bob = await at(n2, "bob")
        await bob.ok("SETACL INBOX ana lrswitex")
        ana = await at(n1, "ana")
        await ana.ok(b"APPEND INBOX (\\Flagged) {%d+}\r\n%b" % (len(MESSAGE), MESSAGE))
        listed, bobs = n1.frontend.mailboxes, MailboxName(b"user.bob")
        await until_soon(lambda: (row := listed.find(bobs)) and b"ana" in row.raw_acl)
        await ana.ok("SELECT INBOX")
        await ana.ok("COPY 1 user/bob")
        await ana.ok("MOVE 1 user/bob")
        assert b"* STATUS INBOX (MESSAGES 0)" in await ana.ok("STATUS INBOX (MESSAGES)")
        await ana.ok("SELECT user/bob")
        fetched = await ana.ok("FETCH 1:* FLAGS")
        assert [b"\\Flagged" in line for line in fetched] == [True, True]
        await ana.ok("MOVE 1 INBOX")
        await ana.ok("SELECT INBOX")
        assert b"It works." in b"".join(await ana.ok("FETCH 1 BODY[TEXT]"))


async def test_mail_maildrops_and_scripts_come_by_either_node(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, lmtp_trusted=(ip_network("127.0.0.0/8"),)) as nodes:
        for name, node in nodes.nodes.items():
            for user in ("ana", "bob"):
                lmtp = await Peer.at(node.ports["lmtp"])
                await lmtp.reply()
                said = await lmtp.replied(b"LHLO test\r\n")
                for line in (b"MAIL FROM:<a@test>", b"RCPT TO:<%b>" % user.encode(), b"DATA"):
                    said = await lmtp.replied(line + b"\r\n")
                assert said.startswith(b"354"), (name, user, said)
                assert (await lmtp.replied(MESSAGE + b".\r\n")).startswith(b"250"), (name, user)
                await lmtp.close()

                pop = await Peer.at(node.ports["pop3"])
                await pop.line()
                for line in (b"USER " + user.encode(), b"PASS secret", b"STAT"):
                    pop.send(line + b"\r\n")
                    said = await pop.line()
                assert said.startswith(b"+OK 1" if name == "n1.test" else b"+OK 2"), said
                await pop.close()

                await asyncio.to_thread(put_script, node.ports["sieve"], user, name)


async def test_a_proxy_user_speaks_with_the_backend_and_nothing_is_passed_on(
    tmp_path: Path,
) -> None:
    """As a Cyrus frontend does: PLAIN as the proxy user, for somebody."""
    async with running_nodes(tmp_path) as nodes:
        n1 = nodes.nodes["n1.test"]
        peer = await Peer.at(n1.ports["imap"])
        await peer.until(b"* OK")
        peer.send(b"a AUTHENTICATE PLAIN %b\r\nb SELECT INBOX\r\n" % _plain("ana", PROXY))
        assert (await peer.until(b"b "))[-1].startswith(b"b OK")
        (session,) = selected_at(n1)
        assert not isinstance(session.connection, LocalConnection)
        assert not n1.frontend.sessions
        assert (await peer.command("SELECT user/bob"))[-1].startswith(b"t NO")
        await peer.ok("UNAUTHENTICATE")
        await peer.ok(b"AUTHENTICATE PLAIN " + _plain("ana", PROXY))
        peer = await Peer.at(n1.ports["imap"])
        await peer.until(b"* OK")
        wrong = b64encode(b"ana\0%b\0wrong" % PROXY.encode())
        assert (
            b"NO [AUTHENTICATIONFAILED]" in (await peer.command(b"AUTHENTICATE PLAIN " + wrong))[-1]
        )


async def test_without_the_master_all_mail_goes_on(tmp_path: Path) -> None:
    async with running_nodes(tmp_path) as nodes:
        n1 = nodes.nodes["n1.test"]
        await nodes.master.stop()
        for user in ("ana", "bob"):
            peer = await at(n1, user)
            await peer.ok("SELECT INBOX")
            await peer.ok(b"APPEND INBOX {%d+}\r\n%b" % (len(MESSAGE), MESSAGE))
            said = (await peer.command("CREATE INBOX/new"))[-1]
            assert b"NO [UNAVAILABLE]" in said, said
        await nodes.master.start()


def put_script(port: int, user: str, name: str) -> None:
    with ManageSieve("127.0.0.1", port) as sieve:
        sieve.ask('AUTHENTICATE "PLAIN"', _plain("", user))
        sieve.ask(f'PUTSCRIPT "{name}"', b"keep;")
        assert f'"{name}"' in sieve.ask("LISTSCRIPTS")


def _plain(authzid: str, user: str) -> bytes:
    return b64encode(f"{authzid}\0{user}\0secret".encode())
