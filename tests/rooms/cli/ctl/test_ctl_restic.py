"""That restic, which carries a backup away, does not wait for ever for a server that stands still."""

import json
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from murder.admin.cli.ctl.restic import carry_away
from murder.errors import Refusal
from tests.conftest import cannot_run
from tests.kit.demo import wanted
from tests.kit.threads import in_a_thread

STALL_S = 3.0  # more than twice as long as it takes restic to say how far it is


class Repository(ThreadingHTTPServer):
    """A server of restic's REST protocol in memory; while `stalls`, it takes data and does not answer."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.stalls = False
        self.stalled = 0  # so many requests
        self.over = threading.Event()

    @property
    def name(self) -> str:
        return f"rest:http://127.0.0.1:{self.server_address[1]}/"

    def kinds(self, kind: str) -> set[str]:
        return {path for path in list(self.files) if path.startswith(f"/{kind}/")}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Repository

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, code: int, body: bytes = b"") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.endswith("/") and path.count("/") == 2:
            names = [one.rpartition("/")[2] for one in list(self.server.files) if path in one]
            return self._answer(200, json.dumps(names).encode())
        if (octets := self.server.files.get(path)) is None:
            return self._answer(404)
        begin, _, end = self.headers.get("Range", "bytes=0-")[6:].partition("-")
        part = octets[int(begin) : int(end) + 1 if end else None]
        return self._answer(206 if "Range" in self.headers else 200, part)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        octets = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.stalls and self.path.startswith("/data/"):
            self.server.stalled += 1
            self.server.over.wait()
        self.server.files[self.path] = octets
        self._answer(200)

    def do_DELETE(self) -> None:
        self.server.files.pop(self.path, None)
        self._answer(200)


class Silent(socketserver.StreamRequestHandler):
    """It takes a question, and does not answer it; or with an octet now and then."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Standing)
        self.rfile.readline()
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" if server.drips else b""
        )
        with suppress(OSError):
            while not server.over.wait(0.2):
                self.wfile.write(b"x" if server.drips else b"")


class Standing(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, drips: bool) -> None:
        super().__init__(("127.0.0.1", 0), Silent)
        self.drips = drips
        self.over = threading.Event()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if missing := wanted("restic"):
        cannot_run(missing)
    for name in ("RESTIC_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("RESTIC_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "vault").mkdir()
    for number in range(20):
        (tmp_path / "vault" / f"{number}").write_bytes(b"%d" % number * 1_000_000)
    yield tmp_path / "vault"


@pytest.mark.parametrize("drips", [False, True])
async def test_an_s3_that_never_answers_or_an_octet_at_a_time_is_given_up(
    folder: Path, drips: bool
) -> None:
    with in_a_thread(Standing(drips)) as server:
        place = f"s3:http://127.0.0.1:{server.server_address[1]}/mail"
        with pytest.raises(Refusal, match=r"come no further for .* and was ended: does s3:http"):
            await carry_away(place, folder, STALL_S)
        server.over.set()


async def test_one_that_stands_still_in_the_midst_is_given_up_and_the_next_run_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with in_a_thread(Repository()) as server:
        subprocess.run(["restic", "-q", "-r", server.name, "init"], check=True, timeout=120)
        server.stalls = True
        with pytest.raises(Refusal, match="come no further"):
            await carry_away(server.name, folder, 2 * STALL_S)
        server.over.set()
        assert server.stalled
        assert server.kinds("snapshots") == set()
        server.stalls = False
        await carry_away(server.name, folder, 120.0)
        assert len(server.kinds("snapshots")) == 1
        assert "copied to" in capsys.readouterr().err
        back = ["restic", "-q", "-r", server.name, "restore", "latest", "--target"]
        subprocess.run([*back, str(tmp_path / "back")], check=True, timeout=120)
        copy = Path(str(tmp_path / "back") + str(folder))
        assert {one.name: one.read_bytes() for one in copy.iterdir()} == {
            one.name: one.read_bytes() for one in folder.iterdir()
        }
