"""The manual's "Install it on three hosts", done in three network namespaces with its own configurations and commands.

Each host has its own name, address, /etc/murder and data; they see each other over a bridge and nothing else.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from murder.admin.manual.pages import page
from tests.conftest import cannot_run
from tests.kit.demo import wanted
from tests.kit.process import ROOT
from tests.kit.waiting import until

HOSTS = {"mupdate": "10.87.0.1", "be1": "10.87.0.2", "fe1": "10.87.0.3", "desk": "10.87.0.4"}
MANUAL = page("install") + page("daily")


def blocks() -> dict[str, str]:
    """The manual's configurations by the first label of their node.name."""
    found = {}
    for text in re.findall(r"```toml\n(.*?)```", MANUAL, re.DOTALL):
        name = re.search(r'^\[node\]\nname = "([a-z0-9-]+)', text, re.MULTILINE)
        if name:
            found[name.group(1)] = text
    return found


# As any sender: a worker that has not reached the master yet says 451
DELIVER = """
import smtplib
from tests.kit.waiting import until

def is_taken():
    try:
        with smtplib.LMTP("127.0.0.1", 24, "localhost") as lmtp:
            lmtp.sendmail("me@example.org", ["anna"], "Subject: hello\\r\\n\\r\\nIt works.\\r\\n")
    except smtplib.SMTPRecipientsRefused as refused:
        assert refused.recipients["anna"][0] == 451, refused
        return False
    return True

until(is_taken, every_s=0.2)
"""


class Site:
    """The three hosts, and the operator's desk."""

    def __init__(self, folder: Path, hosts: Mapping[str, str] = HOSTS) -> None:
        """`hosts`: their addresses."""
        self.folder = folder
        self.hosts = hosts
        self.prefix = f"m{os.getpid() % 100000}"
        self.serving: list[subprocess.Popen[bytes]] = []

    def space(self, host: str) -> str:
        return f"{self.prefix}{host}"

    def run(self, *words: str, **more: str) -> str:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=ROOT,
            env=os.environ | more,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def at(self, host: str, *words: str) -> str:
        return self.run("ip", "netns", "exec", self.space(host), *words)

    def murder(self, host: str, *words: str) -> str:
        return self.at(host, sys.executable, str(ROOT / "dist" / "murder.pyz"), *words)

    def connect(self) -> None:
        """Namespaces on a bridge in a namespace of its own, with names in /etc/hosts."""
        names = "".join(f"{ip} {host}.example.org\n" for host, ip in self.hosts.items())
        self.run("ip", "netns", "add", self.space("net"))
        self.at("net", "ip", "link", "add", "br0", "type", "bridge")
        self.at("net", "ip", "link", "set", "br0", "up")
        for number, (host, ip) in enumerate(self.hosts.items()):
            space = self.space(host)
            self.run("ip", "netns", "add", space)
            hosts = Path("/etc/netns") / space / "hosts"
            hosts.parent.mkdir(parents=True)
            hosts.write_text(f"127.0.0.1 localhost\n{names}")
            self.at(
                "net",
                "ip",
                "link",
                "add",
                f"v{number}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                space,
            )
            self.at("net", "ip", "link", "set", f"v{number}", "master", "br0", "up")
            self.at(host, "ip", "addr", "add", f"{ip}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                self.at(host, "ip", "link", "set", link, "up")

    def serve(self, host: str, config: str) -> None:
        """Start its node; `stop` ends it."""
        murder = [sys.executable, str(ROOT / "dist" / "murder.pyz")]
        self.start(host, f"{host}.log", *murder, "serve", "--config", config)

    def start(self, host: str, log: str, *words: str) -> None:
        """A program on a host, whose errors are in that file; `stop` ends it."""
        command = ["ip", "netns", "exec", self.space(host), *words]
        with (self.folder / log).open("wb") as said:
            self.serving.append(subprocess.Popen(command, stderr=said, cwd=ROOT))

    def stop(self) -> None:
        for process in self.serving:
            process.terminate()
        for process in self.serving:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)

    def disconnect(self) -> None:
        self.stop()
        for host in (*self.hosts, "net"):
            subprocess.run(
                ["ip", "netns", "del", self.space(host)], check=False, capture_output=True
            )
            shutil.rmtree(Path("/etc/netns") / self.space(host), ignore_errors=True)

    def configure(self, host: str, text: str, certificate: str) -> Path:
        """A host's /etc/murder as the manual has it, in a folder of ours."""
        etc = self.folder / host
        etc.mkdir()
        ca = self.folder / "murder-ca"
        for file in ("ca.pem", "crl.pem", f"{certificate}.pem", f"{certificate}.key"):
            shutil.copy(ca / file, etc)
        text = text.replace('data = "/var/lib/murder"', f'data = "{etc}/data"')
        text = text.replace('data = "/tmp"', f'data = "{etc}/data"')
        text = re.sub(r'"/etc/ssl/mail.example.org.(pem|key)"', rf'"{certificate}.\1"', text)
        (etc / "murder.toml").write_text(text)
        return etc / "murder.toml"

    def copied(self, made: Path, host: str) -> str:
        """A folder as `murder init` made it, on its host; its data lies there too, for all share one file system."""
        etc = self.folder / host
        shutil.copytree(made, etc)
        keys = [key for key in etc.glob("*.key") if key.stat().st_mode & 0o777 == 0o600]
        assert len(keys) == 1
        file = etc / "murder.toml"
        file.write_text(re.sub(r'data = "/\S+"', f'data = "{etc}/data"', file.read_text()))
        return str(file)


@contextlib.contextmanager
def connected(folder: Path, hosts: Mapping[str, str] = HOSTS) -> Iterator[Site]:
    """A site, as far as wires and names go."""
    if os.geteuid() != 0:
        cannot_run("network namespaces need root")
    if missing := wanted("ip", "curl"):
        cannot_run(missing)
    site = Site(folder, hosts)
    try:
        site.connect()
        yield site
    finally:
        site.disconnect()


@pytest.fixture
def site(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with connected(tmp_path_factory.mktemp("site")) as found:
        yield found


def test_what_init_has_written_is_copied_and_serves_mail(site: Site) -> None:
    """The manual's first way."""
    site_folder = site.folder / "murder-site"
    own = ["--dir", str(site_folder), "--ca", str(site.folder / "murder-ca")]
    (line,) = re.findall(r"^murder init (--host .*)$", MANUAL, re.MULTILINE)
    said = site.murder("desk", "init", *line.split(), *own)
    copies = re.findall(
        r"^ +scp (\S+)/\* root@(\w+)\.example\.org:/etc/murder/$", said, re.MULTILINE
    )
    assert [host for _, host in copies] == ["mupdate", "be1", "fe1"]
    configs = {}
    for folder, host in [*copies, (str(site_folder / "operator"), "desk")]:
        configs[host] = site.copied(Path(folder), host)
    mail_comes_in(site, configs)


def test_the_manual_leads_from_nothing_to_mail_on_three_hosts_by_hand(site: Site) -> None:
    ca = str(site.folder / "murder-ca")
    for line in re.findall(r"^murder ca (?:init|issue .*)$", MANUAL, re.MULTILINE):
        site.murder("desk", *line.split()[1:], "--dir", ca)
    configs = {}
    for host, text in blocks().items():
        place = "desk" if host == "anna-admin" else host
        name = host if place == "desk" else f"{host}.example.org"
        configs[place] = str(site.configure(place, text, name))
    mail_comes_in(site, configs)


def mail_comes_in(site: Site, configs: dict[str, str]) -> None:
    """The manual's steps from users on, with a configuration for each host."""
    assert configs.keys() == HOSTS.keys()
    for user in ("admin", "anna"):
        for host in ("be1", "fe1"):
            words = "auth", "add", user, "--config", configs[host]
            process = subprocess.run(
                [sys.executable, ROOT / "dist/murder.pyz", *words],
                input=b"secret\nsecret\n",
                capture_output=True,
                check=False,
            )
            assert process.returncode == 0, process.stderr
    for host in ("fe1", "be1", "mupdate"):  # "Order does not matter"
        site.murder(host, "config", "check", "--config", configs[host])
        site.serve(host, configs[host])
    everything_is_well(site, configs["desk"])
    ca_file = str(site.folder / "desk" / "ca.pem")
    site.at(
        "desk",
        *("curl", "-sS", "--cacert", ca_file, "--ssl-reqd", "-u", "admin:secret"),
        *("imap://be1.example.org/", "-X", 'CREATE "user/anna"'),
    )
    site.at("fe1", sys.executable, "-c", DELIVER)
    read = ("curl", "-sS", "--cacert", ca_file, "-u", "anna:secret")
    assert "It works." in site.at("desk", *read, "imaps://fe1.example.org/INBOX;MAILINDEX=1")
    shown = site.murder("desk", "ctl", "user", "show", "anna", "--config", configs["desk"])
    assert "user/anna  be1.example.org  1" in shown
    assert "Everything is well." in site.murder(
        "desk", "ctl", "doctor", "--config", configs["desk"]
    )
    # nobody has named the nodes: they are learnt from the master, who knows of be1 since it has a mailbox
    assert "nodes" not in tomllib.loads(Path(configs["desk"]).read_text())["operator"]
    told = json.loads(site.murder("desk", "ctl", "status", "--json", "--config", configs["desk"]))
    assert {node["node"] for node in told["nodes"]} == {
        f"{host}.example.org" for host in ("mupdate", "be1", "fe1")
    }
    said = site.murder("desk", "ctl", "check", "--json", "--config", configs["desk"])
    assert json.loads(said)["differences"] == [] and json.loads(said)["unreachable"] == {}


def everything_is_well(site: Site, config: str) -> None:
    def said() -> str:
        try:
            return site.murder("desk", "ctl", "status", "--config", config)
        except AssertionError as error:
            return str(error)

    def report() -> str:
        return "\n".join(
            [said(), *(path.read_text()[-1000:] for path in site.folder.glob("*.log"))]
        )

    # three programs start; the unit tells systemd, nobody tells us
    until(lambda: "Everything is well." in said(), report, every_s=0.2)


WRITES = ("--user", "vmail", "--writes", "/var/vmail")


def test_the_unit_is_one_that_systemd_takes(archive: Path, tmp_path: Path) -> None:
    if missing := wanted("systemd-analyze"):
        cannot_run(missing)
    unit = tmp_path / "murder.service"
    said = subprocess.run(
        [sys.executable, archive, "system-unit", "backend", *WRITES, "--program", "/bin/true"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    unit.write_text(said)
    assert "written by `murder system-unit backend`\n" in said
    assert "ExecReload=/bin/true reload --config /etc/murder/murder.toml\n" in said
    assert "KillMode=mixed\n" in said
    # whoever it runs as, the lists are where murder.toml has them; and mail that lies elsewhere can be written
    assert "User=vmail\n" in said
    assert "StateDirectory=murder\n" in said
    assert "ReadWritePaths=/var/vmail\n" in said
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "murder.service" not in done.stderr, done.stderr
