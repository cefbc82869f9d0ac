"""A machine to install things on: this host's files under a layer that is thrown away, its own systemd as process 1, its
own network with a loopback and nothing else. systemd-nspawn boots it, without services but those that a test starts."""

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import cannot_run
from tests.kit.demo import wanted
from tests.kit.waiting import until

NEEDS = ("systemd-nspawn", "nsenter", "mount", "unshare")


class Machine:
    """A running one; `root` is its file system, as seen from here."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self._leader = leader

    def run(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """What a program there answers, root's, with no more than a plain environment."""
        within = ["nsenter", "-t", str(self._leader), "-a", "env", "-i"]
        plain = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"]
        plain += ["DEBIAN_FRONTEND=noninteractive"]
        return subprocess.run(
            [*within, *plain, *words],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def ok(self, *words: str, given: str = "") -> str:
        """The same, which must succeed: what it said, errors too."""
        done = self.run(*words, given=given)
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{words}: {said}\n{self.journal()}"
        return said

    def journal(self) -> str:
        return self.run("journalctl", "--no-pager", "-n", "60", "-u", "murder*").stdout

    def state(self, unit: str) -> str:
        return self.run("systemctl", "is-active", unit).stdout.strip()

    def main_process(self, unit: str) -> str:
        return self.ok("systemctl", "show", "-P", "MainPID", unit).strip()


@contextlib.contextmanager
def running_machine(folder: Path) -> Iterator[Machine]:
    """Boot one; its layer lies in memory, mounted below `folder`."""
    if os.geteuid() != 0:
        cannot_run("a machine of its own needs root")
    if missing := wanted(*NEEDS):
        cannot_run(missing)
    layer, root = folder / "layer", folder / "root"
    layer.mkdir()
    root.mkdir()
    with contextlib.ExitStack() as stack:

        def mount(*words: str | Path) -> None:
            done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
            if done.returncode:
                cannot_run(f"cannot mount here: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", words[-1]], check=False)

        mount("-t", "tmpfs", "-o", "size=2g", "tmpfs", layer)
        (layer / "upper").mkdir()
        (layer / "work").mkdir()
        above = f"lowerdir=/,upperdir={layer}/upper,workdir={layer}/work"
        mount("-t", "overlay", "-o", above, "overlay", root)
        (root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")  # a journal of its own
        for socket in (root / "etc/systemd/system/sockets.target.wants").glob("*"):
            socket.unlink()  # of the programs that other tests drive: they are installed here
        (root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)  # an image may forbid all services
        words = ["--register=no", "--keep-unit", "--quiet", "--private-network", "--boot"]
        said = folder / "console"
        with said.open("wb") as console:
            process = subprocess.Popen(
                [
                    "systemd-nspawn",
                    "-D",
                    root,
                    f"--machine=m{os.getpid()}",
                    *words,
                    "systemd.unit=basic.target",
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        try:
            leader = until(
                lambda: process.poll() is not None or leader_below(process.pid),
                said.read_text,
                every_s=0.1,
            )
            if leader is True:
                cannot_run(f"systemd-nspawn does not boot here: {said.read_text()[-400:]}")
            machine = Machine(root, leader)
            booted = "systemctl", "is-active", "basic.target"
            until(lambda: machine.run(*booted).returncode == 0, said.read_text, every_s=0.2)
            yield machine
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def leader_below(process: int) -> int:
    """Process 1 of the machine, by its number here; 0 until there is one."""
    pending = [process]
    for one in pending:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{one}/status").read_text()
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
            comm = Path(f"/proc/{one}/comm").read_text().strip()
            if numbers.split()[2:] == ["1"] and comm == "systemd":
                return one
            for thread in Path(f"/proc/{one}/task").iterdir():
                pending += map(int, (thread / "children").read_text().split())
    return 0
