"""`[expiry."NAME"]`: mail goes by its age, is shown before, and nothing else goes."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from murder.api.store import MailboxStore
from murder.config import Config
from murder.config.expiry import ExpiryRule
from murder.roles.backend.hierarchy.expiry import DAY_S, Daily, apply_policies
from murder.roles.backend.hierarchy.policies import Expired
from murder.trail.audit import audit_log
from tests.kit.peer import Peer
from tests.rooms.backend.server import (
    Running,
    config_in,
    maildir_store,
    memory_store,
    running_backend,
    spool_store,
)

Make = Callable[[Path], MailboxStore]
STORES: list[Make] = [lambda _: memory_store(), spool_store, maildir_store]


def ruled(folder: Path, **rules: dict[str, Any]) -> Config:
    made = {name: ExpiryRule(**words) for name, words in rules.items()}
    return replace(config_in(folder), expiry=made)


async def ana_at(running: Running) -> Peer:
    peer = await Peer.at(*running.address)
    await peer.line()
    await peer.ok("LOGIN ana secret")
    return peer


def mail_log(folder: Path) -> list[dict[str, Any]]:
    """Its lines, in order."""
    (file,) = [*folder.rglob("mail-backend-0*")]
    return [json.loads(line) for line in file.read_text().splitlines()]


async def put(peer: Peer, mailbox: str, days: float, flags: str = "") -> None:
    at = (datetime.now(UTC) - timedelta(days=days)).strftime("%d-%b-%Y %H:%M:%S +0000")
    await peer.ok(f'APPEND {mailbox} ({flags}) "{at}" {{4+}}\r\nmail')


async def found(running: Running, days: float = 0.0, *, acts: bool = False) -> list[Expired]:
    """What the rules do so many days from now."""
    now = datetime.now(UTC) + timedelta(days=days)
    return [one async for one in running.backend.policies.apply(now, acts=acts)]


@pytest.mark.parametrize("make", STORES)
async def test_what_is_old_goes_from_the_trash_and_comes_back(make: Make, tmp_path: Path) -> None:
    config = ruled(
        tmp_path, bin={"mailboxes": "user/*", "after_days": 30, "special_use": "\\Trash"}
    )
    async with running_backend(tmp_path, lambda: make(tmp_path), config=config) as running:
        ana = await ana_at(running)
        for name, use in (("INBOX/Bin", " (USE (\\Trash))"), ("INBOX/Kept", "")):
            await ana.ok(f"CREATE {name}{use}")
            await put(ana, name, 90)
            await put(ana, name, 90, "\\Flagged")
        assert await found(running) == []  # they have come today, whenever they were received
        planned = await found(running, 31)
        assert [(one.rule, one.name, one.messages, one.octets) for one in planned] == [
            ("bin", b"user.ana.Bin", 1, 4)
        ]
        assert await found(running, 31) == planned  # showing does nothing
        assert await found(running, 31, acts=True) == planned
        assert await found(running, 31) == []
        counts = await ana.ok('LIST "" INBOX/% RETURN (STATUS (MESSAGES))')
        told = [line for line in counts if line.startswith(b"* STATUS")]
        assert told == [b"* STATUS INBOX/Bin (MESSAGES 1)", b"* STATUS INBOX/Kept (MESSAGES 2)"]
        admin = await Peer.at(*running.address)
        await admin.line()
        await admin.ok("LOGIN admin secret")
        assert len(await admin.ok("XUNEXPUNGE user/ana/Bin LIST 0 1:*")) == 1
        await admin.close()
        await ana.close()


async def test_a_message_that_two_rules_mean_is_shown_once_as_the_first_has_it(
    tmp_path: Path,
) -> None:
    first = {"mailboxes": "user/*", "after_days": 90, "by": "received"}
    config = ruled(tmp_path, first=first, second={**first, "after_days": 30})
    async with running_backend(tmp_path, lambda: spool_store(tmp_path), config=config) as running:
        ana = await ana_at(running)
        for days in (100, 100, 60, 10):
            await put(ana, "INBOX", days)
        planned = await found(running)
        assert [(one.rule, one.messages) for one in planned] == [("first", 2), ("second", 1)]
        assert await found(running, acts=True) == planned
        await ana.close()


async def test_the_mail_log_has_what_a_rule_removed_and_which(tmp_path: Path) -> None:
    config = ruled(tmp_path, gone={"mailboxes": "user/%", "after_days": 30, "by": "received"})
    config = replace(config, log=replace(config.log, mail="full"))
    async with running_backend(tmp_path, lambda: spool_store(tmp_path), config=config) as running:
        ana = await ana_at(running)
        await put(ana, "INBOX", 90)
        await put(ana, "INBOX", 10)
        assert await apply_policies(running.backend, audit_log(tmp_path, "backend", 7, 10**6)) == 1
        await ana.close()
        first, _, expunged = mail_log(tmp_path)
        facts = {key: expunged[key] for key in ("event", "protocol", "rule", "mailbox", "messages")}
        assert facts == {
            "event": "message.expunged",
            "protocol": "expiry",
            "rule": "gone",
            "mailbox": "user.ana",
            "messages": first["messages"],
        }


@pytest.mark.parametrize("make", STORES)
async def test_old_mail_goes_to_the_archive_where_there_is_one(make: Make, tmp_path: Path) -> None:
    rule = {"mailboxes": "user/%", "after_days": 365, "by": "received", "action": "archive"}
    config = ruled(tmp_path, old={**rule, "keep_unseen": True})
    config = replace(config, log=replace(config.log, mail="full"))
    async with running_backend(tmp_path, lambda: make(tmp_path), config=config) as running:
        ana = await ana_at(running)
        await put(ana, "INBOX", 400, "\\Seen work")
        await put(ana, "INBOX", 400)
        await put(ana, "INBOX", 10, "\\Seen")
        (told,) = [one for one in await found(running, acts=True) if one.name == b"user.ana"]
        assert (told.messages, told.problem) == (0, "there is no \\Archive of its owner here")
        await ana.ok("CREATE INBOX/Old (USE (\\Archive))")
        (told,) = [one for one in await found(running) if one.name == b"user.ana"]
        assert (told.messages, told.target) == (1, b"user.ana.Old")
        audit = audit_log(tmp_path, "backend", 7, 10**6)
        assert await apply_policies(running.backend, audit) == 1
        assert await ana.ok("STATUS INBOX (MESSAGES)") == [b"* STATUS INBOX (MESSAGES 2)"]
        await ana.ok("SELECT INBOX/Old")
        (fetched,) = await ana.ok("FETCH 1:* (FLAGS)")
        assert b"work" in fetched and b"\\Seen" in fetched
        (trail,) = [*tmp_path.rglob("audit-backend-7*")]
        assert "EXPIRE" in trail.read_text() and "user/ana/Old" in trail.read_text()
        appended, *_, moved = mail_log(tmp_path)
        assert (moved["event"], moved["rule"]) == ("message.moved", "old")
        assert (moved["mailbox"], moved["target"]) == ("user.ana", "user.ana.Old")
        (one,) = moved["messages"]
        assert one["place"] == appended["messages"][0]["place"] != one["to"]
        await ana.close()


@pytest.mark.parametrize("make", STORES)
async def test_nothing_goes_two_steps_in_one_round(make: Make, tmp_path: Path) -> None:
    """Of which the first alone was shown."""
    rule = {"mailboxes": "user/ana", "by": "received"}
    old = {**rule, "after_days": 30, "action": "archive"}
    config = ruled(tmp_path, old=old, gone={**rule, "mailboxes": "user/ana/Old", "after_days": 90})
    async with running_backend(tmp_path, lambda: make(tmp_path), config=config) as running:
        ana = await ana_at(running)
        await ana.ok("CREATE INBOX/Old (USE (\\Archive))")
        await put(ana, "INBOX/Old", 100)
        for days in (100, 100, 60):
            await put(ana, "INBOX", days)
        for shown in ([("old", 3), ("gone", 1)], [("gone", 2)], []):
            planned = await found(running)
            assert [(one.rule, one.messages) for one in planned] == shown
            assert await found(running, acts=True) == planned
        await ana.close()


async def test_only_mailboxes_of_the_pattern_are_meant(tmp_path: Path) -> None:
    config = ruled(
        tmp_path,
        lists={"mailboxes": "user/*/lists/%", "after_days": 1},
        grün={"mailboxes": "user/bob/grün", "after_days": 1},
    )
    async with running_backend(tmp_path, config=config) as running:
        ana = await ana_at(running)
        for name in ("INBOX/lists", "INBOX/lists/a", "INBOX/lists/a/b"):
            await ana.ok(f"CREATE {name}")
            await put(ana, name, 0)
        bob = await Peer.at(*running.address)
        await bob.line()
        await bob.ok("LOGIN bob secret")
        await bob.ok("CREATE INBOX/gr&APw-n")
        await put(bob, "INBOX/gr&APw-n", 0)
        names = [(one.rule, one.name) for one in await found(running, 2)]
        assert names == [("lists", b"user.ana.lists.a"), ("grün", b"user.bob.gr&APw-n")]
        running.role.reload(ruled(tmp_path))
        assert await found(running, 2) == []
        await ana.close()
        await bob.close()


async def test_an_operator_is_shown_what_would_go_and_has_it_done(tmp_path: Path) -> None:
    config = ruled(tmp_path, now={"mailboxes": "user/ana", "after_days": 0})
    async with running_backend(tmp_path, config=config) as running:
        ana = await ana_at(running)
        await put(ana, "INBOX", 1)
        assert (await ana.command("XEXPIRE PLAN"))[-1].startswith(b"t NO [NOPERM]")
        admin = await Peer.at(*running.address)
        await admin.line()
        await admin.ok("LOGIN admin secret")
        told = b'* XEXPIRE "now" user/ana 1 4 "" ""'
        assert await admin.ok("XEXPIRE PLAN") == [told]
        assert await ana.ok("STATUS INBOX (MESSAGES)") == [b"* STATUS INBOX (MESSAGES 1)"]
        assert await admin.ok("XEXPIRE RUN") == [told]
        assert await admin.ok("XEXPIRE PLAN") == []
        assert (await admin.command("XEXPIRE ALL"))[-1].startswith(b"t BAD")
        (trail,) = tmp_path.rglob("audit-backend-*")
        lines = [json.loads(line) for line in trail.read_text().splitlines()]
        (act,) = [line for line in lines if line["event"] == "EXPIRE"]
        assert (act["user"], act["rule"], act["mailbox"], act["messages"]) == (
            "admin",
            "now",
            "user/ana",
            1,
        )
        await ana.close()
        await admin.close()


def test_the_first_day_of_a_rule_is_for_looking(tmp_path: Path) -> None:
    daily, now = Daily(tmp_path / "at"), time.time()
    assert not daily.is_due(now, DAY_S)
    assert not daily.is_due(now + DAY_S - 10, DAY_S)
    assert daily.is_due(now + DAY_S + 1, DAY_S)
    daily.done(now)
    os.utime(tmp_path / "at", (now + 9 * DAY_S,) * 2)  # a clock that was wrong
    assert not daily.is_due(now, DAY_S) and daily.is_due(now + DAY_S, DAY_S)
    daily.forget()
    assert not daily.is_due(now + 5 * DAY_S, DAY_S)
