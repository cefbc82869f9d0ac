"""A plugin that is told when the role of a process starts and stops."""

from pathlib import Path

import pytest

from tests.kit.ports import free_port
from tests.kit.process import serving

PLUGIN = """
from pathlib import Path
from murder.api import hookimpl

def note(text):
    with (Path(__file__).parent / "told").open("a") as file:
        file.write(text + chr(10))

@hookimpl
async def role_starts(role, worker):
    note(f"{role} {worker} starts")

@hookimpl
def role_stops(role, worker):
    note(f"{role} {worker} stops")
    raise OSError("too late")
"""
CONFIG = """\
[node]
name = "be1.example.org"
data = "data"
[backend]
workers = {workers}
imap = ["127.0.0.1:{port}"]
[plugins]
path = ["site"]
use = ["life"]
[plugins.auth_file]
file = "users"
"""


def write_site(folder: Path, plugin: str, workers: int) -> tuple[Path, Path]:
    """A backend with this plugin: its murder.toml, and the file where the plugin notes what it is told."""
    site = folder / "site"
    site.mkdir()
    (site / "life.py").write_text(plugin)
    (folder / "users").touch(mode=0o600)
    file = folder / "murder.toml"
    file.write_text(CONFIG.format(workers=workers, port=free_port()))
    return file, site / "told"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_plugin_is_told_in_every_process(tmp_path: Path, workers: int) -> None:
    file, told = write_site(tmp_path, PLUGIN, workers)
    with serving(file, "--role", "backend") as node:
        node.until_said("server.ready")
        started = [f"backend {worker} starts" for worker in range(workers)]
        assert sorted(told.read_text().splitlines()) == started
    ended = [f"backend {worker} stops" for worker in range(workers)]
    assert sorted(told.read_text().splitlines()) == sorted([*started, *ended])
    assert node.process is not None and node.process.returncode == 0
