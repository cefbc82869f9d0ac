"""Several auth plugins, one behind the other: who knows the user decides, and who is away ends it."""

import asyncio
import importlib.util
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from murder.api.auth import Denied, Fault, Identity, LoginAttempt
from murder.auth.chain import Chain
from murder.auth.remembered import flush, flushed_file
from murder.errors import UpstreamFailure, UpstreamKind
from murder.net.shared_counter import Counts, allocate

HERE = LoginAttempt("imap", "fe1.test", "192.0.2.1", is_tls=True)


@dataclass
class Directory:
    """A plugin as they were before there were chains: yes or no."""

    passwords: dict[str, bytes]
    asked: list[str] = field(default_factory=list)
    is_away: bool = False

    async def verify(self, user: str, password: bytes) -> Identity | None:
        self.asked.append(user)
        if self.is_away:
            raise UpstreamFailure(UpstreamKind.CONNECT, "directory", "connection refused")
        return Identity(user) if self.passwords.get(user) == password else None

    async def lookup(self, user: str) -> Identity | None:
        return Identity(user) if user in self.passwords else None


class Careful(Directory):
    """One that tells the three answers apart, and looks at where somebody comes from."""

    expires_at: float | None = None

    @property
    def depends_on(self) -> Collection[str]:
        return ("protocol",)

    async def check(self, attempt: LoginAttempt, user: str, password: bytes) -> Identity | Denied:
        self.asked.append(user)
        if user not in self.passwords:
            return Denied.UNKNOWN
        if self.passwords[user] != password:
            return Denied.WRONG
        return Identity(user, expires_at=self.expires_at)


async def decided(chain: Chain, user: str, password: bytes, how: LoginAttempt = HERE) -> str:
    found = chain.recall(how, user, password) or await chain.decide(how, user, password)
    return found.plugin if found else ""


@pytest.mark.parametrize("first", [Directory({"ana": b"one"}), Careful({"ana": b"one"})])
async def test_the_first_that_knows_the_user_decides(first: Directory) -> None:
    second = Directory({"ana": b"two", "ben": b"ben"})
    chain = Chain([("first", first), ("second", second)])
    assert await decided(chain, "ana", b"one") == "first"
    assert await decided(chain, "ana", b"two") == ""
    assert second.asked == []  # a wrong password is nobody else's business
    assert await decided(chain, "ben", b"ben") == "second"
    assert await decided(chain, "nobody", b"x") == ""


async def test_a_plugin_that_is_away_lets_nobody_in_by_a_later_one() -> None:
    away, second = Directory({}, is_away=True), Directory({"ana": b"secret"})
    chain = Chain([("away", away), ("second", second)])
    with pytest.raises(UpstreamFailure):
        await chain.decide(HERE, "ana", b"secret")
    assert second.asked == []


async def test_what_was_right_is_known_again_until_it_is_flushed(tmp_path: Path) -> None:
    users = Careful({"ana": b"secret", "ben": b"ben"})
    chain = Chain([("one", users)], remember_s=60, flushed=flushed_file(tmp_path))
    for _ in range(3):
        assert await decided(chain, "ana", b"secret") == "one"
    assert users.asked == ["ana"]
    flush(tmp_path)
    assert chain.recall(HERE, "ana", b"secret") is None
    assert await decided(chain, "ana", b"secret") == "one"
    flush(tmp_path)  # while nobody has asked since
    flush(tmp_path)
    assert chain.recall(HERE, "ana", b"secret") is None


async def test_what_was_asked_before_a_flush_is_not_known_behind_it(tmp_path: Path) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Careful):
        async def check(
            self, attempt: LoginAttempt, user: str, password: bytes
        ) -> Identity | Denied:
            entered.set()
            await go_on.wait()
            return await super().check(attempt, user, password)

    chain = Chain([("slow", Slow({"ana": b"old"}))], flushed=flushed_file(tmp_path))
    task = asyncio.ensure_future(chain.decide(HERE, "ana", b"old"))
    await entered.wait()
    flush(tmp_path)
    go_on.set()
    assert await task is not None
    assert chain.recall(HERE, "ana", b"old") is None


async def test_a_new_password_puts_the_old_one_out() -> None:
    users = Careful({"ana": b"old"})
    chain = Chain([("one", users)])
    assert await decided(chain, "ana", b"old") == "one"
    users.passwords["ana"] = b"new"
    assert await decided(chain, "ana", b"new") == "one"
    assert await decided(chain, "ana", b"old") == ""


async def test_what_was_right_by_one_protocol_says_nothing_of_another() -> None:
    users = Careful({"ana": b"secret"})
    chain = Chain([("one", users)])
    await decided(chain, "ana", b"secret")
    assert chain.recall(replace(HERE, address="192.0.2.9"), "ana", b"secret") is not None
    assert chain.recall(replace(HERE, protocol="pop3"), "ana", b"secret") is None


async def test_an_identity_that_has_expired_is_asked_for_again() -> None:
    users = Careful({"ana": b"secret"})
    users.expires_at = 1.0  # long ago
    chain = Chain([("one", users)])
    await decided(chain, "ana", b"secret")
    assert chain.recall(HERE, "ana", b"secret") is None


async def test_what_is_kept_has_a_bound_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("murder.auth.remembered.MAX_USERS", 10)
    users = Careful({f"u{n}": b"the-password" for n in range(30)})
    chain = Chain([("one", users)])
    for user in users.passwords:
        assert await decided(chain, user, b"the-password") == "one"
    kept = chain._remembered._users
    assert len(kept) == 10
    assert "the-password" not in repr(kept)
    assert chain.recall(HERE, "u0", b"the-password") is None
    assert chain.recall(HERE, "u29", b"the-password") is not None


async def test_scram_is_there_only_where_every_plugin_has_secrets(tmp_path: Path) -> None:
    from plugins.auth_file import Settings, UserFile

    users = UserFile(tmp_path / "users", Settings(log2_cost=1))
    assert Chain([("auth_file", users)]).has_scram
    assert not Chain([("auth_file", users), ("one", Directory({}))]).has_scram


OF_OLD = """
from murder.api import Identity, hookimpl

class Everybody:
    async def verify(self, user: str, password: bytes) -> Identity | None:
        return Identity(user, frozenset({"staff"})) if password == b"open" else None

    async def lookup(self, user: str) -> Identity | None:
        return Identity(user) if user == "ana" else None

@hookimpl
def make_auth_backend(): return Everybody()
"""


async def test_a_plugin_of_two_methods_is_all_it_takes(tmp_path: Path) -> None:
    file = tmp_path / "auth_of_old.py"
    file.write_text(OF_OLD)
    spec = importlib.util.spec_from_file_location("auth_of_old", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    chain = Chain([("old", module.make_auth_backend()), ("new", Careful({"ben": b"ben"}))])
    found = await chain.decide(HERE, "ana", b"open")
    assert found is not None
    assert found.identity == Identity("ana", frozenset({"staff"}))
    assert await chain.decide(HERE, "ana", b"wrong") is None
    assert await decided(chain, "ben", b"ben") == "new"
    said = [(one.plugin, one.said) for one in await chain.try_out(HERE, "ben", b"no")]
    assert said == [("old", "unknown"), ("new", "wrong")]


async def test_who_hashes_shares_the_processors_with_the_other_workers() -> None:
    """Four workers with four processors hash four passwords at a time, not sixteen: each takes megabytes, too."""

    class Hashes(Careful):
        checks_at_once = 4
        now = most = 0

        async def take_time(self, password: bytes) -> None:
            pass

        async def check(
            self, attempt: LoginAttempt, user: str, password: bytes
        ) -> Identity | Denied:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0)
            self.now -= 1
            return Denied.WRONG

    for workers, most in ((1, 4), (2, 2), (4, 1), (16, 1)):
        backend = Hashes({})
        chain = Chain([("file", backend)], workers=workers)
        await asyncio.gather(*(chain.decide(HERE, f"u{one}", b"x") for one in range(9)))
        assert backend.most == most


def workers_of(users: Careful) -> list[Chain]:
    number = allocate(3)
    made = [Chain([("one", users)], counts=Counts.of(number, own)) for own in range(2)]
    os.close(number)
    return made


async def test_a_new_password_puts_the_old_one_out_in_all_workers() -> None:
    users = Careful({"ana": b"old"})
    first, second = workers_of(users)
    assert await decided(first, "ana", b"old") == "one"
    assert await decided(second, "ana", b"old") == "one"
    assert first.recall(HERE, "ana", b"old") is not None  # the same one is no other
    users.passwords["ana"] = b"new"
    assert await decided(second, "ana", b"new") == "one"
    assert first.recall(HERE, "ana", b"old") is None
    assert await decided(first, "ana", b"old") == ""
    assert await decided(first, "ana", b"new") == "one"
    assert second.recall(HERE, "ana", b"new") is not None


async def test_an_answer_that_comes_late_does_not_bring_the_old_password_back() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Careful):
        async def check(
            self, attempt: LoginAttempt, user: str, password: bytes
        ) -> Identity | Denied:
            answer = await super().check(attempt, user, password)
            if password == b"old":
                entered.set()
                await go_on.wait()
            return answer

    users = Slow({"ana": b"old"})
    first, second = workers_of(users)
    late = asyncio.ensure_future(first.decide(HERE, "ana", b"old"))
    await entered.wait()
    users.passwords["ana"] = b"new"
    assert await decided(second, "ana", b"new") == "one"
    go_on.set()
    assert await late is not None
    assert first.recall(HERE, "ana", b"old") is None
    assert second.recall(HERE, "ana", b"new") is not None


async def test_what_passwords_leave_in_shared_memory_is_keyed() -> None:
    left = []
    for _ in range(2):  # two nodes
        counts = Counts.alone()
        chain = Chain([("one", Careful({"ana": b"secret"}))], counts=counts)
        assert await decided(chain, "ana", b"secret") == "one"
        board = chain._remembered._board
        assert board is not None
        left.append(next(board.rows("ana")).count)
    assert left[0] != left[1]


class Diagnosed(Directory):
    """One that looks at what it asks."""

    async def diagnose(self) -> Sequence[Fault]:
        return ()


async def test_a_look_that_takes_longer_than_a_login_may_is_told() -> None:
    chain = Chain([("directory", Diagnosed({}))])
    assert await chain.faults(60) == []
    ((name, fault),) = await chain.faults(-1)
    assert name == "directory" and "to say so" in fault.what and "auth.timeout_s" in fault.cure
