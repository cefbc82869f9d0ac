"""What fails behind the beginning of a FETCH response: the response is whole all the same, or the connection ends."""

from pathlib import Path

import pytest

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.roles.backend.messages.content import Reader
from tests.kit.peer import Peer
from tests.rooms.backend.server import running_backend

HEAD = b"Subject: one\r\n\r\n"
MAIL = HEAD + b"x" * 400_000 + b"\r\n"
FAILURES = (
    Refusal(Code.UNAVAILABLE, "The disk of this server cannot be used now"),
    UpstreamFailure(UpstreamKind.TIMEOUT, "store.test", "no answer"),
)


async def client_with_mail(address: tuple[str, int]) -> Peer:
    client = await Peer.at(*address)
    await client.line()
    await client.ok("LOGIN ana secret")
    for _ in range(2):
        await client.ok(b"APPEND INBOX {%d+}\r\n%s" % (len(MAIL), MAIL))
    await client.ok("SELECT INBOX")
    return client


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("item", ["ENVELOPE", "BODYSTRUCTURE", "BODY", "PREVIEW"])
async def test_what_cannot_be_told_is_left_out_and_the_response_is_whole(
    item: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object) -> bytes:
        raise error

    async with running_backend(tmp_path) as running:
        client = await client_with_mail(running.address)
        name = {"ENVELOPE": "envelope", "PREVIEW": "preview"}.get(item, "structure")
        monkeypatch.setattr(Reader, name, failing)
        said = await client.command(f"FETCH 1:2 (UID BODY.PEEK[HEADER] {item} BODY.PEEK[])")
        for number, answer in enumerate(said[:-1], 1):
            assert answer == b"* %d FETCH (UID %d BODY[HEADER] {%d}\r\n%s BODY[] {%d}\r\n%s)" % (
                *(number, number, len(HEAD), HEAD),
                *(len(MAIL), MAIL),
            )
        assert len(said) == 3 and said[-1].startswith(b"t NO [UNAVAILABLE] ")
        monkeypatch.undo()
        assert len(await client.ok(f"FETCH 1:2 ({item})")) == 2
        await client.close()


async def test_a_fault_in_the_middle_of_a_response_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reply would be understood there: it would be read as part of what has begun."""

    async def failing(*_: object) -> bytes:
        raise ValueError("a fault of ours")

    async with running_backend(tmp_path) as running:
        client = await client_with_mail(running.address)
        monkeypatch.setattr(Reader, "envelope", failing)
        client.send(b"t FETCH 1 (BODY.PEEK[] ENVELOPE)\r\n")
        said = await client.reader.read()
        assert b"\r\nt " not in said and not said.endswith(b")\r\n")
        await client.close()
