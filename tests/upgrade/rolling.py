"""A rolling upgrade, driven: a murder of an earlier commit under load, whose nodes become this version one by one.

    python -m tests.upgrade.rolling                          # from b3ab673, master first, then backends, then frontends
    python -m tests.upgrade.rolling --order fe1,fe2,be2,be1,mupdate
    python -m tests.upgrade.rolling --old-archive old.pyz --new-archive dist/murder.pyz --between-s 5
    python -m tests.upgrade.rolling --from-sources --between-s 1    # what test_rolling.py does: no archive is built

The earlier commit's archive is built from its sources: those of b3ab673 are kept beside this file, without their tests, as a
clone may be shallow; another's come from the repository (`git archive`), and where it lacks them, this ends with the reason
and exit code 77. From sources, both versions run on the packages of the Python that runs this. Two frontends, a backend with
`store_spool` and one with `store_maildir`. What was acknowledged is there at the end, once, and nothing wrong was said;
then one node after the other goes back, which has to be refused in one sentence where its data is of this version.
"""

import argparse
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.faults.test_storm import TIMEOUTS, USERS, Storm, load, subjects
from tests.kit.demo import Demo
from tests.kit.process import ROOT, Program
from tests.kit.waiting import pause, until

OLD: Final = "b3ab673"
KEPT: Final = Path(__file__).parent / f"{OLD}.tar.xz"
SKIPPED: Final = 77  # as automake has it
BUILD_LIMIT_S: Final = 1800
OURS: Final = re.compile(r"\[(?:error|critical) *\]|Traceback", re.IGNORECASE)


class Skip(Exception):
    """It cannot be driven here."""


@dataclass(frozen=True)
class Version:
    """How one version of murder is run: words before the subcommand, and where."""

    command: tuple[str, ...]
    cwd: Path = ROOT

    @classmethod
    def of_archive(cls, archive: Path) -> "Version":
        return cls((sys.executable, str(archive.resolve())))

    @classmethod
    def of_sources(cls, sources: Path) -> "Version":
        return cls((sys.executable, "-m", "murder"), sources)

    def serving(self, config: Path, log: Path) -> Program:
        words = [*self.command, "serve", "--config", str(config)]
        return Program(words, log, cwd=self.cwd).start()


@dataclass(frozen=True)
class Plan:
    """What is done, with how much."""

    order: tuple[str, ...] = ("mupdate", "be1", "be2", "fe1", "fe2")
    back: tuple[str, ...] = ("be1", "be2", "mupdate", "fe1")
    between_s: float = 6.0  # of load, before each node
    users: int = USERS
    workers: int = 2
    port_base: int = 21000


@dataclass
class Murder(Demo):
    """A demo's folder whose nodes are run from here, each by an archive of its own. Clients come to any frontend."""

    programs: dict[str, Program] = field(default_factory=dict)
    users: int = USERS

    @property
    def frontend(self) -> dict[str, Any]:
        return dict(random.choice(self.info["frontends"]))

    def port_of(self, label: str) -> int:
        if label == "mupdate":
            return int(self.info["mupdate"].get("mupdate") or self.info["mupdate"]["port"])
        nodes = [*self.info["frontends"], *self.info["backends"]]
        return next(int(one["imap"]) for one in nodes if one["node"] == label)

    def start(self, label: str, version: Version) -> Program:
        folder = self.folder / label
        self.programs[label] = program = version.serving(folder / "murder.toml", folder / "log")
        return program.until_open("127.0.0.1", self.port_of(label))

    def stop(self) -> int:
        for program in self.programs.values():
            if program.lives:
                program.stop()
        return 0


def sources_of(commit: str, folder: Path) -> Path:
    """The files of a commit, in a new folder. Raises Skip."""
    sources = folder / "sources"
    if commit == OLD:
        sources.mkdir()
        with tarfile.open(KEPT) as kept:
            kept.extractall(sources, filter="data")
        return sources
    found = subprocess.run(
        ["git", "cat-file", "-e", f"{commit}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if found.returncode:
        raise Skip(f"this clone has no commit {commit}: it is shallow, or of another history")
    sources.mkdir()
    packed = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", sources], input=packed, check=True)
    return sources


def built(sources: Path) -> Path:
    """The archive of a tree of sources, made there."""
    subprocess.run(
        [sys.executable, "build.py"],
        cwd=sources,
        check=True,
        timeout=BUILD_LIMIT_S,
        stdout=subprocess.DEVNULL,
    )
    return sources / "dist" / "murder.pyz"


def made(version: Version, folder: Path, plan: Plan) -> dict[str, Any]:
    """A demo of that version, begun and stopped again: certificates, configurations, users. Its JSON line."""
    command = [*version.command, "demo", "--json", "--dir", str(folder), "--frontends", "2"]
    command += ["--backends", "2", "--users", str(plan.users), "--workers", str(plan.workers)]
    command += ["--no-tls-required", "--port-base", str(plan.port_base)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=version.cwd) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    info: dict[str, Any] = json.loads(line)
    return info


def change(murder: Murder, label: str, old: str, new: str) -> None:
    file = murder.folder / label / "murder.toml"
    text = file.read_text()
    assert old in text, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new, 1))


def prepare(murder: Murder, version: Version) -> None:
    """be2 keeps its mail as Maildir++; each user has a mailbox on their backend and one on the other."""
    for label in ("fe1", "fe2"):
        change(murder, label, "[frontend]\n", "[frontend]" + TIMEOUTS)
    for label in ("mupdate", "be1", "be2", "fe1", "fe2"):
        murder.start(label, version)
    with murder.imap(murder.backends[1], "admin") as admin:
        for user in range(1, murder.users + 1):
            admin.delete(f"user/user{user}")
    murder.programs["be2"].stop()
    shutil.rmtree(murder.folder / "be2" / "data")
    (murder.folder / "be2" / "data").mkdir(mode=0o700)
    change(murder, "be2", "[backend]\n", '[backend]\nstore = "store_maildir"\n')
    murder.start("be2", version)
    for user in range(1, murder.users + 1):
        home = next((one for one in murder.backends if _has(murder, one, user)), murder.backends[1])
        other = next(one for one in murder.backends if one is not home)
        with murder.imap(home, "admin") as admin:
            admin.create(f"user/user{user}")
            assert admin.create(f"user/user{user}/near")[0] == "OK"
        with murder.imap(other, "admin") as admin:
            assert admin.create(f"user/user{user}/far")[0] == "OK"
            assert admin.setacl(f"user/user{user}/far", f"user{user}", "lrswipkxtea")[0] == "OK"
    for one in murder.info["frontends"]:
        for user in range(1, murder.users + 1):
            until(partial(_has, murder, one, user), "a frontend knows its users")


def _has(murder: Murder, server: dict[str, Any], user: int) -> bool:
    with murder.imap(server, f"user{user}") as client:
        return bool(client.select("INBOX/near" if "mupdate" in server else "INBOX")[0] == "OK")


def judge(murder: Murder, storm: Storm) -> list[str]:
    """What is wrong in the end."""
    wrong = list(storm.wrong)
    for user in range(1, murder.users + 1):
        inbox = subjects(murder, user, "INBOX")
        doubled = {one for one, times in inbox.items() if times > 1}
        lost = set(storm.kept[user]) - storm.removed[user] - set(inbox)
        if doubled or lost:
            wrong.append(f"user{user}: doubled {sorted(doubled)}, lost {sorted(lost)}")
        copies = subjects(murder, user, "INBOX/near") + subjects(murder, user, "INBOX/far")
        for identifier, times in storm.copied[user].items():
            if not times <= copies[identifier] <= storm.copies[user][identifier]:
                wrong.append(
                    f"user{user}: {copies[identifier]} copies of {identifier}, not {times}"
                )
    return wrong


def complaints(murder: Murder) -> list[str]:
    """What nodes say of themselves that is our own fault."""
    wrong = []
    for label in murder.programs:
        log = (murder.folder / label / "log").read_text(errors="replace").splitlines()
        wrong += [f"{label}: {line}" for line in log if OURS.search(line)][:5]
    return wrong


def ctl(murder: Murder, version: Version, *words: str) -> str:
    config = str(murder.folder / "operator" / "murder.toml")
    done = subprocess.run(
        [*version.command, "ctl", *words, "--config", config],
        cwd=version.cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return f"$ murder ctl {' '.join(words)}  # {done.returncode}\n{done.stdout}{done.stderr}"


def go_back(murder: Murder, label: str, old: Version, new: Version) -> list[str]:
    """The earlier version on data of this one: it works, or says in one sentence why not. What is wrong."""
    murder.programs[label].stop()
    log = murder.folder / label / "log"
    before = len(log.read_text(errors="replace"))
    program = old.serving(murder.folder / label / "murder.toml", log)

    def is_over() -> bool:
        return not program.lives or "server.ready" in log.read_text(errors="replace")[before:]

    until(is_over, f"{label} starts with the earlier version, or ends", 60)
    said = log.read_text(errors="replace")[before:]
    if program.lives:
        program.stop()
    print(f"back at {label}: exit code {program.process and program.process.returncode}")
    refused = [line for line in said.splitlines() if "format" in line]
    print("\n".join(f"  {line[:200]}" for line in refused[:3]) or f"  {said[-400:]}")
    murder.start(label, new)
    return [f"{label}: a traceback instead of a sentence\n{said}"] if "Traceback" in said else []


def drive(old: Version, new: Version, folder: Path, plan: Plan) -> list[str]:
    """All of it; what went wrong."""
    info = made(old, folder, plan)
    murder = Murder(folder, None, info, users=plan.users)  # type: ignore[arg-type] # no process of its own
    try:
        prepare(murder, old)
        storm = Storm(murder)
        with load(storm, plan.users):
            pause(plan.between_s, "load on the earlier version")
            for label in plan.order:
                began = time.monotonic()
                murder.programs[label].stop()
                murder.start(label, new)
                took = time.monotonic() - began
                print(
                    f"{label} is of this version, after {took:.1f} s; wrong so far: {len(storm.wrong)}"
                )
                pause(plan.between_s, "load on both versions")
        print(dict(storm.done))
        wrong = [*judge(murder, storm), *complaints(murder)]
        for words in (("status",), ("check",), ("conflicts",)):
            print(ctl(murder, new, *words))
        for label in plan.back:
            wrong += go_back(murder, label, old, new)
        storm.wrong.clear()
        return wrong + judge(murder, storm)
    finally:
        murder.stop()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--old", default=OLD, help="the commit to come from")
    parser.add_argument("--old-archive", type=Path, help="its archive, where there is one")
    parser.add_argument("--new-archive", type=Path, help="this version's; else it is built")
    parser.add_argument("--from-sources", action="store_true", help="no archive is built")
    parser.add_argument("--order", default=",".join(Plan.order))
    parser.add_argument("--between-s", type=float, default=Plan.between_s, help="load between two")
    parser.add_argument("--port-base", type=int, default=Plan.port_base)
    parser.add_argument("--keep", action="store_true", help="leave the folder, and say where it is")
    options = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="murder-upgrade-"))
    try:
        if options.from_sources:
            old, new = Version.of_sources(sources_of(options.old, top)), Version.of_sources(ROOT)
        else:
            old = Version.of_archive(options.old_archive or built(sources_of(options.old, top)))
            new = Version.of_archive(options.new_archive or built(ROOT))
        order = tuple(options.order.split(","))
        plan = Plan(order, between_s=options.between_s, port_base=options.port_base)
        wrong = drive(old, new, top / "murder", plan)
    except Skip as skip:
        print(f"skipped: {skip}")
        return SKIPPED
    finally:
        if options.keep:
            print(top)
        else:
            shutil.rmtree(top, ignore_errors=True)
    print("\n".join(wrong) or "nothing wrong was said, and nothing was lost")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
