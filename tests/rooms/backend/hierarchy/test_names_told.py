"""What is said of a mailbox says the name that the client has for it."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from murder.errors import Refusal
from murder.model.name import MailboxName, exists_already, no_such_mailbox
from murder.wire.nodes.carry_answers import check_refused
from tests.rooms.backend.server import config_in, running_backend


async def said(folder: Path, *commands: bytes, user: bytes = b"ana") -> list[bytes]:
    async with running_backend(folder, config=config_in(folder)) as running:
        reader, writer = await asyncio.open_connection(*running.address)
        for number, command in enumerate((b"LOGIN %s secret" % user, *commands, b"LOGOUT")):
            writer.write(b"a%d %s\r\n" % (number, command))
        lines = (await reader.read()).split(b"\r\n")
        writer.close()
        return lines


def test_refusals_of_store_and_list_have_the_clients_names(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        lines = runner.run(
            asyncio.wait_for(
                said(
                    tmp_path,
                    b"CREATE INBOX/t1",
                    b"CREATE INBOX/t2",
                    b"RENAME INBOX/t1 INBOX/t2",
                    b"CREATE INBOX/t1",
                    b"DELETE INBOX/none",
                    b"RENAME INBOX/none INBOX/other",
                    b"RENAME INBOX/t1 INBOX/t1",
                    b"STATUS user/bob (MESSAGES)",
                ),
                30,
            )
        )
    refused = [line for line in lines if b" NO " in line]
    assert len(refused) == 6
    assert not any(b"user.ana" in line for line in lines), lines
    assert any(b"INBOX/t2 exists already" in line for line in refused), refused


async def test_so_has_try_create_where_another_session_has_just_removed_it(tmp_path: Path) -> None:
    """The list has it still, and the store has not."""
    async with running_backend(tmp_path, config=config_in(tmp_path)) as running:
        reader, writer = await asyncio.open_connection(*running.address)
        writer.write(b"a0 LOGIN ana secret\r\na1 CREATE INBOX/t1\r\na2 NOOP\r\n")
        await reader.readuntil(b"\r\na2 OK")
        await running.backend.store.delete(MailboxName(b"user.ana.t1"))
        writer.write(b"a3 APPEND INBOX/t1 {1+}\r\nx\r\na4 LOGOUT\r\n")
        lines = (await reader.read()).split(b"\r\n")
        writer.close()
    assert b"a3 NO [TRYCREATE] No such mailbox: INBOX/t1" in lines, lines


def test_what_xfer_refuses_has_the_administrators_names(tmp_path: Path) -> None:
    commands = [b"CREATE user/bo", b"CREATE user/bo/t1"]
    commands += [
        b"XFER user/bo/%s %s" % ask for ask in ((b"t1", b"be1.test"), (b"no", b"be2.test"))
    ]
    commands.append(b'XFER user/bo/t1 ""')
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        lines = runner.run(asyncio.wait_for(said(tmp_path, *commands, user=b"admin"), 30))
    told = [line for line in lines if b" NO " in line]
    assert len(told) == 6, told  # untagged, then tagged
    assert not any(b"user.bo" in line for line in told), told
    assert b"a3 NO [CANNOT] user/bo/t1 is at be1.test already" in told
    assert b"a5 NO [CANNOT] A move needs the name of a server" in told


def test_another_servers_refusal_names_it_once() -> None:
    for said in ("be2.test has no partition x", "no room"):
        with pytest.raises(Refusal) as refused:
            check_refused({"no": said, "code": "CANNOT"}, "be2.test")
        assert refused.value.text.count("be2.test") == 1


def test_a_refusal_knows_whose_names_it_says() -> None:
    for refusal in (no_such_mailbox(b"user.ana.x"), exists_already(b"user.ana.x")):
        assert refusal.names == (b"user.ana.x",)
        assert "user.ana.x" in refusal.text
