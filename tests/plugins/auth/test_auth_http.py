"""The contract of nginx's mail proxy: a script in this test answers both nginx and murder, and hears the same of both."""

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from murder.api import Denied, Identity, LoginAttempt
from murder.errors import UpstreamFailure, UpstreamKind
from plugins.auth_http import AuthHttp, Settings, escaped
from tests.conftest import cannot_run
from tests.kit.ports import free_port
from tests.kit.threads import in_a_thread
from tests.kit.waiting import until_soon

HERE = LoginAttempt("imap", "fe1.test", "192.0.2.1", is_tls=True, number=2)
ODD = b"p%a s\xc3\xa9\x01\r\n:"


class Script(ThreadingHTTPServer):
    """As a site has one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/auth"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Script

    def do_GET(self) -> None:
        self.server.asked.append({name.lower(): value for name, value in self.headers.items()})
        user = unquote_to_bytes(self.headers["Auth-User"])
        right = unquote_to_bytes(self.headers["Auth-Pass"]) in (b"secret", ODD)
        self.send_response(500 if user == b"broken" else 200)
        self.send_header("Content-Length", "0")
        if user == b"busy":
            self.send_header("Auth-Status", "Try later")
            self.send_header("Auth-Error-Code", "454 4.3.0")
        elif user in (b"ana", b"anna") and right:
            for name, value in {
                "Auth-Status": "OK",
                "Auth-Server": "192.0.2.80",
                "Auth-Port": "1143",
                "Auth-Groups": "staff, board",
            }.items():
                self.send_header(name, value)
        elif user != b"silent":
            self.send_header("Auth-Status", "Invalid login or password")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def script() -> Iterator[Script]:
    with in_a_thread(Script()) as server:
        yield server


async def test_a_script_says_who_is_who_and_where() -> None:
    with script() as server:
        backend = AuthHttp(Settings(url=server.url, key="shared", headers=("X-Site: one",)))
        expected = Identity(
            "ana", frozenset({"staff", "board"}), host="192.0.2.80", fields={"port": "1143"}
        )
        assert await backend.check(HERE, "ana", b"secret") == expected
        assert await backend.check(HERE, "ana", ODD) == expected
        asked = server.asked[0]
        assert (asked["auth-method"], asked["auth-protocol"]) == ("plain", "imap")
        assert (asked["client-ip"], asked["auth-login-attempt"]) == ("192.0.2.1", "2")
        assert (asked["x-auth-key"], asked["x-site"], asked["auth-ssl"]) == ("shared", "one", "on")
        assert await backend.check(HERE, "ana", b"wrong") is Denied.UNKNOWN
        assert await backend.check(HERE, "ana", b"") is Denied.UNKNOWN
        assert await backend.diagnose() == []


async def test_what_is_no_answer_is_no_wrong_password() -> None:
    with script() as server:
        backend = AuthHttp(Settings(url=server.url))
        for user, kind in (
            ("busy", UpstreamKind.AUTH_TEMPORARY),
            ("broken", UpstreamKind.PROTOCOL),
            ("silent", UpstreamKind.PROTOCOL),
        ):
            with pytest.raises(UpstreamFailure) as failed:
                await backend.check(HERE, user, b"secret")
            assert failed.value.kind is kind


async def test_a_script_that_is_away_is_told_with_its_cure() -> None:
    port = free_port()
    backend = AuthHttp(Settings(url=f"http://127.0.0.1:{port}/auth"))
    with pytest.raises(UpstreamFailure) as failed:
        await backend.check(HERE, "ana", b"secret")
    assert failed.value.kind is UpstreamKind.CONNECT
    (fault,) = await backend.diagnose()
    assert "plugins.auth_http.url" in fault.cure


async def test_a_certificate_that_nobody_vouches_for_is_told(tmp_path: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    with script() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = server.url.replace("http:", "https:").replace("127.0.0.1", "localhost")
        (fault,) = await AuthHttp(Settings(url=url)).diagnose()
        assert "self-signed" in fault.what
        assert "plugins.auth_http.ca" in fault.cure
        trusting = AuthHttp(Settings(url=url, ca=tmp_path / "cert.pem"))
        assert isinstance(await trusting.check(HERE, "ana", b"secret"), Identity)


def test_settings_that_would_end_a_header_are_refused() -> None:
    for headers in (("no colon",), ("X: a\r\nY: b",)):
        with pytest.raises(ValueError, match="headers are"):
            Settings(headers=headers)
    with pytest.raises(ValueError, match="url begins"):
        Settings(url="ftp://x")


NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
load_module modules/ngx_mail_module.so;
events {{ worker_connections 64; }}
mail {{
  auth_http {url}; auth_http_timeout 5s; imap_auth plain login;
  server {{ listen 127.0.0.1:{port}; protocol imap; }}
}}
"""


async def test_nginx_asks_the_same_script_the_same(tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    modules = Path("/usr/lib/nginx/modules/ngx_mail_module.so")
    if nginx is None or not modules.exists():
        cannot_run("nginx with its mail module (Debian: nginx libnginx-mod-mail) is not installed")
    with script() as server:
        port = free_port()
        file = tmp_path / "nginx.conf"
        text = NGINX.format(folder=tmp_path, url=server.url[7:], port=port)
        file.write_text(text.replace("modules/ngx", str(modules.parent) + "/ngx"))
        running = subprocess.Popen([nginx, "-c", str(file), "-p", str(tmp_path)])
        try:
            await until_soon(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await reader.readline()
            writer.write(b'a LOGIN nobody "p%a s"\r\n')
            await reader.readline()
            writer.close()
        finally:
            running.terminate()
            await asyncio.to_thread(running.wait)
        theirs = server.asked[0]
        attempt = replace(HERE, address="127.0.0.1", is_tls=False, number=1)
        assert await AuthHttp(Settings(url=server.url)).check(attempt, "nobody", b"p%a s") is (
            Denied.UNKNOWN
        )
        ours = server.asked[1]
        names = [name for name in theirs if name.startswith(("auth-", "client-ip"))]
        assert {name: ours.get(name) for name in names} == {name: theirs[name] for name in names}


def test_octets_that_would_end_a_header_are_escaped() -> None:
    assert escaped(b"a%b c\r\n\xff:") == "a%25b%20c%0D%0A%FF:"
