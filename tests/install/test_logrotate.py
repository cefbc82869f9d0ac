"""The Debian package's logrotate file, by the real logrotate, on the log of a node that goes on writing."""

import shutil
import signal
import subprocess
from pathlib import Path

from murder.archive.debian import LOGROTATE
from tests.conftest import cannot_run
from tests.kit.ports import free_port
from tests.kit.process import run_murder, serving

PROGRAM = shutil.which("logrotate", path="/usr/sbin:/usr/bin")


def rotate(folder: Path, *options: str) -> str:
    file = folder / "rotate"
    file.write_text(LOGROTATE.replace("/var/log/murder", str(folder / "log")))
    file.chmod(0o644)  # another's may not write it
    assert PROGRAM is not None
    done = subprocess.run(
        [PROGRAM, "--state", str(folder / "state"), "--verbose", *options, str(file)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "error:" not in done.stderr
    return done.stderr


def test_a_node_writes_on_while_its_log_is_rotated(tmp_path: Path) -> None:
    if PROGRAM is None:
        cannot_run("logrotate is not installed")
    logs = tmp_path / "log"
    logs.mkdir(mode=0o755)
    rotate(tmp_path)  # nothing there yet
    run_murder("ca", "init", "--dir", str(tmp_path / "ca"))
    run_murder(
        *("ca", "issue", "one", "--role", "mupdate"),
        *("--dir", str(tmp_path / "ca"), "--out", str(tmp_path)),
    )
    config, log = tmp_path / "murder.toml", logs / "murder.log"
    config.write_text(
        '[node]\nname = "one"\ndata = "data"\nroles = ["mupdate"]\n'
        '[tls]\nca = "ca/ca.pem"\ncertificate = "one.pem"\nkey = "one.key"\n'
        f'[mupdate]\nlisten = ["127.0.0.1:{free_port()}"]\n'
    )
    with serving(config, log=log) as node:
        node.until_said("server.ready")
        before = log.read_bytes()
        for number in (1, 2, 3):
            rotate(tmp_path, "--force")
            assert log.stat().st_size == 0
            node.signal(signal.SIGHUP)
            node.until_said("config.reloaded")
            assert b"\0" not in log.read_bytes()  # it writes at the end, wherever that is now
            assert (logs / "murder.log.1").exists(), number
        assert (logs / "murder.log.3.gz").exists()
        whole = subprocess.run(
            ["zcat", str(logs / "murder.log.3.gz")], capture_output=True, check=True
        )
        assert whole.stdout == before
    assert "does not need rotating" in rotate(tmp_path)
