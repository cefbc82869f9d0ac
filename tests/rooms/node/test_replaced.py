"""Another archive in the place of one that runs: the node goes on as one version, and says that it waits for a restart."""

import os
import shutil
import signal
import sys
from pathlib import Path

from murder.node.control.sockets import FOLDER, ask_local
from murder.wire.nodes.control_words import AskStatus
from tests.kit import scene
from tests.kit.ports import free_port
from tests.kit.process import Program, descendants
from tests.kit.waiting import until


def told(data: Path) -> list[dict[str, object]]:
    """What the processes of the node say of themselves."""

    async def ask() -> list[dict[str, object]]:
        answers = [dict(one) async for one in ask_local(data / FOLDER, AskStatus())]
        return [one for one in answers if "replaced" in one]

    return scene.run(ask())


def test_restarted_workers_run_what_the_first_ran(archive: Path, tmp_path: Path) -> None:
    program = tmp_path / "murder.pyz"
    shutil.copy(archive, program)
    file = tmp_path / "murder.toml"
    file.write_text(
        '[node]\nname = "fe1.example.org"\ndata = "data"\nroles = ["frontend"]\n'
        'drain_timeout_s = 1\n[mupdate]\nmaster = "127.0.0.1:1"\nmaster_tls = "none"\n'
        'master_auth = "plain"\nmaster_user = "m"\nmaster_password = "m"\n[frontend]\n'
        f'workers = 2\nimap = ["127.0.0.1:{free_port()}"]\nupstream_auth = "plain"\n'
        'proxy_user = "p"\nproxy_password = "p"\n'
    )
    log = tmp_path / "log"
    command = [sys.executable, str(program), "serve", "--config", str(file)]
    with Program(command, log, environment={"MURDER_CACHE": str(tmp_path / "cache")}) as node:
        node.until_said('"server.ready"')
        assert [one["replaced"] for one in told(tmp_path / "data")] == [False] * 3
        (tmp_path / "other").write_bytes(b"another version")
        (tmp_path / "other").replace(program)
        assert [one["replaced"] for one in told(tmp_path / "data")] == [True] * 3
        victim = descendants(node.pid)[-1]
        os.kill(victim, signal.SIGKILL)
        until(lambda: log.read_text().count('"worker.ready"') == 4, "its successor")
        assert victim not in descendants(node.pid)
        assert [one["replaced"] for one in told(tmp_path / "data")] == [True] * 3
    assert "Traceback" not in log.read_text()
