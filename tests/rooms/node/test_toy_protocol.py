"""A protocol is one value: one file with a service and one entry in `model.protocol`, in a copy of murder, and everything
knows it."""

import json
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.kit.checkout import copy_sources, replace_in, run_in
from tests.kit.ports import free_ports
from tests.kit.process import ROOT, Program

LIMIT_S = 60
LAST = "PROTOCOLS: Final[tuple[ProtocolSpec, ...]] = (IMAP, POP3, LMTP"
ENTRY = """, ProtocolSpec(
    "echo",
    (
        PortKey("echo", 7, "Echo (RFC 862).", "Its echo port.", '["*:7"]'),
        PortKey("echos", 1007, "Echo over TLS.", "Its echo-over-TLS port.", is_implicit=True),
    ),
    b"no room\\r\\n",
    {BACKEND: "murder.roles.backend.toy_echo:Echo"},
)"""
CONFIG = """\
[node]
name = "be1.example.org"
data = "data"
[backend]
workers = 1
imap = ["127.0.0.1:{imap}"]
echo = ["127.0.0.1:{echo}"]
max_connections_per_address = {room}
[plugins.auth_file]
file = "users"
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of murder with the toy."""
    home = copy_sources(tmp_path_factory.mktemp("copy"))
    shutil.copy(Path(__file__).with_name("toy_echo.py"), home / "murder" / "roles" / "backend")
    replace_in(home / "murder" / "model" / "protocol.py", LAST, LAST + ENTRY)
    return home


def write_config(folder: Path, imap: int, echo: int, room: int = 0) -> Path:
    file = folder / "murder.toml"
    file.write_text(CONFIG.format(imap=imap, echo=echo, room=room))
    (folder / "users").touch(mode=0o600)
    return file


def test_it_has_its_keys_in_the_configuration(copy: Path, tmp_path: Path) -> None:
    example = run_in(copy, "-m", "murder", "config", "example")
    keys = '# Echo (RFC 862).\n#echo = ["*:7"]\n# Echo over TLS.\n#echos = []\n'
    assert example.count(keys) == 2  # [frontend] and [backend]
    assert "# Its echo port.\n#echo = 7\n# Its echo-over-TLS port.\n#echos = 1007\n" in example
    file = write_config(tmp_path, 10143, 10007)
    shown = run_in(copy, "-m", "murder", "config", "show", "--config", str(file))
    assert 'echo = ["127.0.0.1:10007"]' in shown
    ours = (ROOT / "murder.toml.example").read_text()
    assert [line for line in example.splitlines() if "cho" not in line] == [
        line for line in ours.splitlines() if "cho" not in line
    ]


def test_a_demo_has_ports_for_it(copy: Path, tmp_path: Path) -> None:
    said = run_in(
        copy,
        "-c",
        "import json, pathlib, sys\n"
        "from murder.config import load_config\n"
        "from murder.admin.demo.plan import Options, last_port, nodes_of, prepare\n"
        "options = Options(pathlib.Path(sys.argv[1]), backends=1, port_base=20000)\n"
        "nodes = nodes_of(options)\n"
        "prepare(options, nodes)\n"
        "config = load_config(nodes[-1].config_file)\n"
        "print(json.dumps([nodes[1].ports, nodes[2].ports, last_port(options),\n"
        "    str(config.backend.echo[0]), config.server(nodes[2].name).echos]))\n",
        str(tmp_path),
    )
    frontend, backend, last, listened, called = json.loads(said)
    assert list(frontend) == ["imap", "imaps", "pop3", "pop3s", "lmtp", "sieve", "mupdate"]
    assert list(backend) == ["imap", "imaps", "pop3", "pop3s", "lmtp", "echo", "echos", "sieve"]
    assert "pop3s, lmtp, echo, echos, sieve." in " ".join(
        run_in(copy, "-m", "murder", "demo", "--help").split()
    )
    assert frontend["mupdate"] == 20000 + 6 + 8 + 1 < last
    assert (listened, called) == (f"127.0.0.1:{backend['echo']}", backend["echos"])


def test_operators_and_frontends_reach_it(copy: Path) -> None:
    said = run_in(
        copy,
        "-c",
        "import json\n"
        "from pathlib import Path\n"
        "from murder.admin.cli.ctl.running.doctor import tried\n"
        "from murder.admin.cli.ctl.raw import SPOKEN\n"
        "from murder.config.load import config_from\n"
        "from murder.model.protocol import protocol_named\n"
        "from murder.net.outgoing.upstream import Upstreams\n"
        "node = {'name': 'fe1', 'data': '/nowhere'}\n"
        "servers = {'be1': {'echo': 77}, 'be2': {'tls': 'implicit'}}\n"
        "upstreams = Upstreams(config_from({'node': node, 'servers': servers}, Path('x')))\n"
        "echo = protocol_named('echo')\n"
        "print(json.dumps([[key.name for key in tried()], SPOKEN,\n"
        "    [upstreams.address(server, echo).port for server in ('be1', 'be2')]]))\n",
    )
    knocked, raw, ports = json.loads(said)
    assert knocked == ["echo", "imap", "lmtp", "pop3", "sieve"]
    assert raw == ["mupdate", "imap", "pop3", "lmtp", "echo", "sieve"]
    assert ports == [77, 1007]


def serving(copy: Path, file: Path) -> Program:
    """A backend of the copy."""
    command = [sys.executable, "-m", "murder", "serve", "--role", "backend", "--config", str(file)]
    return Program(command, file.parent / "log", cwd=copy)


def test_a_server_speaks_it_and_reloads(copy: Path, tmp_path: Path) -> None:
    imap, echo, other = free_ports(3)
    file = write_config(tmp_path, imap, echo, room=1)
    with serving(copy, file) as node:
        node.until_said("role.started")
        with socket.create_connection(("127.0.0.1", echo), timeout=LIMIT_S) as client:
            assert client.recv(100) == b"echo at be1.example.org\r\n"
            client.sendall(b"hallo\r\n")
            assert client.recv(100) == b"hallo\r\n"
            with socket.create_connection(("127.0.0.1", echo), timeout=LIMIT_S) as second:
                assert second.recv(100) == b"no room\r\n"
        write_config(tmp_path, imap, other)
        node.signal(signal.SIGHUP)
        node.until_said("config.reloaded")
        waiting = [one for one in node.said().splitlines() if "config.needs_restart" in one]
        assert any("backend.echo" in line for line in waiting)
