"""One gate for every mechanism: who exists is told to nobody, what is tried is counted, what is logged is safe to read."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from murder.api.auth import AuthBackend, Denied, Identity, LoginAttempt, ScramSecret
from murder.auth.app_passwords import AppPasswords
from murder.auth.chain import Chain
from murder.auth.decoys import decoy_key_of
from murder.auth.exchange import run_sasl
from murder.auth.gate import Gate, NotAdmitted, as_given
from murder.auth.penalty import Penalties
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.identity import Login
from murder.model.sasl import PlainCredentials, ProvenCredentials
from murder.session.sasl import ScramClient
from plugins.auth_file import Settings, UserFile
from plugins.auth_http import AuthHttp
from plugins.auth_http import Settings as HttpSettings
from plugins.auth_pam.hooks import Pam
from plugins.auth_pam.hooks import Settings as PamSettings
from plugins.auth_saslauthd import Saslauthd
from plugins.auth_saslauthd import Settings as SaslauthdSettings
from tests.kit.waiting import turns, until_soon

QUICK = Settings(log2_cost=4, scram_iterations=4096)
ELSEWHERE = "192.0.2.1"


class Peer:
    """As much of a connection as a gate looks at."""

    certificate = None
    user_certificate = b""
    is_tls = True
    is_lost = False
    peer = ELSEWHERE
    peer_port = 1143
    local_address = ("192.0.2.9", 143)
    attempts = 0
    hops_left = 5
    cid = "1-1"

    def hold_off(self) -> None:
        pass


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


async def gate_of(folder: Path) -> Gate:
    users = UserFile(folder / "users", QUICK)
    await users.set_passwords({"ana": b"secret"})
    return Gate(users, penalties=Penalties(sleep=no_sleep), proxies=["ops"])


async def scram(gate: Gate, user: str, password: str, *, gives_up: bool = False) -> bytes:
    """The challenge; raises what the exchange ends in."""
    client, challenges = ScramClient(user, password), []

    async def ask(challenge: bytes) -> bytes:
        challenges.append(challenge)
        if gives_up:
            raise BadSyntax("cancelled")
        return client.answer(challenge)

    try:
        await run_sasl(gate, "SCRAM-SHA-256", client.first(), ask, Peer(), "imap")  # type: ignore[arg-type]
    except (Refusal, BadSyntax):
        pass
    return challenges[0]


def told(challenge: bytes) -> list[bytes]:
    return challenge.split(b",")[1:]


async def test_scram_goes_on_with_somebody_who_is_not_known(tmp_path: Path) -> None:
    gate = await gate_of(tmp_path)

    known = told(await scram(gate, "ana", "wrong"))
    unknown = told(await scram(gate, "nosuch", "wrong"))
    assert [field[:2] for field in unknown] == [field[:2] for field in known] == [b"s=", b"i="]
    assert len(unknown[0]) == len(known[0])
    assert unknown[1] == known[1]
    assert unknown == told(await scram(gate, "NoSuch", "other"))
    assert unknown != told(await scram(gate, "nobody", "other"))
    await gate.admit(PlainCredentials("ana", "", b"secret"), Peer())  # type: ignore[arg-type]


async def test_decoys_outlive_a_restart_and_a_change_of_users(tmp_path: Path) -> None:
    await gate_of(tmp_path)
    first = UserFile(tmp_path / "users", QUICK)
    decoy = first.scram_decoy("nosuch", "SCRAM-SHA-256")
    await first.set_passwords({"ana": b"changed", "aaa": b"new"})
    second = UserFile(tmp_path / "users", QUICK)
    again = second.scram_decoy("nosuch", "SCRAM-SHA-256")
    assert (again.salt, again.iterations) == (decoy.salt, decoy.iterations)
    assert again.stored_key != decoy.stored_key


async def test_a_file_without_a_key_for_decoys_has_one_all_the_same(tmp_path: Path) -> None:
    await gate_of(tmp_path)
    lines = (tmp_path / "users").read_text().splitlines(keepends=True)
    (tmp_path / "users").write_text("".join(line for line in lines if line[0] != "#"))
    salts = {
        UserFile(tmp_path / "users", QUICK).scram_decoy("nosuch", "SCRAM-SHA-256").salt
        for _ in range(2)
    }
    assert len(salts) == 1


class NoDecoys:
    """A plugin that has SCRAM secrets and knows nothing of decoys."""

    async def verify(self, user: str, password: bytes) -> Identity | None:
        return None

    async def lookup(self, user: str) -> Identity | None:
        return None

    async def scram_secret(self, user: str, mechanism: str) -> ScramSecret | None:
        return None


async def test_for_a_plugin_without_decoys_the_node_makes_them(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"private")
    challenges = []
    for _ in range(2):
        gate = Gate(
            NoDecoys(),
            penalties=Penalties(sleep=no_sleep),
            decoy_key=decoy_key_of(tmp_path / "key"),
        )
        challenges.append(told(await scram(gate, "nosuch", "wrong")))
    assert challenges[0] == challenges[1]


@pytest.mark.parametrize("user", ["ana", "nosuch"])
async def test_an_exchange_that_is_given_up_counts_as_a_wrong_password(
    tmp_path: Path, user: str
) -> None:
    gate = await gate_of(tmp_path)
    await scram(gate, user, "x", gives_up=True)
    assert gate.penalties.failures(ELSEWHERE, user) == 1


async def test_a_backend_that_is_away_counts_against_nobody() -> None:
    class Away(NoDecoys):
        async def verify(self, user: str, password: bytes) -> Identity | None:
            raise RuntimeError

    gate = Gate(Away(), penalties=Penalties(sleep=no_sleep))
    with pytest.raises(RuntimeError):
        await gate.admit(PlainCredentials("ana", "", b"x"), Peer())  # type: ignore[arg-type]
    assert gate.penalties.failures(ELSEWHERE, "ana") == 0


async def test_a_password_that_is_remembered_waits_for_no_hash(tmp_path: Path) -> None:
    gate = await gate_of(tmp_path)

    credentials = PlainCredentials("ana", "", b"secret")
    await gate.admit(credentials, Peer())  # type: ignore[arg-type]
    gate.auth.links[0].turnstile._free = 0  # all threads hash for others
    login = await gate.admit(credentials, Peer())  # type: ignore[arg-type]
    assert login.user == "ana"
    gate.auth_timeout_s = 0.001
    with pytest.raises(UpstreamFailure, match=r"auth\.timeout_s.*murder auth test USER.*load"):
        await gate.admit(PlainCredentials("ana", "", b"else"), Peer())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mechanism", "initial", "user", "code"),
    [
        ("PLAIN", b"\0ana\0wrong", "ana", Code.AUTHENTICATION_FAILED),
        ("PLAIN", b"bob\0ana\0secret", "ana", Code.AUTHORIZATION_FAILED),
        ("PLAIN", b"\0\x1b[2Jx\0wrong", "\\x1b[2Jx", Code.AUTHENTICATION_FAILED),
        ("PLAIN", b"\0" + b"x" * 300 + b"\0y", "x" * 128 + "...", Code.AUTHENTICATION_FAILED),
        ("LOGIN", b"ana", "ana", Code.AUTHENTICATION_FAILED),
        ("EXTERNAL", b"ana", "ana", Code.CANNOT),
        ("GSSAPI", b"", "", Code.CANNOT),
    ],
)
async def test_a_refusal_names_who_was_meant(
    tmp_path: Path, mechanism: str, initial: bytes, user: str, code: Code
) -> None:
    gate = await gate_of(tmp_path)

    async def ask(challenge: bytes) -> bytes:
        return b"wrong"

    with pytest.raises(NotAdmitted) as refused:
        await run_sasl(gate, mechanism, initial, ask, Peer(), "imap")  # type: ignore[arg-type]
    assert refused.value.user == user
    assert refused.value.code is code


@pytest.mark.parametrize(
    ("initial", "user", "proxy"),
    [
        (b"bob\0ana\0secret", "bob", "ana"),
        (b"Eve+x\0ana\0secret", "Eve", "ana"),
        (b"ana\0ana\0secret", "ana", ""),
        (b"boss\0ana\0secret", "", ""),
        (b"BOSS\0ana\0secret", "", ""),
        (b"bob\0boss\0secret", "", ""),
    ],
)
async def test_a_master_user_at_a_frontend_acts_for_users_and_never_for_an_administrator(
    tmp_path: Path, initial: bytes, user: str, proxy: str
) -> None:
    users = UserFile(tmp_path / "users", QUICK)
    await users.set_passwords({"ana": b"secret", "boss": b"secret"})
    gate = Gate(users, proxies=["ana"], admins=["boss"], keep_admin_password=True)

    async def ask(challenge: bytes) -> bytes:
        raise AssertionError

    exchange = run_sasl(gate, "PLAIN", initial, ask, Peer(), "imap")  # type: ignore[arg-type]
    if not user:
        with pytest.raises(NotAdmitted) as refused:
            await exchange
        assert refused.value.code is Code.AUTHORIZATION_FAILED
        return
    login, _ = await exchange
    assert (login.user, login.proxy, login.is_admin, login.password) == (user, proxy, False, None)


def test_names_in_a_log_are_short_and_plain() -> None:
    assert as_given("jürgen") == "jürgen"
    assert as_given("a\r\nb\u202e\udcff") == "a\\r\\nb\\u202e\\udcff"
    assert len(as_given("\1" * 10_000)) < 600
    # PLAIN's, as a name
    for message in ("\0ana\0secret", "ana\0ana\0secret", "ana\0secret", "\0\0ana"):
        assert as_given(message) == "ana"


async def test_a_master_user_is_in_as_another_but_no_administrator(tmp_path: Path) -> None:
    users = UserFile(tmp_path / "users", QUICK)
    await users.set_passwords({"ana": b"ana", "help": b"help", "boss": b"boss"})
    gate = Gate(users, masters=["help"], admins=["boss"], penalties=Penalties(sleep=no_sleep))

    async def admitted(authcid: str, password: bytes, authzid: str = "") -> tuple[str, str, bool]:
        given = PlainCredentials(authcid, authzid, password)
        login = await gate.admit(given, Peer(), "imap")  # type: ignore[arg-type]
        return login.user, login.master, login.is_admin

    assert await admitted("ana*help", b"help") == ("ana", "help", False)
    assert await admitted("help", b"help", "ana") == ("ana", "help", False)
    assert await admitted("help", b"help") == ("help", "", False)
    for authcid, password, authzid in (
        ("ana*help", b"ana", ""),
        ("help*ana", b"ana", ""),
        ("boss*help", b"help", ""),
        ("help", b"help", "boss"),
        ("ana", b"ana", "help"),
        ("*help", b"help", ""),
        ("ana*", b"ana", ""),
    ):
        with pytest.raises(Refusal):
            await admitted(authcid, password, authzid)


class Tokens(NoDecoys):
    """Knows users by their tokens only, as a provider does."""

    openid_configuration = scope = ""

    async def check_token(self, attempt: LoginAttempt, user: str, token: str) -> Identity | Denied:
        return Identity(token)


async def entered(gate: Gate, name: str) -> str:
    """As whom, or why not."""
    given = PlainCredentials(f"{name}*help", "", b"help")
    try:
        return (await gate.admit(given, Peer(), "imap")).user  # type: ignore[arg-type]
    except Refusal as refusal:
        return refusal.code.value


async def test_a_master_user_becomes_nobody_who_is_disabled_or_nowhere(tmp_path: Path) -> None:
    users = UserFile(tmp_path / "users", QUICK)
    await users.set_passwords({"ana": b"ana", "ben": b"ben", "help": b"help"})
    await users.set_disabled("ben", True)
    for plugins, has_inbox, mistyped in (
        ([("file", users)], None, "AUTHORIZATIONFAILED"),
        # who has a mailbox is somebody, also where no plugin can be asked
        ([("file", users)], lambda user: user == "anan", "anan"),
        ([("file", users), ("tokens", Tokens())], lambda _: False, "AUTHORIZATIONFAILED"),
        ([("file", users), ("tokens", Tokens())], None, "anan"),
    ):
        chain = Chain(plugins)  # type: ignore[arg-type]
        penalties = Penalties(sleep=no_sleep)
        gate = Gate(chain, masters=["help"], penalties=penalties, has_inbox=has_inbox)
        assert await entered(gate, "ana") == "ana"
        assert await entered(gate, "ben") == "CONTACTADMIN"
        assert await entered(gate, "Ben") == "CONTACTADMIN"
        assert await entered(gate, "anan") == mistyped
        assert penalties.failures(ELSEWHERE, "help") == 0  # the password was right


@pytest.mark.parametrize(
    "believer",
    [
        AuthHttp(HttpSettings(url="http://127.0.0.1/")),
        Pam(PamSettings()),
        Saslauthd(SaslauthdSettings()),
    ],
    ids=lambda plugin: type(plugin).__name__,
)
async def test_a_master_becomes_nobody_on_the_word_of_a_plugin_that_believes_in_anybody(
    believer: AuthBackend, tmp_path: Path
) -> None:
    users = UserFile(tmp_path / "users", QUICK)
    await users.set_passwords({"ana": b"ana", "help": b"help"})
    chain = Chain([("file", users), ("believer", believer)])
    for has_inbox, mistyped in (
        (lambda user: user == "ben", "AUTHORIZATIONFAILED"),
        (None, "anan"),  # no list knows better
    ):
        gate = Gate(chain, masters=["help"], has_inbox=has_inbox)
        for user in ("ana", "ben"):
            assert await entered(gate, user) == user
        if (known := await believer.lookup("Ben")) is not None and known.user == "ben":
            assert await entered(gate, "Ben") == "ben"  # as the plugin spells it
        assert await entered(gate, "anan") == mistyped


async def test_a_master_becomes_whom_a_plugin_behind_one_that_believes_in_anybody_knows(
    tmp_path: Path,
) -> None:
    """Before they have an INBOX, too."""
    users = UserFile(tmp_path / "users", QUICK)
    await users.set_passwords({"ana": b"ana", "ben": b"ben"})
    await users.set_disabled("ben", True)
    believer = AuthHttp(HttpSettings(url="http://127.0.0.1/"))
    chain = Chain([("believer", believer), ("file", users)])
    gate = Gate(chain, masters=["help"], has_inbox=lambda _: False)

    async def entered_as(name: str) -> str:
        given = ProvenCredentials("help", name, b"", "GSSAPI", Identity("help"))
        try:
            return (await gate.admit(given, Peer(), "imap")).user  # type: ignore[arg-type]
        except Refusal as refusal:
            return refusal.code.value

    assert await entered_as("ana") == "ana"
    assert await entered_as("ben") == "CONTACTADMIN"
    assert await entered_as("anan") == "AUTHORIZATIONFAILED"


async def test_who_is_disabled_is_kept_out_whoever_else_knows_them(tmp_path: Path) -> None:
    """A password of another plugin, one for a program, a token, a ticket."""
    users = UserFile(tmp_path / "users", QUICK)
    await users.set_passwords({"ana": b"ana"})
    apps = AppPasswords(tmp_path)
    app = apps.add("ana", "phone").encode()

    class Elsewhere(Tokens):
        async def verify(self, user: str, password: bytes) -> Identity | None:
            return Identity(user) if password == b"other" else None

        async def lookup(self, user: str) -> Identity | None:
            return Identity(user)

    chain = Chain([("elsewhere", Elsewhere()), ("file", users)], apps=apps)
    gate = Gate(chain, penalties=Penalties(sleep=no_sleep))
    peer: Any = Peer()

    async def token() -> Login:
        async def ask(challenge: bytes) -> bytes:
            raise AssertionError(challenge)

        said = b"n,a=ana,\x01auth=Bearer ana\x01\x01"
        return (await run_sasl(gate, "OAUTHBEARER", said, ask, peer, "imap"))[0]

    ways: list[Callable[[], Awaitable[Login]]] = [
        lambda: gate.admit(PlainCredentials("ana", "", b"other"), peer, "imap"),
        lambda: gate.admit(PlainCredentials("ana", "", app), peer, "imap"),
        lambda: gate.admit(ProvenCredentials("ana", "", b""), peer, "imap"),
        token,
    ]
    for way in ways:
        assert (await way()).user == "ana"
    assert gate.admit_at_once("ana", b"other", peer, "imap", "LOGIN") is not None
    await users.set_disabled("ana", True)
    for way in ways:
        with pytest.raises(Refusal) as refused:
            await way()
        assert refused.value.code is Code.CONTACT_ADMIN
    assert gate.admit_at_once("ana", b"other", peer, "imap", "LOGIN") is None


async def test_a_password_of_a_program_is_used_by_who_gets_in_alone(tmp_path: Path) -> None:
    """A stranger to all plugins, who is disabled, and who would be another do not."""
    users = UserFile(tmp_path / "users", QUICK)
    await users.set_passwords({"ana": b"ana", "ben": b"ben"})
    await users.set_disabled("ben", True)
    apps = AppPasswords(tmp_path)
    passwords = {user: apps.add(user, "phone").encode() for user in ("ana", "ben", "nobody")}
    gate = Gate(Chain([("file", users)], apps=apps), penalties=Penalties(sleep=no_sleep))
    peer: Any = Peer()
    for user, authzid in (("nobody", ""), ("ben", ""), ("ana", "ben")):
        with pytest.raises(Refusal):
            await gate.admit(PlainCredentials(user, authzid, passwords[user]), peer, "imap")
    assert [apps.used_at(one) for one in apps.all()] == [None] * 3
    await gate.admit(PlainCredentials("ana", "", passwords["ana"]), peer, "imap")
    (of_ana,) = apps.all("ana")
    assert apps.used_at(of_ana) is not None


async def test_strangers_are_not_told_which_server_is_away(tmp_path: Path) -> None:
    class Away(NoDecoys):
        async def verify(self, user: str, password: bytes) -> Identity | None:
            raise UpstreamFailure(UpstreamKind.CONNECT, "ldap://inside.example.org", "refused")

    gate = Gate(Away(), penalties=Penalties(sleep=no_sleep))
    with pytest.raises(UpstreamFailure) as failed:
        await gate.admit(PlainCredentials("ana", "", b"x"), Peer())  # type: ignore[arg-type]
    assert failed.value.server == "authentication"
    assert failed.value.text == "ldap://inside.example.org: refused"  # for the log


class Directory:
    """One that looks up an entry, and asks for its password only where there is one: who is there takes longer."""

    def __init__(self) -> None:
        self.now = 1000.0

    async def verify(self, user: str, password: bytes) -> Identity | None:
        self.now += 0.3 if user == "ana" else 0.01
        return None

    async def lookup(self, user: str) -> Identity | None:
        return None


async def test_a_wrong_password_is_answered_as_late_whoever_was_meant() -> None:
    all_late = []
    for user in ("ana", "nosuch"):
        users = Directory()

        async def sleep(seconds: float, users: Directory = users) -> None:
            users.now += seconds

        clock = lambda users=users: users.now  # noqa: E731
        gate = Gate(users, penalties=Penalties(sleep=sleep, clock=clock))
        late = []
        for guess in (b"one", b"two", b"three", b"three"):
            began = users.now
            with pytest.raises(Refusal):
                await gate.admit(PlainCredentials("", user, guess), Peer(), "imap")  # type: ignore[arg-type]
            late.append(round(users.now - began, 6))
        all_late.append(late)
    assert all_late == [[2.0, 4.0, 8.0, 2.0]] * 2


async def test_hundreds_of_wrong_passwords_are_answered_one_in_each_turn_of_the_loop() -> None:
    """Each answer is a line of the log and a reply: 400 at once were 50 ms."""
    over = asyncio.get_running_loop().create_future()
    asleep = []

    async def sleep(seconds: float) -> None:
        asleep.append(seconds)
        await over

    gate = Gate(Directory(), penalties=Penalties(sleep=sleep, per_address=0))
    wrong = [PlainCredentials(f"user{number}", "", b"wrong") for number in range(40)]
    logins = [asyncio.create_task(gate.admit(one, Peer(), "imap")) for one in wrong]  # type: ignore[arg-type]
    await until_soon(lambda: len(asleep) == len(wrong))
    over.set_result(None)
    answered = [0]
    while answered[-1] < len(wrong):
        await turns()
        answered.append(sum(login.done() for login in logins))
    assert max(later - earlier for earlier, later in itertools.pairwise(answered)) <= 2
    assert all(isinstance(login.exception(), Refusal) for login in logins)
