"""The archive: reproducible, alone, for any user, at once, and safe from what happens to its cache."""

import contextlib
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache as cache_result
from pathlib import Path

import pytest

from tests.conftest import ROOT, cannot_run
from tests.kit.disks import small_disk
from tests.kit.ports import free_port
from tests.kit.waiting import until

NOBODY = 65534
LIMIT_S = 60


def start(
    archive: Path,
    *words: str,
    python: str = "",
    environ: Mapping[str, str] | None = None,
    user: int | None = None,
    limit: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the archive, with nothing of this environment but what is given."""
    python = python or (sys.executable if user is None else foreign_python())
    return subprocess.run(
        [python, archive, *words],
        env={"PATH": os.environ["PATH"], **(environ or {})},
        cwd=archive.parent,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.fixture
def alone(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The archive and nothing else, in a directory that every user reaches."""
    folder = Path("/tmp") / f"murder-alone-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir(mode=0o755)
    yield Path(shutil.copy(archive, folder))
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the files of the archive."""
    cache = tmp_path_factory.mktemp("unpacked")
    assert start(archive, "version", environ={"MURDER_CACHE": str(cache)}).returncode == 0
    return cache


@pytest.fixture
def cache(unpacked: Path, tmp_path: Path) -> Path:
    """A copy of such a cache, to spoil."""
    return Path(shutil.copytree(unpacked, tmp_path / "cache"))


def home_of(cache: Path) -> Path:
    homes = [path for path in (cache / "murder").iterdir() if path.is_dir()]
    assert len(homes) == 1, homes
    return homes[0]


def foreign_user() -> int:
    if os.getuid() != 0:
        cannot_run("only root can run a program as another user")
    return NOBODY


@cache_result
def foreign_python() -> str:
    """A Python that the archive serves and that another user may run; ours may be in root's home."""
    user = foreign_user()
    folders = ["/usr/bin", "/usr/local/bin"]
    names = [f"{folder}/python3.{minor}" for folder in folders for minor in range(11, 15)]
    for python in (sys.executable, *names):
        with contextlib.suppress(OSError):
            if (
                subprocess.run([python, "-c", ""], user=user, group=user, check=False).returncode
                == 0
            ):
                return python
    cannot_run("no Python 3.11 or newer here may be run by another user")


# build.py


def test_two_builds_give_the_same_octets(archive: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir(mode=0o700)
    for name in ("build.py", "pyproject.toml", "LICENSE", ".requirements.lock"):
        shutil.copyfile(ROOT / name, other / name)
    junk = shutil.ignore_patterns("__pycache__")
    for name in ("murder", "plugins"):
        shutil.copytree(ROOT / name, other / name, ignore=junk, copy_function=shutil.copyfile)
    shutil.copytree(ROOT / ".build" / "wheels", other / ".build" / "wheels")
    environ = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, other / "build.py"], env=environ, check=True, cwd=tmp_path)
    assert (other / "dist" / "murder.pyz").read_bytes() == archive.read_bytes()


def test_an_archive_for_one_python_and_machine_is_small_and_says_what_it_is_for(
    archive: Path, tmp_path: Path
) -> None:
    small = tmp_path / "murder.pyz"
    minor, machine = "{}.{}".format(*sys.version_info), os.uname().machine
    words = "archive", "--python", minor, "--machine", machine, "--out", str(small)
    subprocess.run([sys.executable, ROOT / "build.py", *words], check=True, capture_output=True)
    assert small.stat().st_size < archive.stat().st_size / 2
    environ = {"MURDER_CACHE": str(tmp_path)}
    assert start(small, "version", environ=environ).stdout.startswith("murder ")
    tag = f"cp{minor.replace('.', '')}"
    with zipfile.ZipFile(small) as opened:
        payloads = {name for name in opened.namelist() if name.endswith(".zip")}
    assert payloads == {"any.zip", f"{machine}.zip", f"{tag}-{machine}.zip"}
    for other in other_pythons():
        if (3, 11) <= minor_of(other) <= (3, 14):
            done = start(small, "version", python=other, environ=environ)
            assert done.returncode == 2
            assert f"this archive has files for Python {minor}; this is " in done.stderr


def test_another_machine_is_told_which_ones_the_archive_is_for(archive: Path) -> None:
    if shutil.which("setarch") is None or os.uname().machine != "x86_64":
        pytest.skip("nothing here can pass for another machine")
    done = subprocess.run(
        ["setarch", "i686", sys.executable, archive, "version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "murder: this archive was built for linux on aarch64 or x86_64, and this is linux on i686\n"
    )


def test_the_archive_has_native_parts_for_both_machines(archive: Path) -> None:
    """Of the same packages, each for its own: machine 62 is x86-64, 183 is Arm (ELF's e_machine)."""
    for machine, number in (("x86_64", 62), ("aarch64", 183)):
        seen = []
        with zipfile.ZipFile(archive) as opened:
            for payload in (f"{machine}.zip", f"cp311-{machine}.zip", f"cp312-{machine}.zip"):
                with zipfile.ZipFile(io.BytesIO(opened.read(payload))) as inner:
                    objects = [name for name in inner.namelist() if name.endswith(".so")]
                    assert {inner.read(one)[18] for one in objects} == {number}, payload
                    seen += [name.partition("/")[0] for name in objects]
        assert {"cryptography", "lmdb", "re2", "uvloop"} <= set(seen)


def test_an_unknown_target_is_named_and_ends_with_two() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "build.py", "archve"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "'archve'" in done.stderr and "demo" in done.stderr


def test_help_tells_all_targets() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "build.py", "--help"], capture_output=True, text=True, check=True
    )
    assert all(
        f"build.py {name}" in done.stdout for name in ("demo", "test", "bench", "fuzz", "lock")
    )


def test_a_benchmark_starts(archive: Path) -> None:
    subprocess.run(
        [sys.executable, ROOT / "build.py", "bench", "mupdate", "--help"],
        capture_output=True,
        check=True,
        cwd=archive.parent,
    )


@pytest.mark.parametrize(
    "module",
    ["load.mupdate", *(f"bench.{path.stem}" for path in (ROOT / "tests" / "bench").glob("*.py"))],
)
def test_what_measures_tells_how_to_use_it(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.{module}", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "usage:" in done.stdout


# Where it runs


@pytest.mark.parametrize("home", [None, "", "/nonexistent", "an empty one"])
def test_it_runs_alone_for_another_user_without_a_home(alone: Path, home: str | None) -> None:
    user = foreign_user()
    environ = {} if home is None else {"HOME": home}
    temporary = alone.parent / "tmp"
    temporary.mkdir()
    os.chown(temporary, user, user)
    environ["TMPDIR"] = str(temporary)
    if home == "an empty one":
        environ["HOME"] = str(alone.parent / "home")
        Path(environ["HOME"]).mkdir()
        os.chown(environ["HOME"], user, user)
    for words, expected in ((("version",), "murder "), (("config", "example"), "[node]")):
        done = start(alone, *words, environ=environ, user=user)
        assert (done.returncode, done.stderr) == (0, "")
        assert expected in done.stdout
    used = Path(environ["HOME"], ".cache") if home == "an empty one" else temporary
    assert [path.stat().st_mode & 0o777 for path in used.iterdir()] == [0o700]


def test_root_with_the_home_of_another_leaves_nothing_there(alone: Path, tmp_path: Path) -> None:
    foreign_user()
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    for folder in (home, temporary):
        folder.mkdir()
    os.chown(home, NOBODY, NOBODY)
    environ = {"HOME": str(home), "TMPDIR": str(temporary)}
    assert start(alone, "version", environ=environ).returncode == 0
    assert list(home.iterdir()) == []


def other_pythons() -> list[str]:
    """Every other Python that this machine has, one of each minor version."""
    folders = [*os.environ["PATH"].split(":"), "/usr/bin", "/usr/local/bin"]
    folders += [str(p) for p in Path.home().glob(".pyenv/versions/*/bin")]
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("python[23].*")):
            if path.name.removeprefix("python").replace(".", "").isdigit():
                probe = subprocess.run([path, "-c", ""], capture_output=True, check=False)
                if probe.returncode == 0:
                    found.setdefault(path.name, str(path))
    return [path for name, path in found.items() if name != "python{}.{}".format(*sys.version_info)]


def minor_of(python: str) -> tuple[int, ...]:
    return tuple(int(part) for part in Path(python).name.removeprefix("python").split("."))


@pytest.mark.parametrize("python", other_pythons(), ids=lambda path: Path(path).name)
def test_it_runs_on_the_other_pythons_here_or_says_why_not(
    archive: Path, tmp_path: Path, python: str
) -> None:
    done = start(archive, "version", python=python, environ={"MURDER_CACHE": str(tmp_path)})
    if (3, 11) <= minor_of(python) <= (3, 14):
        assert (done.returncode, done.stderr) == (0, "")
        done = start(
            *(archive, "ca", "init", "--dir", str(tmp_path / "ca")),
            python=python,
            environ={"MURDER_CACHE": str(tmp_path)},
        )
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 2
        assert done.stderr.startswith("murder: ") and done.stderr.count("\n") == 1
        assert "Python 3.11" in done.stderr


# The cache


def test_a_warm_start_loads_only_what_it_needs(archive: Path, unpacked: Path) -> None:
    done = start(
        archive, "version", environ={"MURDER_CACHE": str(unpacked), "PYTHONPROFILEIMPORTTIME": "1"}
    )
    mine = done.stderr.partition("murder_start")[2]
    assert "fcntl" in mine
    for heavy in ("zipfile", "hashlib", "typing", "contextlib", "asyncclick", "asyncio"):
        assert f" {heavy}\n" not in mine


def test_a_cache_that_cannot_be_written_is_named(alone: Path) -> None:
    user = foreign_user()
    frozen = alone.parent / "frozen"
    frozen.mkdir(mode=0o555)
    done = start(alone, "version", environ={"MURDER_CACHE": str(frozen)}, user=user)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(frozen) in done.stderr and "Permission denied" in done.stderr
    assert "MURDER_CACHE" in done.stderr


def test_a_read_only_cache_that_is_complete_serves(alone: Path, unpacked: Path) -> None:
    user = foreign_user()
    cache = Path(shutil.copytree(unpacked, alone.parent / "cache"))
    paths = [cache, *cache.rglob("*")]
    for path in paths:
        os.chown(path, user, user)
    for path in reversed(paths):
        path.chmod(0o500 if path.is_dir() else 0o400)
    done = start(alone, "version", environ={"MURDER_CACHE": str(cache)}, user=user)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_cache_is_named_and_nothing_is_left(archive: Path, tmp_path: Path) -> None:
    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = start(archive, "version", environ={"MURDER_CACHE": str(tmp_path)}, limit=full)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr and "File too large" in done.stderr
    assert {path.name for path in (tmp_path / "murder").iterdir()} == {".lock"}


def test_a_full_disk_is_named(archive: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        disk.chmod(0o700)
        done = start(archive, "version", environ={"MURDER_CACHE": str(disk)})
    assert done.returncode == 2
    assert str(disk) in done.stderr and "No space left" in done.stderr


def test_first_starts_at_once_all_work(archive: Path, tmp_path: Path) -> None:
    starts = [
        subprocess.Popen(
            [sys.executable, archive, "version"],
            env={"PATH": os.environ["PATH"], "MURDER_CACHE": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    said = [process.communicate(timeout=LIMIT_S) for process in starts]
    assert [process.returncode for process in starts] == [0] * 4, said
    assert {errors for _, errors in said} == {b""}
    home = home_of(tmp_path)
    names = {home.name, f"{home.name}.record", f"{home.name}.used", ".lock"}
    assert {path.name for path in home.parent.iterdir()} == names


def test_a_first_start_that_was_killed_does_no_harm(archive: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, archive, "version"],
        env={"PATH": os.environ["PATH"], "MURDER_CACHE": str(tmp_path)},
    )
    unpacking = "murder/.unpacking-*/murder"
    until(lambda: list(tmp_path.glob(unpacking)), "it unpacks", LIMIT_S, every_s=0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob("murder/.unpacking-*"))
    assert start(archive, "version", environ={"MURDER_CACHE": str(tmp_path)}).returncode == 0
    assert not list(tmp_path.glob("murder/.unpacking-*"))


def change(path: Path) -> None:
    """Other contents of the same length, and the old time of change."""
    before = path.stat()
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    path.write_bytes(octets)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def link(path: Path) -> None:
    path.rename(path.parent.parent / "away")
    path.symlink_to(path.parent.parent / "away")


TAMPERING: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    "a changed module": ("murder/errors.py", change),
    "a changed compiled module": ("murder/__pycache__/errors.*.pyc", change),
    "a changed shared object": ("lmdb/cpython.*.so", change),
    "a truncated shared object": ("uvloop/loop.*.so", lambda path: os.truncate(path, 4096)),
    "an emptied module": ("murder/config/load.py", lambda path: os.truncate(path, 0)),
    "a missing module": ("murder/config/load.py", Path.unlink),
    "a missing package": ("pluggy", shutil.rmtree),
    "a module too many": ("murder", lambda path: (path / "socket.py").write_text("evil = 1")),
    "a top-level module too many": ("", lambda path: (path / "ssl.py").write_text("evil = 1")),
    "a link instead of a module": ("murder/errors.py", link),
    "a module that others may write": ("murder/errors.py", lambda path: path.chmod(0o666)),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_a_tampered_cache_is_noticed_and_mended(archive: Path, cache: Path, what: str) -> None:
    environ = {"MURDER_CACHE": str(cache)}
    assert start(archive, "version", environ=environ).stderr == ""  # a copy is as good
    home = home_of(cache)
    pattern, spoil = TAMPERING[what]
    path = next(home.glob(pattern)) if pattern else home
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    spoil(path)
    done = start(archive, "version", environ=environ)
    assert (done.returncode, done.stdout[:7]) == (0, "murder ")
    assert "was changed since it was unpacked" in done.stderr
    named = {"murder": "murder/socket.py", "": "ssl.py"}.get(pattern, path.name)
    assert named in done.stderr
    after = {p: p.read_bytes() for p in home.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert after == before
    assert start(archive, "config", "example", environ=environ).stderr == ""


def test_a_record_that_is_damaged_is_made_anew(archive: Path, cache: Path) -> None:
    record = next((cache / "murder").glob("*.record"))
    os.truncate(record, 1000)
    done = start(archive, "version", environ={"MURDER_CACHE": str(cache)})
    assert (done.returncode, done.stderr) == (0, "")
    assert record.read_text().rstrip().rpartition("\n")[2].startswith("end ")


@pytest.mark.parametrize("level", ["murder", "murder/*-cp*[0-9]"])
def test_a_cache_that_others_may_write_is_refused(archive: Path, cache: Path, level: str) -> None:
    path = next(cache.glob(level))
    path.chmod(0o770)
    done = start(archive, "version", environ={"MURDER_CACHE": str(cache)})
    assert done.returncode == 2
    assert f"the cache {path} can be written by others (mode 0770)" in done.stderr


@pytest.mark.parametrize("how", ["another's", "everyone's", "another's link"])
def test_a_cache_whose_place_others_could_take_is_refused(
    archive: Path, cache: Path, tmp_path: Path, how: str
) -> None:
    above = tmp_path / "above"
    (above / "between").mkdir(parents=True)
    place = above / "between" / "cache"
    match how:
        case "everyone's":
            above.chmod(0o777)
        case _ if os.geteuid():
            pytest.skip("only root gives a folder away")
        case "another's":
            os.chown(above, NOBODY - 1, NOBODY - 1)
        case _:
            (tmp_path / "link").symlink_to(above)
            os.chown(tmp_path / "link", NOBODY - 1, NOBODY - 1, follow_symlinks=False)
            place = tmp_path / "link" / "between" / "cache"
    done = start(archive, "--version", environ={"MURDER_CACHE": str(place)})
    assert done.returncode and str(above if how != "another's link" else tmp_path) in done.stderr


def test_a_cache_of_another_user_is_refused(archive: Path, cache: Path) -> None:
    foreign_user()
    os.chown(cache / "murder", NOBODY, NOBODY)
    done = start(archive, "version", environ={"MURDER_CACHE": str(cache)})
    assert done.returncode == 2
    assert f"the cache {cache / 'murder'} belongs to user id {NOBODY}" in done.stderr


def test_a_link_planted_in_the_temporary_directory_is_refused(alone: Path) -> None:
    user = foreign_user()
    temporary, trap = alone.parent / "tmp", alone.parent / "trap"
    temporary.mkdir()
    temporary.chmod(0o1777)
    trap.mkdir(mode=0o700)
    os.chown(trap, user, user)
    (temporary / f"murder-{user}").symlink_to(trap)
    done = start(alone, "version", environ={"TMPDIR": str(temporary)}, user=user)
    assert done.returncode == 2
    assert "is not a directory" in done.stderr
    assert list(trap.iterdir()) == []


@pytest.mark.parametrize("percent", [1, 30, 50, 99])
def test_a_damaged_archive_says_so(archive: Path, tmp_path: Path, percent: int) -> None:
    """Whatever becomes of names, compressed octets or the directory within."""
    octets = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        payload = opened.getinfo("any.zip")
    spot = payload.header_offset + payload.file_size * percent // 100
    octets[spot : spot + 4096] = bytes(4096)
    damaged = tmp_path / "murder.pyz"
    damaged.write_bytes(octets)
    done = start(damaged, "version", environ={"MURDER_CACHE": str(tmp_path)})
    assert done.returncode == 2
    assert done.stderr.startswith(f"murder: the archive {damaged} is damaged")
    assert done.stderr.count("\n") == 1


def test_files_of_archives_long_unused_are_cleared_away(archive: Path, cache: Path) -> None:
    home = home_of(cache)
    long_ago = time.time() - 60 * 86400
    for name in ("0123456789abcdef-cp311-x86_64", "fedcba9876543210-cp311-x86_64"):
        (home.parent / name).mkdir(mode=0o700)
        (home.parent / f"{name}.record").write_text("")
        used = home.parent / f"{name}.used"
        used.write_text("")
        if name[0] == "0":
            os.utime(used, (long_ago, long_ago))
    next(home.parent.glob(f"{home.name}.record")).unlink()
    assert start(archive, "version", environ={"MURDER_CACHE": str(cache)}).returncode == 0
    assert not list(home.parent.glob("0123*"))
    assert len(list(home.parent.glob("fedc*"))) == 3


def test_root_checks_a_configuration_with_the_eyes_of_the_node_s_user(
    alone: Path, unpacked: Path, tmp_path: Path
) -> None:
    """Who does not see where root's archive is unpacked."""
    if os.geteuid() != 0:
        cannot_run("only root can look as another user")
    folder = alone.parent
    (folder / "data").mkdir()
    os.chown(folder / "data", NOBODY, NOBODY)
    secret, config = folder / "secret", folder / "murder.toml"
    config.write_text(
        f'[node]\nname = "be.test"\nuser = "nobody"\ndata = "{folder}/data"\n'
        '[mupdate]\nmaster = "127.0.0.1:3905"\nmaster_auth = "plain"\nmaster_user = "be"\n'
        f'master_password_file = "secret"\n[backend]\nimap = ["127.0.0.1:{free_port()}"]\n'
    )
    secret.write_text("hunter2")
    secret.chmod(0o600)
    words = "config", "check", "--config", str(config), "--role", "backend"
    said = start(alone, *words, environ={"MURDER_CACHE": str(unpacked)})
    assert said.returncode == 2
    (line,) = said.stderr.splitlines()
    assert "mupdate.master_password_file" in line
    assert "secret cannot be read by user nobody; chown it to that user, chmod 600" in line
    folder.chmod(0o700)
    said = start(alone, *words, environ={"MURDER_CACHE": str(unpacked)})
    assert f"user nobody may not enter {folder}; chmod o+x or chown that folder" in said.stderr
    folder.chmod(0o755)
    os.chown(secret, NOBODY, NOBODY)
    said = start(alone, *words, environ={"MURDER_CACHE": str(unpacked)})
    assert (said.returncode, said.stderr) == (0, "")
