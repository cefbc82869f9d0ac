"""A session lasts no longer than what it began by: a token, an application password, a certificate."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from murder.api.auth import Denied, Identity, LoginAttempt
from murder.auth.app_passwords import AppPasswords
from murder.auth.chain import Chain
from murder.auth.gate import Gate
from murder.auth.penalty import Penalties
from murder.log import set_up
from murder.model.identity import Login
from murder.model.sasl import PlainCredentials
from murder.serve.client import EXPIRED, EXPIRED_GRACE_S
from tests.kit.peer import Peer
from tests.rooms.auth.test_gate import Peer as Stub
from tests.rooms.frontend.cluster import running_cluster
from tests.rooms.serve.test_client import KINDS, met
from tests.rooms.serve.test_ways_in import New, dialogues, is_good, told

SOON_S = 0.3
WORDS = {
    "imap": "* BYE [EXPIRED] {}",
    "pop3": "-ERR [AUTH] {}",
    "lmtp": "421 4.7.0 {}",
    "sieve": 'BYE "{}"',
    "mupdate": '* BYE "{}"',
}


class ForAMoment(New):
    """Tokens that end soon."""

    async def check_token(self, attempt: LoginAttempt, user: str, token: str) -> Identity | Denied:
        return Identity("anna", expires_at=time.time() + SOON_S)


def expiries(capfd: pytest.CaptureFixture[str]) -> list[object]:
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    return [line["user"] for line in lines if line["event"] == "login.expired"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_session_ends_with_its_token(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up("info", "json")
    gate = Gate(ForAMoment(), allow_plaintext=True, penalties=Penalties(0, 0))
    async with dialogues(kind, gate, tmp_path) as connect:
        peer = await connect()
        began = time.time()
        assert is_good(kind, await told(peer, kind, "XOAUTH2", b"secret"))
        last = await peer.line()
        assert last.decode() == WORDS[kind].format(EXPIRED)
        assert time.time() >= began + SOON_S
        assert await peer.line() == b""
        await peer.close()
    assert expiries(capfd) == ["anna"]


async def test_at_a_frontend_and_at_a_backend_an_idling_client_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up("info", "json")
    async with running_cluster(tmp_path) as cluster:
        places = {"fe1": cluster.address, "be1.test": cluster.backends["be1.test"].address}
        for folder, place in places.items():
            expired_s = SOON_S
            while not (peer := await idling(tmp_path / folder, place, time.time() + expired_s)):
                expired_s *= 4
            capfd.readouterr()  # of those who came no further
            assert await peer.line() == b"* BYE [EXPIRED] " + EXPIRED.encode()
            await peer.close()
            assert expiries(capfd) == ["ana"]


async def idling(folder: Path, place: tuple[str, int], until: float) -> Peer | None:
    """Somebody who idles; None where their password has expired before, as it may on a busy machine."""
    password = AppPasswords(folder).add("ana", f"phone {until}", (), until)
    peer = await Peer.at(*place)
    await peer.until(b"* OK")
    for command in (f"LOGIN ana {password}", "SELECT INBOX"):
        if not (await peer.command(command))[-1].startswith(b"t OK"):
            assert time.time() >= until
            return None
    peer.send(b"a IDLE\r\n")
    if await peer.line() != b"+ idling":
        assert time.time() >= until
        return None
    return peer


class Clock:
    """Wall time that a test sets."""

    now = 1000.0

    def time(self) -> float:
        return self.now


async def test_a_command_that_runs_is_ended_first_and_cut_off_at_last(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up("info", "json")
    clock = Clock()
    monkeypatch.setattr("murder.serve.client.time", clock)
    async with met("imap", tmp_path) as (_, dialogue):
        until = Identity("anna", expires_at=clock.now + 10)
        dialogue.entered_as(Login("anna", until), 1800)
        busy = dialogue.loop.create_future()

        async def work() -> None:
            await busy

        dialogue.go_on(None, work())

        def due() -> float | None:
            now = dialogue.loop.time()
            found = dialogue.look(now)
            return None if found is None else round(found - now, 3)

        assert due() == 10
        clock.now += 10
        assert due() == 1 and not dialogue.is_closing
        clock.now += EXPIRED_GRACE_S
        assert due() is None
        await asyncio.sleep(0)
        assert dialogue.connection.is_lost
        busy.set_result(None)
    assert expiries(capfd) == ["anna"]


async def test_who_acts_for_another_does_so_for_no_longer(tmp_path: Path) -> None:
    class Brief(New):
        async def check(
            self, attempt: LoginAttempt, user: str, password: bytes
        ) -> Identity | Denied:
            return Identity(user, expires_at=5000.0)

    gate = Gate(Brief(), masters=["boss"], penalties=Penalties(0, 0))
    login = await gate.admit(PlainCredentials("boss", "anna", b"x"), Stub(), "imap")  # type: ignore[arg-type]
    assert (login.user, login.master, login.identity.expires_at) == ("anna", "boss", 5000.0)


async def test_an_application_password_tells_until_when_it_counts(tmp_path: Path) -> None:
    apps = AppPasswords(tmp_path)
    until = time.time() + 100
    password = apps.add("anna", "phone", (), until).encode()
    decision = await Chain([("new", New())], apps=apps).decide(
        LoginAttempt("imap", "", "127.0.0.1", True), "anna", password
    )
    assert decision is not None and decision.identity.expires_at == until
