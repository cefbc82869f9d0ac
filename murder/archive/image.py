"""An image for containers (OCI image format 1.0) out of the archive and a root file system that has a Python. Used by
build.py, never at run time.

The format is a few JSON documents and tar files, each named by its hash; it is written here, so that no container engine
is needed to build one, and the same root file system and archive give the same octets. What it stands on is somebody
else's: a tar of a system with Python 3.11 or later, as mmdebstrap or debootstrap make it, or `docker export` of an image.
"""

import gzip
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from murder.archive.debian import SHEBANG, TOML

USER: Final = "murder"
# of the system's own users (100 to 999), and not among the first that packages take
USER_ID: Final = 990
PASSWD: Final = f"{USER}:x:{USER_ID}:{USER_ID}::/var/lib/murder:/usr/sbin/nologin\n"
GROUP: Final = f"{USER}:x:{USER_ID}:\n"
OWN: Final = ("var/lib/murder", "var/cache/murder")  # folders of that user
LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
MMDEBSTRAP: Final = ("mmdebstrap", "--variant=minbase", "--include=python3,ca-certificates")
BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")  # what the kernel runs by other programs
MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Image:
    """What is told about an image; `when` in seconds since 1970."""

    version: str
    machine: str
    when: int


def lacking_for(machine: str, here: str, known: Path = BINFMT) -> str:
    """What this host lacks to set up a Debian of that machine, whose programs have to run for that; "" where it lacks
    nothing."""
    entry = known / f"qemu-{machine}"
    if machine == here or (entry.is_file() and "enabled" in entry.read_text()):
        return ""
    return (
        f"a Debian for {machine} is set up by programs of its own, and this kernel runs none: install qemu-user-static "
        f"and binfmt-support (it wants {known} mounted), or give --rootfs TAR: made by the same command on such a machine, "
        f"or `docker export` of an image for it with Python 3.11 or later"
    )


def format_image(rootfs: bytes, program: bytes, about: Image) -> bytes:
    """The octets of an OCI archive: a tar of the image's layout. `rootfs` is a tar, compressed or not.

    Raises ValueError where it has no Python 3.11 or later, or no users.
    """
    users = _users(rootfs)
    layers = [_plain(rootfs), _layer(program, users, about.when)]
    blobs: dict[str, bytes] = {}

    def blob(octets: bytes, kind: str, **more: object) -> dict[str, object]:
        digest = hashlib.sha256(octets).hexdigest()
        blobs[digest] = octets
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(octets), **more}

    config = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(about.when)),
        "architecture": MACHINES[about.machine],
        "os": "linux",
        "config": {
            "User": USER,
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG=C.UTF-8",
                "MURDER_CACHE=/var/cache/murder",
            ],
            "Entrypoint": ["/usr/bin/murder"],
            "Cmd": ["serve"],
            "Volumes": {"/var/lib/murder": {}},
            "WorkingDir": "/var/lib/murder",
            "StopSignal": "SIGTERM",
            "Labels": {"org.opencontainers.image.version": about.version},
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
        },
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(_json(config), CONFIG),
        "layers": [blob(gzip.compress(layer, 6, mtime=0), LAYER) for layer in layers],
    }
    named = {"org.opencontainers.image.ref.name": f"murder:{about.version}"}
    index = {"schemaVersion": 2, "manifests": [blob(_json(manifest), MANIFEST, annotations=named)]}
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    files |= {f"blobs/sha256/{digest}": octets for digest, octets in blobs.items()}
    return _tar(
        [(_entry(path, 0o644, about.when), octets) for path, octets in sorted(files.items())]
    )


def _plain(rootfs: bytes) -> bytes:
    return gzip.decompress(rootfs) if rootfs.startswith(b"\x1f\x8b") else rootfs


def _users(rootfs: bytes) -> dict[str, bytes]:
    """Its etc/passwd and etc/group, with ours. Raises ValueError."""
    files: dict[str, bytes] = {}
    pythons = set()
    with tarfile.open(fileobj=io.BytesIO(rootfs)) as tar:
        for member in tar:
            path = member.name.removeprefix("./").lstrip("/")
            if path in ("etc/passwd", "etc/group") and member.isfile():
                file = tar.extractfile(member)
                files[path] = file.read() if file else b""
            if path.startswith("usr/bin/python3."):
                pythons.add(path.removeprefix("usr/bin/python3."))
    if len(files) != 2:
        raise ValueError("the root file system has no etc/passwd and etc/group")
    if not any(minor.isdigit() and int(minor) >= 11 for minor in pythons):
        raise ValueError("the root file system has no /usr/bin/python3.11 or later")
    lines = {"etc/passwd": PASSWD, "etc/group": GROUP}
    return {path: files[path].rstrip(b"\n") + b"\n" + lines[path].encode() for path in files}


def _layer(program: bytes, users: Mapping[str, bytes], when: int) -> bytes:
    """The program, its user, their folders, and where the configuration goes."""
    entries: list[tuple[tarfile.TarInfo, bytes]] = []
    for path in OWN:
        folder = _entry(path, 0o700, when, tarfile.DIRTYPE)
        folder.uid = folder.gid = USER_ID
        folder.uname = folder.gname = USER
        entries.append((folder, b""))
    entries.append((_entry("etc/murder", 0o755, when, tarfile.DIRTYPE), b""))
    entries.append((_entry("etc/murder/murder.toml", 0o644, when), TOML.encode()))
    entries += [(_entry(path, 0o644, when), octets) for path, octets in users.items()]
    entries.append((_entry("usr/bin/murder", 0o755, when), SHEBANG + program.partition(b"\n")[2]))
    return _tar(sorted(entries, key=lambda it: it[0].name))


def _entry(path: str, mode: int, when: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.mtime = kind, mode, when
    info.uname = info.gname = "root"
    return info


def _tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, octets in entries:
            info.size = len(octets)
            tar.addfile(info, io.BytesIO(octets))
    return written.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
