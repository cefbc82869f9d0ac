"""The image for containers: its layout as another's tool reads it, and that the program runs on what comes out of it."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from murder import __version__
from murder.archive.image import USER_ID, Image, format_image, lacking_for
from tests.conftest import cannot_run
from tests.kit.demo import wanted
from tests.kit.process import ROOT

# what a Python needs, as it lies on this host: a root file system without a network
PACKAGES = (
    "base-files base-passwd coreutils dash libacl1 libattr1 libbz2-1.0 libc-bin libc6 libexpat1 libffi8 libgcc-s1 "
    "libgmp10 liblzma5 libpcre2-8-0 libpython3.11-minimal libpython3.11-stdlib libselinux1 libssl3 libstdc++6 libuuid1 "
    "libsqlite3-0 python3 python3-minimal python3.11 python3.11-minimal zlib1g"
).split()


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    listed = subprocess.run(["dpkg", "-L", *PACKAGES], capture_output=True, text=True, check=False)
    if listed.returncode:
        cannot_run(
            f"a Debian 12 with its Python makes the root file system: {listed.stderr.strip()}"
        )
    file = tmp_path_factory.mktemp("rootfs") / "rootfs.tar"
    with tarfile.open(file, "w") as tar:
        for folder in ("bin", "sbin", "lib", "lib64"):
            tar.add(f"/{folder}", f"./{folder}")  # links into usr
        for path in sorted({"/etc/passwd", "/etc/group", *listed.stdout.splitlines()}):
            kept = path.startswith(("/usr/bin/", "/usr/lib/", "/usr/sbin/", "/etc/"))
            path = re.sub(r"^/(bin|sbin|lib|lib64)/", r"/usr/\1/", path)
            if (kept or path.startswith("/usr/lib")) and os.path.lexists(path):
                tar.add(path, f".{path}", recursive=False)
        made = tarfile.TarInfo("./tmp")
        made.type, made.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(made)
    return file


def test_another_tool_unpacks_it_and_the_program_runs_there_as_its_user(
    archive: Path, rootfs: Path, tmp_path: Path
) -> None:
    if missing := wanted("umoci", "chroot"):
        cannot_run(missing)
    if os.geteuid() != 0:
        cannot_run("only root unpacks files of several users")
    words = ["image", "--archive", str(archive), "--rootfs", str(rootfs)]
    done = subprocess.run(
        [sys.executable, ROOT / "build.py", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (made,) = re.findall(r"dist/\S+\.oci\.tar", done.stderr)
    with tarfile.open(ROOT / made) as tar:
        tar.extractall(tmp_path / "layout", filter="data")
    (ROOT / made).unlink()
    bundle = tmp_path / "bundle"
    subprocess.run(
        ["umoci", "unpack", "--image", f"{tmp_path / 'layout'}:murder:{__version__}", bundle],
        check=True,
    )
    config = (bundle / "config.json").read_text()
    assert '"/usr/bin/murder"' in config and f'"uid": {USER_ID}' in config
    user = f"--userspec={USER_ID}:{USER_ID}"
    environ = {
        "PATH": "/usr/sbin:/usr/bin:/bin",
        "MURDER_CACHE": "/var/cache/murder",
        "LANG": "C.UTF-8",
    }
    for line, said in (
        ("version", f"murder {__version__}\n"),
        ("ca init --dir /var/lib/murder/ca", "ca.pem"),
        ("help install", "# Install it"),
    ):
        run = subprocess.run(
            ["chroot", user, bundle / "rootfs", "/usr/bin/murder", *line.split()],
            capture_output=True,
            text=True,
            check=False,
            env=environ,
        )
        assert run.returncode == 0 and said in run.stdout, run.stderr
    assert (bundle / "rootfs/var/lib/murder/ca/ca.key").stat().st_uid == USER_ID


def tar_of(folder: Path, *names: str) -> bytes:
    """A tar of files with a little in them."""
    file = folder / "made.tar"
    (folder / "some").write_text("root:x:0:0::/root:/bin/sh\n")
    with tarfile.open(file, "w") as tar:
        for name in names:
            tar.add(folder / "some", name)
    return file.read_bytes()


def test_the_same_parts_give_the_same_image_and_no_python_none(tmp_path: Path) -> None:
    about = Image("0.1.0", "x86_64", 1_000_000_000)
    users = ("./etc/passwd", "./etc/group")
    whole = tar_of(tmp_path, *users, "./usr/bin/python3.11")
    assert format_image(whole, b"#!\nx", about) == format_image(whole, b"#!\nx", about)
    with pytest.raises(ValueError, match=r"no /usr/bin/python3\.11"):
        format_image(tar_of(tmp_path, *users, "./usr/bin/python3.9"), b"#!\nx", about)
    with pytest.raises(ValueError, match="no etc/passwd"):
        format_image(tar_of(tmp_path, "./usr/bin/python3.11"), b"#!\nx", about)


def test_what_a_foreign_machine_wants_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    assert lacking_for("x86_64", "x86_64", tmp_path) == ""
    said = lacking_for("aarch64", "x86_64", tmp_path)
    assert "binfmt-support" in said and "--rootfs" in said
    (tmp_path / "qemu-aarch64").write_text("disabled\n")
    assert lacking_for("aarch64", "x86_64", tmp_path)
    (tmp_path / "qemu-aarch64").write_text("enabled\ninterpreter /usr/bin/qemu-aarch64-static\n")
    assert lacking_for("aarch64", "x86_64", tmp_path) == ""
