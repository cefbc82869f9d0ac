#!/usr/bin/env python3
"""Build murder: one archive that runs wherever there is a Python 3.11 or newer.

    python3 build.py              make dist/murder.pyz, byte for byte the same from the same sources
    python3 build.py archive [--python 3.11] [--machine x86_64] [--out FILE]      the same, smaller: for these alone
    python3 build.py deb [...]    make a Debian package of it in dist/; --archive FILE of another, --version V
    python3 build.py image [...]  make an OCI image of it in dist/, on a Debian that mmdebstrap fetches, or on --rootfs TAR
    python3 build.py man          write the manual pages for man(1) to dist/man/
    python3 build.py demo [...]   make it and run `murder demo ...`
    python3 build.py test [...]   make an environment, check format, lint and types, run every test, a process for each
                                  processor; words go to pytest: files that they name are run by one, `-n 3` is three
    python3 build.py bench NAME   make it and run tests/bench/NAME.py, which measures beside peers
    python3 build.py attack [...] make it and let strangers do their worst to it: `attack --help`
    python3 build.py fuzz [...]   throw octets at every parser, for as long as told: `fuzz --help`
    python3 build.py lock         write the newest versions that pyproject.toml allows to .requirements.lock, with hashes
    python3 build.py clean        remove .build/ and dist/

It uses the standard library only, and pip: that of this Python, or else of a virtual environment it makes. Packages
come from the index that pip is configured for; what is fetched stays in .build/.

The archive holds, each as one entry (Python reads an archive's whole directory at every start):
`any.zip` has murder/, plugins/ and every file that is the same for all Pythons and machines; `x86_64.zip` what all
Pythons on such a machine share, `cp311-x86_64.zip` what only that one can load. `manifest.txt` has the hash of each file.
murder/archive/ is the code that unpacks and verifies them. Built on Linux with glibc, it has the native parts for x86-64
and Arm; elsewhere for the machine it is built on. Shared objects leave their debugging records behind.
"""

import argparse
import calendar
import concurrent.futures
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from murder.archive import debian, image
from murder.archive.elf import without_debugging
from murder.archive.pack import BOOTSTRAP, FIXED_TIME, pack

ROOT: Final = Path(__file__).resolve().parent
BUILD: Final = ROOT / ".build"
WHEELS: Final = BUILD / "wheels"
ARCHIVE: Final = ROOT / "dist" / "murder.pyz"
LOCK: Final = ROOT / ".requirements.lock"

MINORS: Final = ("3.11", "3.12", "3.13", "3.14")  # CPythons one archive serves, where wheels allow
# Machines the lock has hashes for. pip takes the first of the tags that a release has.
TARGETS: Final = {
    "linux x86_64": [f"manylinux_2_{n}_x86_64" for n in (34, 28, 24, 17, 12, 5)]
    + ["manylinux2014_x86_64", "linux_x86_64"],
    "linux aarch64": [f"manylinux_2_{n}_aarch64" for n in (34, 28, 24, 17)]
    + ["manylinux2014_aarch64"],
    "musl x86_64": [f"musllinux_1_{n}_x86_64" for n in (2, 1)],
    "musl aarch64": [f"musllinux_1_{n}_aarch64" for n in (2, 1)],
    "macos arm64": ["macosx_12_0_arm64"],
    "macos x86_64": ["macosx_12_0_x86_64"],
}
GLIBC_TARGETS: Final = {"x86_64": "linux x86_64", "aarch64": "linux aarch64"}
# Files of a wheel that nothing reads at run time; RECORD would list them.
LEFT_OUT: Final = re.compile(r"\.(pyi|pyx|pxd|pxi|c|h|cpp)$|\.dist-info/(RECORD|WHEEL|INSTALLER)$")


class Problem(Exception):
    """Why something could not be built, and what to do, as a sentence."""


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; returns the exit code."""
    words = list(arguments)
    if not words or (words[0].startswith("--") and words[0] != "--help"):
        words.insert(0, "archive")
    target, rest = words[0], words[1:]
    targets: Mapping[str, Callable[[list[str]], int]] = {
        "archive": build_archive,
        "deb": build_deb,
        "image": build_image,
        "man": write_man,
        "demo": run_demo,
        "test": run_tests,
        "bench": run_bench,
        "attack": lambda rest: run_beside("attacks.run", rest),
        "fuzz": run_fuzz,
        "lock": refresh_lock,
        "clean": clean,
    }
    if target in ("-h", "--help", "help"):
        print((__doc__ or "").strip())
        return 0
    if target not in targets:
        print(f"build.py: no target {target!r}; there are: {', '.join(targets)}", file=sys.stderr)
        return 2
    if target in ("man", "lock", "clean") and rest:
        print(f"build.py: {target} takes no arguments, and was given {rest[0]!r}", file=sys.stderr)
        return 2
    if sys.implementation.name != "cpython" or sys.version_info < (3, 11):
        print(f"build.py: needs CPython 3.11 or newer; {sys.executable} is not", file=sys.stderr)
        return 2
    try:
        return targets[target](rest)
    except Problem as problem:
        print(f"build.py: {problem}", file=sys.stderr)
        return 1


def build_archive(arguments: list[str]) -> int:
    """Write dist/murder.pyz, by renaming a complete file."""
    parser = argparse.ArgumentParser(prog="build.py archive", allow_abbrev=False)
    parser.add_argument("--python", action="append", default=[], metavar="3.N")
    parser.add_argument("--machine", action="append", default=[], choices=sorted(GLIBC_TARGETS))
    parser.add_argument("--out", type=Path, default=ARCHIVE, help="default: dist/murder.pyz")
    wanted = parser.parse_args(arguments)
    octets, out = make_archive(wanted.python, wanted.machine), wanted.out.absolute()
    out.parent.mkdir(exist_ok=True)
    new = out.with_suffix(".new")
    new.write_bytes(octets)
    new.chmod(0o755)
    new.replace(out)
    written = out.relative_to(ROOT) if out.is_relative_to(ROOT) else out
    say(f"{written}: {len(octets) / 1e6:.1f} MB, sha256 {hashlib.sha256(octets).hexdigest()}")
    return 0


def build_deb(arguments: list[str]) -> int:
    """Write dist/murder_VERSION_ARCHITECTURE.deb from an archive that runs here, which prints most of what else is in it."""
    parser = argparse.ArgumentParser(prog="build.py deb", allow_abbrev=False)
    parser.add_argument("--archive", type=Path, help="default: one is made")
    parser.add_argument("--version", default=version())
    parser.add_argument("--maintainer", default=debian.MAINTAINER, help="Name <address>")
    wanted = parser.parse_args(arguments)
    archive = (wanted.archive or ARCHIVE).absolute()
    if wanted.archive is None:
        build_archive([])
    when, licence = built_at(), (ROOT / "LICENSE").read_text(encoding="utf-8")
    texts = {path: printed_by(archive, *words) for path, words in debian.PRINTED.items()}
    texts |= {f"{debian.MAN}/man{page[-1]}/{page}": text for page, text in pages_of(archive, when)}
    with zipfile.ZipFile(archive) as opened:
        lines = opened.read("build.txt").decode().splitlines()
    facts = dict(line.split(" ", 1) for line in lines)
    release = debian.release_of(facts, wanted.version, wanted.maintainer, when)
    octets = debian.format_deb(archive.read_bytes(), texts, licence, release)
    out = ARCHIVE.with_name(f"murder_{release.version}_{release.architecture}.deb")
    out.write_bytes(octets)
    say(f"{out.relative_to(ROOT)}: {len(octets) / 1e6:.1f} MB")
    return 0


def build_image(arguments: list[str]) -> int:
    """Write dist/murder_VERSION_MACHINE.oci.tar, for `podman load`, `skopeo copy oci-archive:…` and their like."""
    parser = argparse.ArgumentParser(prog="build.py image", allow_abbrev=False)
    parser.add_argument("--archive", type=Path, help="default: one is made")
    parser.add_argument("--version", default=version())
    parser.add_argument("--rootfs", type=Path, help="a tar with Python; default: mmdebstrap's")
    parser.add_argument("--machine", default=platform.machine(), choices=sorted(image.MACHINES))
    wanted = parser.parse_args(arguments)
    if wanted.archive is None:
        build_archive([])
    about = image.Image(wanted.version, wanted.machine, built_at())
    try:
        rootfs = (wanted.rootfs or fetch_rootfs(about)).read_bytes()
        program = (wanted.archive or ARCHIVE).read_bytes()
        octets = image.format_image(rootfs, program, about)
    except (OSError, ValueError, tarfile.TarError) as error:
        raise Problem(str(error)) from None
    out = ARCHIVE.with_name(f"murder_{about.version}_{image.MACHINES[about.machine]}.oci.tar")
    out.write_bytes(octets)
    say(f"{out.relative_to(ROOT)}: {len(octets) / 1e6:.1f} MB")
    return 0


def fetch_rootfs(about: image.Image) -> Path:
    """A Debian 12 with Python and little else, made by mmdebstrap; kept in .build/. Raises Problem."""
    file = BUILD / f"bookworm-{about.machine}.tar"
    if not file.exists():
        if lacking := image.lacking_for(about.machine, platform.machine()):
            raise Problem(lacking)
        if shutil.which("mmdebstrap") is None:
            raise Problem("without --rootfs it takes mmdebstrap (Debian's package of that name)")
        machine = image.MACHINES[about.machine]
        words = [*image.MMDEBSTRAP, f"--architectures={machine}", "bookworm", str(file)]
        say(" ".join(words))
        environ = os.environ | {"SOURCE_DATE_EPOCH": str(about.when)}
        if subprocess.call(words, env=environ, stdout=subprocess.DEVNULL):
            file.unlink(missing_ok=True)
            raise Problem("mmdebstrap has failed")
    return file


def write_man(_: list[str]) -> int:
    """Write dist/man/, as a manual path has it."""
    build_archive([])
    for page, text in pages_of(ARCHIVE, built_at()):
        file = ARCHIVE.parent / "man" / f"man{page[-1]}" / page
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    say(str((ARCHIVE.parent / "man").relative_to(ROOT)))
    return 0


def pages_of(archive: Path, when: int) -> Iterator[tuple[str, str]]:
    """The manual pages, by name."""
    date = time.strftime("%Y-%m-%d", time.gmtime(when))
    for page in debian.PAGES:
        yield page, printed_by(archive, "man", page, "--date", date)


def printed_by(archive: Path, *words: str) -> str:
    """What the program prints. Raises Problem."""
    command = [sys.executable, str(archive), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise Problem(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def built_at() -> int:
    """SOURCE_DATE_EPOCH, else when the last commit was made, else the first time that a zip file can tell; in seconds."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    words = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    with contextlib.suppress(OSError):
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
        if said.isdigit():
            return int(said)
    return calendar.timegm((*FIXED_TIME, 0, 0, 0))


def version() -> str:
    """That of pyproject.toml."""
    import tomllib  # here, so that an older Python comes far enough to say that it is too old

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])


def run_demo(arguments: list[str]) -> NoReturn:
    """Build, then become `murder demo`, so that Ctrl-C and signals reach it and nothing else."""
    build_archive([])
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, str(ARCHIVE), "demo", *arguments])


def run_bench(arguments: list[str]) -> NoReturn:
    """Build, then become one of the benchmarks, in the test environment: as `run_demo`."""
    names = sorted(path.stem for path in (ROOT / "tests" / "bench").glob("[!_]*.py"))
    if not arguments or arguments[0] not in names:
        raise Problem(f"bench needs one of these names: {', '.join(names) or '(none yet)'}")
    run_beside(f"bench.{arguments[0]}", arguments[1:])


def run_beside(module: str, arguments: list[str]) -> NoReturn:
    build_archive([])
    os.chdir(ROOT)
    words = ["-m", "tests.load.ending", f"tests.{module}", *arguments]
    os.execv(python := make_environment(), [python, *words])


def run_fuzz(arguments: list[str]) -> int:
    """Fuzz with atheris where it has a wheel for this Python and machine, else with hypothesis."""
    python = make_environment()
    if subprocess.call([python, "-c", "import atheris"], stderr=subprocess.DEVNULL):
        locked = BUILD / "fuzz-requirements.txt"
        locked.write_text("".join(read_lock()["fuzz"].values()), encoding="utf-8")
        words = ["install", "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r"]
        try:
            pip([*words, locked], [python, "-m", "pip"])
        except Problem as problem:
            say(f"without atheris: {str(problem).strip().splitlines()[-1]}")
    return subprocess.call([python, "-m", "tests.fuzz.run", *arguments], cwd=ROOT)


def run_tests(arguments: list[str]) -> int:
    """Check and test everything; the exit code of the first that fails, pytest last."""
    python = make_environment()
    checks = {
        "format": ["ruff", "format", "--check", "."],
        "lint": ["ruff", "check", "."],
        "types": ["mypy", "--strict", "murder", "plugins", "tests", "build.py"],
    }
    failed = []
    for name, words in checks.items():
        say(f"{name}: {' '.join(words)}")
        if subprocess.call([python, "-m", *words], cwd=ROOT):
            failed.append(name)
    if failed:
        raise Problem(f"the check of {' and '.join(failed)} failed; no test was run")
    is_named = any((ROOT / word.partition("::")[0]).exists() for word in arguments)
    words = arguments if is_named else ["-n", "auto", *arguments]
    say(f"tests: pytest {' '.join(words)}")
    return subprocess.call([python, "-m", "pytest", *words], cwd=ROOT)


def clean(_: list[str]) -> int:
    """Remove all that this program made."""
    for path in (BUILD, ARCHIVE.parent):
        shutil.rmtree(path, ignore_errors=True)
    return 0


def say(text: str) -> None:
    """Tell how it goes; standard output belongs to what is run."""
    print(f"build.py: {text}", file=sys.stderr, flush=True)


# pip


def find_pip() -> list[str]:
    """The words that run pip: of this Python, else of an environment made for it. Raises Problem."""
    own = [sys.executable, "-m", "pip"]
    if not subprocess.run([*own, "--version"], capture_output=True, check=False).returncode:
        return own
    return [str(make_venv(BUILD / "pip")), "-m", "pip"]


def make_venv(home: Path) -> Path:
    """Make a virtual environment with pip, if it is not there; its Python. Raises Problem."""
    python = home / "bin" / "python"
    if not python.exists():
        shutil.rmtree(home, ignore_errors=True)
        done = subprocess.run(
            [sys.executable, "-m", "venv", str(home)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            shutil.rmtree(home, ignore_errors=True)
            raise Problem(
                f"this Python ({sys.executable}) has no pip and cannot make a virtual environment; install "
                f"its pip or venv package (on Debian python3-pip or python3-venv). It said:\n"
                f"{done.stdout}{done.stderr}"
            )
    return python


def pip(words: Sequence[str | Path], program: Sequence[str] | None = None) -> None:
    """Run pip, quiet unless it fails. Raises Problem with what it said."""
    command = [
        *(program or find_pip()),
        *map(str, words),
        "--disable-pip-version-check",
        "--no-input",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Problem(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def make_environment() -> str:
    """The Python of an environment with all that murder and its tests need, as locked; made if need be."""
    home = BUILD / f"venv-{platform.python_version()}"
    done = home / "made-from"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if not done.exists() or done.read_text() != wanted:
        say(f"making the test environment in {home.relative_to(ROOT)}")
        shutil.rmtree(home, ignore_errors=True)
        python = str(make_venv(home))
        words = ["install", "--require-hashes", "--only-binary", ":all:", "--no-deps"]
        pip([*words, "-r", LOCK], [python, "-m", "pip"])
        done.write_text(wanted)
    return str(home / "bin" / "python")


# The lock


def read_lock() -> dict[str, dict[str, str]]:
    """Section (`runtime`, `test` or `fuzz`) -> name==version -> its lines, hashes included. Raises Problem."""
    sections: dict[str, dict[str, str]] = {}
    section, pin = "", ""
    if not LOCK.exists():
        raise Problem(f"{LOCK.name} is missing; `python3 build.py lock` makes it")
    for line in LOCK.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.startswith("# section "):
            section = line.split()[2]
            sections[section] = {}
        elif line[:1].isalpha():
            pin = line.split()[0]
            sections[section][pin] = line
        elif line.startswith(" "):
            sections[section][pin] += line
    return sections


def refresh_lock(_: list[str]) -> int:
    """Resolve what pyproject.toml asks for, note the hash of every wheel that some Python and machine needs."""
    import tomllib  # here, so that an older Python comes far enough to say that it is too old

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = {
        "runtime": project["project"]["dependencies"],
        "test": project["dependency-groups"]["test"],
        "alone": project["dependency-groups"]["alone"],
        "fuzz": project["dependency-groups"]["fuzz"],
    }
    program = find_pip()
    own = next(
        name for name in TARGETS if name.startswith(sys.platform) and platform.machine() in name
    )
    first = resolve(program, [*wanted["runtime"], *wanted["test"]], MINORS[0], own)
    first |= resolve(program, wanted["alone"], MINORS[0], own, deep=False)
    runtime = {name_of(pin) for pin in resolve(program, wanted["runtime"], MINORS[0], own)}
    fuzz = resolve(program, wanted["fuzz"], MINORS[0], own)
    section_of = dict.fromkeys(fuzz, "fuzz")
    section_of |= {pin: "runtime" if name_of(pin) in runtime else "test" for pin in first}
    pins = sorted(section_of)
    cells = [(minor, target) for target in TARGETS for minor in MINORS]
    hashes: dict[str, set[str]] = {pin: set() for pin in pins}

    def collect(cell: tuple[str, str]) -> None:
        try:
            for pin, values in resolve(program, sorted(first), *cell, deep=False).items():
                hashes[pin] |= values
            for pin, values in resolve(program, sorted(fuzz), *cell, deep=False).items():
                hashes[pin] |= values  # last, for it has wheels for few
        except Problem as problem:  # so this archive cannot be built there
            say(f"Python {cell[0]} on {cell[1]}: {str(problem).strip().splitlines()[-1]}")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(collect, cells))
    lines = ["# Exact versions and hashes. Made by `python3 build.py lock`; don't edit.\n"]
    for section in ("runtime", "test", "fuzz"):
        lines.append(f"\n# section {section}\n")
        for pin in pins:
            if section_of[pin] == section:
                parts = [pin, *(f"--hash=sha256:{value}" for value in sorted(hashes[pin]))]
                lines.append(" \\\n    ".join(parts) + "\n")
    LOCK.write_text("".join(lines), encoding="utf-8")
    say(f"{LOCK.name}: {len(pins)} packages")
    return 0


def name_of(pin: str) -> str:
    return pin.partition("==")[0]


def resolve(
    program: Sequence[str], wanted: Sequence[str], minor: str, target: str, *, deep: bool = True
) -> dict[str, set[str]]:
    """What pip would install for a Python and a machine: name==version -> hashes. Raises Problem."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = [
            "install",
            "--dry-run",
            "--ignore-installed",
            "--report",
            str(report),
            "--target",
            folder,
        ]
        words += ["--only-binary", ":all:", "--python-version", minor, "--implementation", "cp"]
        for tag in TARGETS[target]:
            words += ["--platform", tag]
        pip([*words, *(() if deep else ("--no-deps",)), *wanted], program)
        items = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {
        f"{item['metadata']['name'].lower()}=={item['metadata']['version']}": {
            item["download_info"]["archive_info"]["hashes"]["sha256"]
        }
        for item in items
    }


# Wheels


def targets_of(machines: Sequence[str]) -> dict[str, list[str]]:
    """Machine -> the tags of wheels it takes; none: those that pip takes on this machine, which is the only one then."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        return {
            machine: TARGETS[target]
            for machine, target in GLIBC_TARGETS.items()
            if machine in machines or not machines
        }
    if machines and machines != [platform.machine()]:
        raise Problem(f"an archive for {', '.join(machines)} is built on Linux with glibc")
    return {platform.machine(): []}


def fetch_wheels(
    minor: str, machine: str, tags: Sequence[str], pins: Mapping[str, str]
) -> list[Path]:
    """The wheels of the runtime packages for one Python on one machine, each as locked. Raises Problem."""
    requirements = "".join(pins.values())
    key = hashlib.sha256(requirements.encode()).hexdigest()[:12]
    home = WHEELS / f"{minor}-{machine}-{key}"
    if not home.exists():
        say(f"fetching packages for Python {minor} on {machine}")
        partial = Path(tempfile.mkdtemp(dir=WHEELS, prefix=".partial-"))
        try:
            locked = partial / "requirements.txt"
            locked.write_text(requirements, encoding="utf-8")
            words = ["download", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
            words += ["--python-version", minor, "--implementation", "cp"]
            for tag in tags:
                words += ["--platform", tag]
            pip([*words, "-d", partial, "-r", locked])
            partial.replace(home)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    wheels = sorted(home.glob("*.whl"))
    for wheel in wheels:  # the directory is only a cache; pip looked at it once
        if f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}" not in requirements:
            shutil.rmtree(home)
            raise Problem(f"{wheel.name} in .build/ was not as locked; it is removed, try again")
    if len(wheels) != len(pins):
        shutil.rmtree(home)
        raise Problem("packages in .build/ were missing; they are removed, try again")
    return wheels


def files_of(wheels: Iterable[Path]) -> dict[str, bytes]:
    """All that the wheels install, by path. Raises Problem when two bring the same file."""
    files: dict[str, bytes] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as opened:
            for info in opened.infolist():
                path = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", info.filename)
                if info.is_dir() or LEFT_OUT.search(path) or re.match(r"[^/]+\.data/", path):
                    continue
                if path in files:
                    raise Problem(f"{path} is in two packages, one of them {wheel.name}")
                try:
                    files[path] = without_debugging(opened.read(info))
                except ValueError as error:
                    raise Problem(f"{path} in {wheel.name} is {error}") from None
    return files


def glibc_of(wheels: Iterable[Path]) -> str:
    """The glibc that the wheels need, from their manylinux tags; empty where there is none."""
    needed = (0, 0)
    for wheel in wheels:
        tags = re.findall(r"manylinux_(\d+)_(\d+)_", wheel.name)
        if tags:  # a wheel with several tags runs wherever one of them does
            needed = max(needed, min((int(major), int(minor)) for major, minor in tags))
    return "{}.{}".format(*needed) if needed[0] else ""


# The archive


def own_files() -> dict[str, bytes]:
    """murder/ and plugins/ as they are in this checkout, and the licence."""
    files = {"murder/LICENSE": (ROOT / "LICENSE").read_bytes()}
    for home in ("murder", "plugins"):
        for path in sorted((ROOT / home).rglob("*")):
            parts = path.relative_to(ROOT).parts
            hidden = any(part.startswith((".", "__pycache__")) for part in parts)
            if path.is_file() and not hidden and path.suffix != ".pyc":
                files["/".join(parts)] = path.read_bytes()
    return files


def make_archive(minors: Sequence[str] = (), machines: Sequence[str] = ()) -> bytes:
    """The octets of dist/murder.pyz for these Pythons and machines, or for all that there are. Raises Problem."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    pins = read_lock()["runtime"]
    running = "{}.{}".format(*sys.version_info[:2])
    needed = {*minors} or {running}  # the others where wheels allow
    sets: dict[str, dict[str, bytes]] = {}
    glibc: dict[str, str] = {}
    for machine, tags in targets_of(machines).items():
        for minor in sorted(needed | set(() if minors else MINORS), key=numbers_of):
            try:
                wheels = fetch_wheels(minor, machine, tags, pins)
            except Problem as problem:
                if minor in needed and (machine in machines or machine == platform.machine()):
                    raise
                why = str(problem).strip().splitlines()[-1]
                say(f"leaving out Python {minor} on {machine}: {why}")
                continue
            sets[f"cp{minor.replace('.', '')}-{machine}"] = files_of(wheels)
            glibc[machine] = max(glibc.get(machine, ""), glibc_of(wheels), key=numbers_of)
    bootstrap = {name: (ROOT / source).read_bytes() for name, source in BOOTSTRAP.items()}
    try:
        octets, parts = pack(bootstrap, own_files(), sets, glibc)
    except ValueError as error:
        raise Problem(str(error)) from None
    say(", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in parts.items()))
    return octets


def numbers_of(version: str) -> list[int]:
    """To sort by; [] for none."""
    return [int(part) for part in version.split(".") if part]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
