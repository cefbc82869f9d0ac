"""A mechanism that a plugin brings is in the capabilities, and lets in whom it says: a file in a folder, and its name."""

import base64
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from murder.api.sasl import BUILT_IN, Mechanism
from murder.auth.gate import Gate
from murder.auth.penalty import Penalties
from murder.config import AuthConfig, ConfigError, load_config
from murder.hooks import Plugins, load_plugins
from murder.roles.frontend.imap.dialogue import FrontendImap
from tests.kit.peer import Peer
from tests.kit.waiting import Naps
from tests.rooms.frontend.server import Parts, Running, running_frontend

HERE = Path(__file__).parent


def site(folder: Path, text: str = "") -> Plugins:
    """The plugins of a configuration that names the toy."""
    (folder / "site").mkdir()
    shutil.copy(HERE / "sasl_toy.py", folder / "site")
    file = folder / "murder.toml"
    file.write_text(
        '[node]\nname = "fe1.test"\ndata = "data"\n'
        f'[plugins]\npath = ["site"]\nuse = ["sasl_toy"]\n{text}'
    )
    return load_plugins(load_config(file), ["frontend"])


class WithToy(Parts):
    """The parts of a frontend with the site's mechanisms."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins

    def mechanisms(self) -> Sequence[Mechanism]:
        return self.plugins.mechanisms()


def frontend(folder: Path, failure_delay_s: float = 0.0) -> AbstractAsyncContextManager[Running]:
    auth = AuthConfig(failure_delay_s=failure_delay_s)
    return running_frontend(folder, {}, {}, parts=WithToy(site(folder)), auth=auth)


@asynccontextmanager
async def connected(running: Running, protocol: str) -> AsyncIterator[Peer]:
    peer = await Peer.at(running.ports[protocol])
    try:
        yield peer
    finally:
        await peer.close()


def in_base64(text: str) -> bytes:
    return base64.b64encode(text.encode())


async def test_it_is_offered_wherever_somebody_logs_in(tmp_path: Path) -> None:
    async with frontend(tmp_path) as running:
        async with connected(running, "imap") as imap:
            assert b"AUTH=PLAIN AUTH=LOGIN AUTH=X-TOY" in await imap.line()
        async with connected(running, "pop3") as pop3:
            await pop3.line()
            pop3.send(b"CAPA\r\n")
            assert b"SASL PLAIN LOGIN X-TOY" in await pop3.until(b".")
        async with connected(running, "lmtp") as lmtp:
            await lmtp.line()
            lmtp.send(b"LHLO me\r\n")
            assert b"250-AUTH PLAIN LOGIN X-TOY" in await lmtp.until(b"250 ")


async def test_who_keeps_to_it_is_in(tmp_path: Path) -> None:
    async with frontend(tmp_path) as running, connected(running, "imap") as imap:
        await imap.line()
        imap.send(b"a AUTHENTICATE X-TOY " + in_base64("mira") + b"\r\n")
        assert await imap.line() == b"+ " + in_base64("backwards?")
        imap.send(in_base64("mira") + b"\r\n")
        assert (await imap.line()).startswith(b"a NO [AUTHENTICATIONFAILED]")
        imap.send(b"b AUTHENTICATE X-TOY\r\n")
        assert await imap.line() == b"+ " + in_base64("who?")
        imap.send(in_base64("away") + b"\r\n")
        assert (await imap.line()).startswith(b"b NO [UNAVAILABLE]")
        imap.send(b"c AUTHENTICATE X-TOY " + in_base64("mira") + b"\r\n")
        await imap.line()
        imap.send(in_base64("arim") + b"\r\n")
        assert (await imap.line()).startswith(b"c OK")
        assert running.role.frontend is not None
        (session,) = running.role.frontend.sessions
        login = cast(FrontendImap, session).login
        assert login is not None
        assert (login.user, login.identity.groups) == ("mira", frozenset({"imap"}))


async def test_what_breaks_off_behind_its_claim_counts_as_a_guess(tmp_path: Path) -> None:
    naps = Naps()
    async with frontend(tmp_path) as running:
        assert running.role.frontend is not None
        penalties = Penalties(sleep=naps.sleep, clock=naps.clock)
        running.role.frontend.gate.penalties = penalties
        async with connected(running, "imap") as imap:
            await imap.line()
            for told in ("nope", "nope"):
                imap.send(b"a AUTHENTICATE X-TOY " + in_base64("mira") + b"\r\n")
                await imap.line()
                imap.send(in_base64(told) + b"\r\n")
                await imap.line()
    assert len(naps.taken) >= 2


def test_two_with_one_name_stop_the_start(tmp_path: Path) -> None:
    plugins = site(tmp_path, '[plugins.sasl_toy]\nname = "PLAIN"\n')
    with pytest.raises(ConfigError, match="sasl_toy: there is a mechanism PLAIN already"):
        plugins.mechanisms()


def test_names_that_are_none_stop_the_start(tmp_path: Path) -> None:
    plugins = site(tmp_path, '[plugins.sasl_toy]\nname = "toy mechanism"\n')
    with pytest.raises(ConfigError, match="make_mechanisms failed: Misuse: 'toy mechanism'"):
        plugins.mechanisms()


class _Certified:
    certificate = object()
    is_tls = True


class _Users(Parts):
    async def scram_secret(self, user: str, mechanism: str) -> None:
        return None


def test_murders_own_are_known_to_the_api_and_ordered() -> None:
    gate = Gate(_Users())
    offered = gate.mechanisms(_Certified(), "imap")  # type: ignore[arg-type] # all it looks at
    assert offered == ("EXTERNAL", "SCRAM-SHA-256", "PLAIN", "LOGIN")
    assert set(offered) == BUILT_IN
    assert "LOGIN" not in gate.mechanisms(_Certified(), "mupdate")  # type: ignore[arg-type] # all it looks at
