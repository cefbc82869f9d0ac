"""Users in a file: right passwords get in, wrong ones and unknown users do not and cost the same."""

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import scramp  # type: ignore[import-untyped]  # it has no types

from murder.api import AuthBackend, HasScramSecrets, Identity, ManagesUsers
from murder.errors import Refusal
from plugins.auth_file import (
    Settings,
    UserFile,
    format_record,
    make_auth_backend,
    make_record,
    parse_record,
)

T = TypeVar("T")
QUICK = Settings(log2_cost=4, scram_iterations=4096)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def made(folder: Path, settings: Settings = QUICK, **users: str) -> UserFile:
    backend = make_auth_backend(settings, folder)
    run(backend.set_passwords({user: word.encode() for user, word in users.items()}))
    return backend


def test_it_has_the_powers_it_claims(tmp_path: Path) -> None:
    backend: AuthBackend = UserFile(tmp_path / "users", QUICK)
    assert isinstance(backend, HasScramSecrets)
    assert isinstance(backend, ManagesUsers)


def test_a_right_password_gets_in_and_no_other(tmp_path: Path) -> None:
    backend = made(tmp_path, anna="sésame")
    assert run(backend.verify("anna", "sésame".encode())) == Identity("anna")
    assert run(backend.verify("Anna", "sésame".encode())) == Identity("anna")
    assert run(backend.verify("anna", b"sesame")) is None
    assert run(backend.verify("anna", b"")) is None
    assert run(backend.verify("anna", b"x" * 5000)) is None
    assert run(backend.verify("bert", "sésame".encode())) is None
    assert run(backend.lookup("anna")) == Identity("anna")
    assert run(backend.lookup("bert")) is None


def test_a_remembered_password_is_forgotten_when_it_changes(tmp_path: Path) -> None:
    backend = made(tmp_path, anna="old")
    assert run(backend.verify("anna", b"old")) is not None
    other = UserFile(tmp_path / "users", QUICK)
    run(other.set_passwords({"anna": b"new"}))
    assert run(backend.verify("anna", b"old")) is None
    assert run(backend.verify("anna", b"new")) is not None
    assert run(other.remove("anna"))
    assert not run(other.remove("anna"))
    assert run(backend.verify("anna", b"new")) is None


def test_a_remembered_password_costs_nothing(tmp_path: Path) -> None:
    backend = made(tmp_path, Settings(log2_cost=14), anna="secret")
    began = time.process_time()
    assert run(backend.verify("anna", b"secret")) is not None
    first = time.process_time() - began
    began = time.process_time()
    assert run(backend.verify("anna", b"secret")) is not None
    assert time.process_time() - began < first / 3


def test_an_unknown_user_costs_what_a_wrong_password_costs(tmp_path: Path) -> None:
    backend = made(tmp_path, Settings(log2_cost=14), anna="secret")

    def cost(user: str) -> float:
        began = time.process_time()
        assert run(backend.verify(user, b"wrong")) is None
        return time.process_time() - began

    cost("anna")
    known, unknown = min(cost("anna") for _ in range(3)), min(cost("bert") for _ in range(3))
    assert known / 3 < unknown < known * 3


def test_scram_proves_the_same_password(tmp_path: Path) -> None:
    backend = made(tmp_path, anna="secret")
    secret = run(backend.scram_secret("anna", "SCRAM-SHA-256"))
    assert secret is not None
    assert run(backend.scram_secret("anna", "SCRAM-SHA-1")) is None
    assert run(backend.scram_secret("bert", "SCRAM-SHA-256")) is None
    mechanism = scramp.ScramMechanism("SCRAM-SHA-256")
    server = mechanism.make_server(
        lambda _user: (secret.salt, secret.stored_key, secret.server_key, secret.iterations)
    )
    client = scramp.ScramClient(["SCRAM-SHA-256"], "anna", "secret")
    server.set_client_first(client.get_client_first())
    client.set_server_first(server.get_server_first())
    server.set_client_final(client.get_client_final())
    client.set_server_final(server.get_server_final())


def test_a_line_reads_as_it_was_written() -> None:
    record = make_record("anna", b"secret", QUICK, frozenset({"staff", "all"}))
    assert parse_record(format_record(record)) == record


def test_no_password_is_in_the_file_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    made(tmp_path, anna="hush-hush")
    assert b"hush" not in (tmp_path / "users").read_bytes()
    assert (tmp_path / "users").stat().st_mode & 0o777 == 0o600


def test_writers_at_once_lose_nobody(tmp_path: Path) -> None:
    backends = [UserFile(tmp_path / "users", QUICK) for _ in range(8)]

    async def all_at_once() -> None:
        await asyncio.gather(
            *(one.set_passwords({f"user{n}": b"x"}) for n, one in enumerate(backends))
        )

    run(all_at_once())
    assert {who.user for who in run(backends[0].users())} == {f"user{n}" for n in range(8)}


def test_groups_stay_when_the_password_changes(tmp_path: Path) -> None:
    backend = made(tmp_path, anna="a")
    file = tmp_path / "users"
    file.write_text(file.read_text().rstrip("\n") + "staff\n")
    run(backend.set_passwords({"anna": b"b"}))
    assert run(backend.verify("anna", b"b")) == Identity("anna", frozenset({"staff"}))


@pytest.mark.parametrize("user", ["", "a b", "a:b", "a/b", "a\n", "a%", "#a", "x" * 300])
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, user: str) -> None:
    backend = UserFile(tmp_path / "users", QUICK)
    with pytest.raises(Refusal):
        run(backend.set_passwords({user: b"x"}))
    with pytest.raises(Refusal):
        run(backend.set_passwords({"anna": b""}))
    assert not (tmp_path / "users").exists()


def test_a_spoilt_file_leaves_the_users_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = made(tmp_path, anna="secret")
    assert run(backend.verify("anna", b"secret")) is not None
    (tmp_path / "users").write_text("nonsense\n")
    assert run(backend.verify("anna", b"secret")) is not None
    assert "line 1" in caplog.text
    with pytest.raises(Refusal, match="mend it by hand"):
        run(backend.set_passwords({"bert": b"x"}))


def test_a_file_without_users_is_told_as_one_that_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = made(tmp_path)
    (tmp_path / "users").touch()
    assert run(backend.verify("anna", b"secret")) is None
    assert "users has no users: nobody can log in by it" in caplog.text
