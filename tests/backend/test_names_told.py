"""What is said of a mailbox says the name that the client has for it."""

import asyncio
from pathlib import Path

import uvloop

from murder.model.name import exists_already, no_such_mailbox
from tests.backend.server import config_in, running_backend


async def said(folder: Path, *commands: bytes) -> list[bytes]:
    async with running_backend(folder, config=config_in(folder)) as running:
        reader, writer = await asyncio.open_connection(*running.address)
        for number, command in enumerate((b"LOGIN ana secret", *commands, b"LOGOUT")):
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
                    b"STATUS user/bob (MESSAGES)",
                ),
                30,
            )
        )
    refused = [line for line in lines if b" NO " in line]
    assert len(refused) == 5
    assert not any(b"user.ana" in line for line in lines), lines
    assert any(b"INBOX/t2 exists already" in line for line in refused), refused


def test_a_refusal_knows_whose_names_it_says() -> None:
    for refusal in (no_such_mailbox(b"user.ana.x"), exists_already(b"user.ana.x")):
        assert refusal.names == (b"user.ana.x",)
        assert "user.ana.x" in refusal.text
