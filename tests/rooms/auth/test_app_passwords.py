"""Application passwords: asked first, for their protocols, until they end or are revoked, the same on every node."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from murder.api.auth import Identity, LoginAttempt
from murder.auth import app_passwords
from murder.auth.app_passwords import FILE, PROTOCOLS, AppPassword, AppPasswords
from murder.auth.chain import Chain
from murder.auth.mechanisms import LOGIN
from murder.errors import Code, Refusal
from murder.net.turns import Turn
from tests.rooms.auth.test_chain import Directory

HERE = LoginAttempt("imap", "fe1.test", "192.0.2.1", is_tls=True)


async def test_one_is_asked_before_the_plugins_and_the_user_by_them(tmp_path: Path) -> None:
    apps, users = AppPasswords(tmp_path), Directory({"ana": b"main"})
    password = apps.add("Ana", "phone").encode()
    chain = Chain([("users", users)], apps=AppPasswords(tmp_path))
    found = await chain.decide(HERE, "ANA", password)
    assert found is not None
    assert (found.identity, found.plugin) == (Identity("ana"), "application password phone")
    assert users.asked == []
    assert await chain.decide(HERE, "ana", password.replace(b"-", b"").upper()) is not None
    assert await chain.decide(HERE, "ana", password[:-1] + b"?") is None
    assert await chain.decide(HERE, "ben", password) is None
    assert await chain.decide(HERE, "ana", b"main") is not None
    users.passwords.clear()  # is no user any more
    assert await chain.decide(HERE, "ana", password) is None


def test_one_may_be_for_each_protocol_that_takes_passwords() -> None:
    assert set(PROTOCOLS) == LOGIN.protocols


async def test_one_counts_for_its_protocols_until_it_ends(tmp_path: Path) -> None:
    now = 1000.0
    apps = AppPasswords(tmp_path, clock=lambda: now)
    password = apps.add("ana", "phone", ["imap"], 2000.0).encode()
    assert apps.find(HERE, "ana", password) is not None
    assert apps.find(replace(HERE, protocol="pop3"), "ana", password) is None
    now = 2000.0
    assert apps.find(HERE, "ana", password) is None


def test_one_that_is_revoked_counts_no_more_anywhere(tmp_path: Path) -> None:
    apps, worker = AppPasswords(tmp_path), AppPasswords(tmp_path)
    first, second = (apps.add("ana", name).encode() for name in ("phone", "tablet"))
    assert worker.find(HERE, "ana", first) and worker.find(HERE, "ana", second)
    assert apps.revoke("ana", "phone") == 1
    assert worker.find(HERE, "ana", first) is None
    assert worker.find(HERE, "ana", second) is not None
    assert apps.revoke("ana") == 1
    assert worker.all() == []


def test_nothing_of_a_password_is_kept_that_could_be_used(tmp_path: Path) -> None:
    apps = AppPasswords(tmp_path)
    password = apps.add("ana", "phone")
    kept = (tmp_path / FILE).read_text()
    assert password not in kept and password.replace("-", "") not in kept
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert "digest" not in repr(apps.all())
    with pytest.raises(Refusal) as refused:
        apps.add("ana", "phone")
    assert refused.value.code is Code.ALREADY_EXISTS


def test_when_one_was_used_is_known(tmp_path: Path) -> None:
    now = 1000.0
    apps = AppPasswords(tmp_path, clock=lambda: now)
    password = apps.add("ana", "phone").encode()
    one = apps.find(HERE, "ana", password)
    assert one is not None and apps.used_at(one) is None
    apps.note_use(one)
    assert apps.used_at(one) == 1000.0
    now = 1030.0  # within a minute the disk is left alone
    apps.note_use(one)
    assert apps.used_at(one) == 1000.0
    now = 1100.0
    apps.note_use(one)
    assert apps.used_at(one) == 1100.0


def test_another_node_takes_all_of_them_or_none(tmp_path: Path) -> None:
    here, there = AppPasswords(tmp_path / "here"), AppPasswords(tmp_path / "there")
    password = here.add("ana", "phone").encode()
    there.add("old", "gone")
    assert there.take(here.text()) == 1
    assert there.find(HERE, "ana", password) is not None
    assert there.all("old") == []
    for text in ("{", "[]", '{"id": "x"}', here.text() + "x"):
        with pytest.raises(Refusal, match="nothing was changed"):
            there.take(text)
    assert there.find(HERE, "ana", password) is not None


def test_a_file_that_cannot_be_read_leaves_all_as_it_was(tmp_path: Path) -> None:
    apps = AppPasswords(tmp_path)
    password = apps.add("ana", "phone").encode()
    assert apps.find(HERE, "ana", password) is not None
    (tmp_path / FILE).write_text("{broken")
    assert apps.find(HERE, "ana", password) is not None


async def test_thousands_are_read_in_turns_and_once_for_all_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = AppPasswords(tmp_path)
    password = maker.add("ana", "phone").encode()
    (line,) = (tmp_path / FILE).read_text("utf-8").splitlines(keepends=True)
    others = (line.replace('"ana"', f'"user{number}"') for number in range(2000))
    (tmp_path / FILE).write_text("".join([*others, line]), "utf-8")
    worker, taken = AppPasswords(tmp_path), []
    whole = app_passwords.parse_line

    def counted(line: str) -> AppPassword:
        taken.append(line)
        return whole(line)

    monkeypatch.setattr(app_passwords, "parse_line", counted)
    turns = [Turn(clock=iter(range(10**6)).__next__) for _ in range(3)]  # each is over at once
    await asyncio.gather(*(worker.look_again(turn) for turn in turns))
    assert len(taken) == 2001 and turns[0].rests >= 2001
    assert worker.find(HERE, "ana", password) is not None
    assert len(taken) == 2001


async def test_a_file_that_is_none_changes_nothing_for_a_login(tmp_path: Path) -> None:
    apps = AppPasswords(tmp_path)
    password = apps.add("ana", "phone").encode()
    chain = Chain([("users", Directory({"ana": b"main"}))], apps=AppPasswords(tmp_path))
    assert await chain.decide(HERE, "ana", password) is not None
    (tmp_path / FILE).write_text("this is none\n", "utf-8")
    assert await chain.decide(HERE, "ana", password) is not None  # what was known stays
    (tmp_path / FILE).unlink()
    assert await chain.decide(HERE, "ana", password) is None
