"""A real BIND (Debian's) with one zone that takes changes by a TSIG key."""

import base64
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kit.demo import wanted
from tests.kit.ports import free_port
from tests.kit.waiting import until

NAMED = "/usr/sbin/named"
KEY = base64.b64encode(b"k" * 32).decode()
CONFIG = """\
key "murder" {{ algorithm hmac-sha256; secret "{key}"; }};
key "reader" {{ algorithm hmac-sha256; secret "{key}"; }};
options {{
  directory "{folder}";
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  pid-file "{folder}/pid";
  session-keyfile none;
  recursion no;
}};
controls {{ }};
zone "{zone}" {{
  type primary;
  file "{folder}/zone";
  update-policy {{ grant murder zonesub ANY; }};
  allow-transfer {{ key murder; key reader; }};
}};
"""
ZONE = """\
$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
www CNAME web.example.org.
"""


def why_not() -> str:
    """Why it cannot run here; "" if it can."""
    return wanted(NAMED)


@dataclass(frozen=True)
class Bind:
    """One that runs."""

    folder: Path
    port: int

    def cname(self, name: str) -> str:
        """What it answers; "" for nothing."""
        import dns.message
        import dns.query

        asked = dns.message.make_query(name, "CNAME")
        answer = dns.query.tcp(asked, "127.0.0.1", timeout=60, port=self.port)
        return str(answer.answer[0][0]) if answer.answer else ""


@contextmanager
def bind(zone: str, port: int = 0) -> Iterator[Bind]:
    """Primary of this zone, with `ZONE` in it; at this port where one is given."""
    folder, port = Path(tempfile.mkdtemp(prefix="murder-bind-")), port or free_port()
    (folder / "named.conf").write_text(CONFIG.format(folder=folder, port=port, zone=zone, key=KEY))
    (folder / "zone").write_text(ZONE)
    with (folder / "log").open("w") as log:
        command = [NAMED, "-g", "-n", "1", "-c", str(folder / "named.conf")]
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(answers, "named listens")
        yield Bind(folder, port)
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder)
