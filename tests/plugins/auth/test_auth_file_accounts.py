"""What a user file says beside the password: groups, who is disabled, what a password must be."""

from pathlib import Path

import pytest

from murder.api import Denied, Identity, LoginAttempt, ManagesGroups
from murder.auth.chain import Chain
from murder.errors import Code, Refusal
from plugins.auth_file import Settings, UserFile

QUICK = Settings(log2_cost=4, scram_iterations=4096)
HERE = LoginAttempt("imap", "fe1.test", "192.0.2.1", is_tls=True)


async def users(folder: Path, settings: Settings = QUICK) -> UserFile:
    backend = UserFile(folder / "users", settings)
    await backend.set_passwords({"anna": b"secret", "ben": b"ben"})
    return backend


async def test_groups_are_kept_and_a_new_password_leaves_them(tmp_path: Path) -> None:
    backend = await users(tmp_path)
    assert isinstance(backend, ManagesGroups)
    await backend.set_groups("Anna", {"staff", "board"})
    await backend.set_passwords({"anna": b"new"})
    other = UserFile(tmp_path / "users", QUICK)
    assert await other.verify("anna", b"new") == Identity("anna", frozenset({"staff", "board"}))
    with pytest.raises(Refusal, match="there is no user nobody"):
        await backend.set_groups("nobody", {"staff"})
    with pytest.raises(Refusal, match="must not contain ':'"):
        await backend.set_groups("anna", {"a:b"})
    assert (await other.lookup("anna") or Identity("")).groups == {"staff", "board"}


async def test_who_is_disabled_is_told_so_by_the_right_password_only(tmp_path: Path) -> None:
    backend = await users(tmp_path)
    assert isinstance(await backend.check(HERE, "anna", b"secret"), Identity)
    await backend.set_disabled("anna", True)
    assert backend.recall("anna", b"secret") is None
    assert await backend.check(HERE, "anna", b"wrong") is Denied.WRONG
    with pytest.raises(Refusal, match="disabled") as refused:
        await backend.check(HERE, "anna", b"secret")
    assert refused.value.code is Code.CONTACT_ADMIN
    assert await backend.verify("anna", b"secret") is None
    assert await backend.lookup("anna") is None
    assert await backend.scram_secret("anna", "SCRAM-SHA-256") is None
    assert await backend.disabled_users() == ["anna"]
    await backend.set_passwords({"anna": b"new"})  # is no way in
    assert await backend.verify("anna", b"new") is None
    await backend.set_disabled("anna", False)
    assert await backend.verify("anna", b"new") == Identity("anna")


async def test_who_is_of_another_plugin_is_kept_out_of_it(tmp_path: Path) -> None:
    """By a line of the file, which otherwise knows nothing of them, and which is gone with the lock."""
    backend = await users(tmp_path)
    before = (tmp_path / "users").read_text()
    await backend.set_disabled("Carl", True)
    await backend.set_disabled("carl", True)
    for other in (backend, UserFile(tmp_path / "users", QUICK)):
        assert other.is_locked_out("carl") and not other.is_locked_out("anna")
        assert await other.check(HERE, "carl", b"") is Denied.UNKNOWN  # the next one is asked
        assert await other.verify("carl", b"") is None
        assert await other.lookup("carl") is None
        assert await other.scram_secret("carl", "SCRAM-SHA-256") is None
        assert await other.disabled_users() == ["carl"]
        assert {known.user for known in await other.users()} == {"anna", "ben"}
    assert not await backend.remove("carl") and backend.is_locked_out("carl")
    with pytest.raises(Refusal, match="there is no user carl"):
        await backend.set_groups("carl", {"staff"})
    await backend.set_disabled("carl", False)
    assert (tmp_path / "users").read_text() == before and not backend.is_locked_out("carl")
    with pytest.raises(Refusal, match="there is no user carl"):
        await backend.set_disabled("carl", False)
    await backend.set_disabled("carl", True)
    # they are one of the file now, and kept out still
    await backend.set_passwords({"carl": b"carl"})
    assert await backend.verify("carl", b"carl") is None
    await backend.set_disabled("carl", False)
    assert await backend.verify("carl", b"carl") == Identity("carl")


async def test_a_file_of_none_but_those_kept_out_still_has_decoys(tmp_path: Path) -> None:
    backend = UserFile(tmp_path / "users", QUICK)
    await backend.set_disabled("carl", True)
    decoy = backend.scram_decoy("carl", "SCRAM-SHA-256")
    assert len(decoy.salt) == 16 and len(decoy.stored_key) == 32
    await backend.take_time(b"x")


@pytest.mark.parametrize(
    ("settings", "password", "says"),
    [
        (Settings(least_length=12), b"short", "12 characters at least"),
        (Settings(least_kinds=3), b"onlysmall1", "3 kinds at least"),
        (Settings(least_length=3), b"ANNA", "the user's name"),
    ],
)
async def test_a_site_says_what_a_password_must_be(
    tmp_path: Path, settings: Settings, password: bytes, says: str
) -> None:
    backend = UserFile(tmp_path / "users", settings)
    with pytest.raises(Refusal, match=says):
        await backend.set_passwords({"anna": password})
    assert await backend.users() == []


async def test_a_password_that_has_leaked_is_refused(tmp_path: Path) -> None:
    leaked = tmp_path / "leaked"
    leaked.write_bytes(b"123456\r\nhunter2\n\xff\xfe\n")
    backend = UserFile(tmp_path / "users", Settings(log2_cost=4, refused=leaked))
    with pytest.raises(Refusal, match="known to those who guess"):
        await backend.set_passwords({"anna": b"hunter2"})
    await backend.set_passwords({"anna": b"hunter22"})
    leaked.unlink()
    with pytest.raises(Refusal, match=r"plugins\.auth_file\.refused"):
        await backend.set_passwords({"anna": b"hunter22"})


async def test_who_is_not_in_the_file_costs_a_hash_only_where_nobody_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        async def verify(self, user: str, password: bytes) -> Identity | None:
            return Identity(user) if (user, password) == ("carl", b"carl") else None

        async def lookup(self, user: str) -> Identity | None:
            return None

    hashed: list[bytes] = []

    def count(record: object, password: bytes) -> bool:
        hashed.append(password)
        return False

    chain = Chain([("auth_file", await users(tmp_path)), ("other", Other())])
    monkeypatch.setattr("plugins.auth_file._is_right", count)
    assert await chain.decide(HERE, "carl", b"carl") is not None
    assert hashed == []
    assert await chain.decide(HERE, "nobody", b"x") is None
    assert hashed == [b"x"]
    assert await chain.decide(HERE, "anna", b"y") is None
    assert hashed == [b"x", b"y"]
