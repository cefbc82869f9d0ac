"""Mail programs log in by tokens of an identity provider: neomutt, offlineimap. (curl, imaplib: plugins/auth.)"""

import asyncio
import base64
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from murder.api import AuthBackend
from murder.pki.authority import init_authority, issue
from tests.clients.offlineimap import write_configuration
from tests.clients.test_readers import screen_with, tmux
from tests.kit.demo import message, wanted
from tests.kit.peer import Peer
from tests.plugins.auth.test_auth_oauth import Provider, checking, provider
from tests.rooms.backend.server import Parts, memory_store, running_backend

SUBJECT = "by a token"


class ByTokens(Parts):
    """A backend that takes tokens."""

    def __init__(self, issuer: Provider) -> None:
        super().__init__(memory_store)
        self._users = checking(issuer)

    def auth_backends(self) -> Sequence[tuple[str, AuthBackend]]:
        return [("auth_oauth", self._users)]


@asynccontextmanager
async def with_mail(folder: Path, issuer: Provider) -> AsyncIterator[tuple[str, int]]:
    """Where anna has a mail."""
    parts = ByTokens(issuer)
    async with running_backend(folder, users=("anna",), parts=parts) as running:
        peer = await Peer.at(*running.address)
        await peer.until(b"* OK")
        response = b"user=anna\x01auth=Bearer %b\x01\x01" % issuer.token().encode()
        await peer.ok(b"AUTHENTICATE XOAUTH2 " + base64.b64encode(response))
        octets = message(SUBJECT)
        await peer.ok(b"APPEND INBOX {%d+}\r\n%b" % (len(octets), octets))
        await peer.close()
        yield running.address


@asynccontextmanager
async def under_tls(folder: Path, behind: tuple[str, int]) -> AsyncIterator[tuple[int, Path]]:
    """The same port, under TLS for `localhost`, and its certificate."""
    init_authority(folder)
    made = issue(folder, "localhost", ["frontend"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while octets := await reader.read(65536):
            writer.write(octets)
            await writer.drain()
        writer.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, outside = await asyncio.open_connection(*behind)
        try:
            await asyncio.gather(pipe(reader, outside), pipe(inside, writer))
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], folder / "ca.pem"
    finally:
        server.close()


@pytest.mark.skipif(bool(wanted("neomutt", "tmux")), reason=wanted("neomutt", "tmux"))
async def test_neomutt_reads_by_a_token(tmp_path: Path) -> None:
    with provider() as issuer:
        token = tmp_path / "token"
        token.write_text(issuer.token())
        async with (
            with_mail(tmp_path / "be", issuer) as place,
            under_tls(tmp_path, place) as (port, authority),
        ):
            rc = tmp_path / "rc"
            rc.write_text(
                f'set folder="imaps://anna@localhost:{port}/"\nset spoolfile="+INBOX"\n'
                f'set imap_authenticators="oauthbearer"\nset certificate_file="{authority}"\n'
                f'set imap_oauth_refresh_command="cat {token}"\nset header_cache=\n'
                f'set tmpdir="{tmp_path}"\n'
            )
            name = f"murder-tokens-{port}"
            words = ("new-session", "-d", "-x", "100", "-y", "30", f"neomutt -F {rc}")
            await asyncio.to_thread(tmux, name, *words)
            try:
                await asyncio.to_thread(screen_with, name, SUBJECT)
            finally:
                await asyncio.to_thread(tmux, name, "kill-server")


@pytest.mark.skipif(bool(wanted("offlineimap")), reason=wanted("offlineimap"))
async def test_offlineimap_fetches_by_a_token_and_says_that_one_has_expired(tmp_path: Path) -> None:
    with provider() as issuer:
        async with with_mail(tmp_path / "be", issuer) as place:

            def sync(token: str) -> "subprocess.CompletedProcess[str]":
                proof = f"auth_mechanisms = XOAUTH2\noauth2_access_token = {token}"
                file = write_configuration(tmp_path, "127.0.0.1", place[1], "anna", proof)
                return subprocess.run(
                    ["offlineimap", "-o", "-1", "-u", "basic", "-c", str(file)],
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                    env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
                )

            late = await asyncio.to_thread(sync, issuer.token(exp=1))
            assert late.returncode != 0
            done = await asyncio.to_thread(sync, issuer.token())
            assert done.returncode == 0, done.stdout + done.stderr
    (file,) = [one for part in ("new", "cur") for one in (tmp_path / "mail/INBOX" / part).iterdir()]
    assert SUBJECT in file.read_text()
