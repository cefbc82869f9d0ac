"""The manual's "A key was stolen", its commands line by line: who had the key is out, who has the new one is in."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from murder.admin.manual.pages import page
from murder.pki.authority import init_authority, issue
from murder.pki.trust import init_list
from tests.kit.ports import free_port
from tests.kit.process import ROOT, Program, serving
from tests.rooms.node.test_workers import LIMIT_S, knock

CHAPTER = page("keys")
# scp and ssh that reach the hosts of this test: folders
SHELL = """
set -e
murder() { "$PYTHON" -m murder "$@"; }
scp() { local host="${@: -1}"; host="${host%%.*}"; cp "${@:1:$#-1}" "$SITE/$host/"; }
ssh() {
  local host="${1%%.*}"; shift
  MURDER_CONFIG="$SITE/$host/murder.toml" "${@//\\/etc\\/murder/$SITE/$host}"
}
"""


def commands(title: str) -> str:
    """The first block of commands below a heading of the chapter."""
    section = CHAPTER.partition(f"\n## {title}")[2].partition("\n## ")[0]
    found = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert found is not None, title
    return found.group(1)


class Site:
    """A backend and a frontend, of two workers each, and the host with the authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "desk" / "murder-ca"
        self.ports = {"be1": free_port(), "fe1": free_port()}
        self.nodes: list[Program] = []
        self.ca.mkdir(parents=True)
        init_authority(self.ca)
        init_list(self.ca, datetime.now(UTC))
        for name, role in (("be1", "backend"), ("fe1", "frontend")):
            issue(self.ca, f"{name}.example.org", [role])
        issue(self.ca, "anna-admin", ["operator"])

    def start(self, host: str, role: str) -> None:
        home = self.folder / host
        home.mkdir()
        name = f"{host}.example.org"
        for file in ("ca.pem", "crl.pem", f"{name}.pem", f"{name}.key"):
            (home / file).write_bytes((self.ca / file).read_bytes())
        (home / f"{name}.key").chmod(0o600)
        (home / "murder.toml").write_text(
            f'[node]\nname = "{name}"\ndata = "data"\nroles = ["{role}"]\ndrain_timeout_s = 1\n'
            f'[tls]\nca = "ca.pem"\ncrl = "crl.pem"\ncertificate = "{name}.pem"\nkey = "{name}.key"\n'
            f'[mupdate]\nmaster = "127.0.0.1:1"\n'
            f'[{role}]\nworkers = 2\nimaps = ["127.0.0.1:{self.ports[host]}"]\n'
        )
        self.nodes.append(serving(home / "murder.toml").start())
        self.nodes[-1].until_said('"server.ready"')

    def log(self, host: str) -> str:
        return (self.folder / host / "log").read_text()

    def run(self, title: str) -> str:
        done = subprocess.run(
            ["bash", "-c", SHELL + commands(title)],
            cwd=self.folder / "desk",
            env=os.environ
            | {"SITE": str(self.folder), "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=3 * LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def is_in(self, host: str, name: Path, ca: Path | None = None) -> bool:
        """Whether who has this key gets a greeting, of whichever worker."""
        trusted = (ca or self.ca) / "ca.pem"
        answers = {bool(knock(self.ports[host], trusted, name)) for _ in range(6)}
        assert len(answers) == 1, "workers disagree"
        return answers.pop()

    def steal(self, name: str) -> Path:
        for end in ("pem", "key"):
            (self.folder / f"stolen.{end}").write_bytes((self.ca / f"{name}.{end}").read_bytes())
        return self.folder / "stolen"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        site.start("be1", "backend")
        site.start("fe1", "frontend")
        yield site
    finally:
        for node in site.nodes:
            node.stop()


def test_a_stolen_key_of_a_node_and_of_an_operator_and_of_the_authority(site: Site) -> None:
    stolen = site.steal("fe1.example.org")
    assert site.is_in("be1", stolen)
    assert "taken: no key has changed" in site.run("A frontend, a backend, the master")
    for host in site.ports:
        assert not site.is_in(host, stolen)
        assert site.is_in(host, site.ca / "fe1.example.org")
    assert '"tls.revoked"' in site.log("be1")

    stolen = site.steal("anna-admin")
    assert site.is_in("be1", stolen)
    site.run("An operator")
    assert not site.is_in("be1", stolen)
    assert site.is_in("be1", site.ca / "anna-admin")

    site.run("The authority")
    old = site.folder / "desk" / "murder-ca-stolen"
    for host in site.ports:
        for name in ("anna-admin", "be1.example.org", "fe1.example.org"):
            assert not site.is_in(host, old / name)
            assert site.is_in(host, site.ca / name)
    refused = [
        json.loads(line) for line in site.log("be1").splitlines() if "config.refused" in line
    ]
    assert refused == []
