"""The layout of the archive, out of files by their paths. Used by build.py, never at run time."""

import concurrent.futures
import hashlib
import io
import sys
import zipfile
from collections.abc import Mapping, Sequence
from typing import Final

BOOTSTRAP: Final = {  # entry of the archive -> its source
    "__main__.py": "murder/archive/entry.py",
    "murder_start.py": "murder/archive/start.py",
    "murder_unpack.py": "murder/archive/unpack.py",
}
SHEBANG: Final = b"#!/usr/bin/env python3\n"
FIXED_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the first a zip file can tell


def pack(
    bootstrap: Mapping[str, bytes],
    own: Mapping[str, bytes],
    sets: Mapping[str, Mapping[str, bytes]],
    glibc: Mapping[str, str],
) -> tuple[bytes, dict[str, int]]:
    """Lay out the archive: what all sets share goes to `any`, what all of a machine share to its own, and each set keeps
    the rest. `sets` are named as cp311-x86_64; `glibc` is what a machine needs, if that.

    Gives its octets, and how many each part takes. Raises ValueError where a package brings a file of ours.
    """
    common = shared(list(sets.values()))
    if clash := common.keys() & own.keys():
        raise ValueError(f"a package brings files of ours: {', '.join(sorted(clash))}")
    payloads = {"any": {**common, **own}}
    for machine in sorted({name.partition("-")[2] for name in sets}):
        its = {name: files for name, files in sets.items() if name.endswith(f"-{machine}")}
        all_have = shared(list(its.values())).keys() - common.keys()
        payloads[machine] = {path: next(iter(its.values()))[path] for path in all_have}
        for name, files in its.items():
            payloads[name] = {path: files[path] for path in files.keys() - common.keys() - all_have}
    manifest = "".join(
        f"{hashlib.sha256(files[path]).hexdigest()} {name} {path}\n"
        for name, files in payloads.items()
        for path in sorted(files)
    ).encode()
    facts = {
        "digest": hashlib.sha256(manifest).hexdigest(),
        "sets": " ".join(sets),
        "platform": sys.platform,
        **{f"glibc-{machine}": version for machine, version in glibc.items()},
    }
    entries = dict(bootstrap)
    entries["build.txt"] = "".join(f"{k} {v}\n" for k, v in facts.items() if v).encode()
    entries["manifest.txt"] = manifest
    with concurrent.futures.ThreadPoolExecutor() as pool:  # zlib lets other threads run
        zipped = pool.map(zip_files, payloads.values())
        parts = dict(zip(payloads, zipped, strict=True))
    entries |= {f"{name}.zip": octets for name, octets in parts.items()}
    sizes = {name: len(octets) for name, octets in parts.items()}
    return SHEBANG + zip_files(entries, compress=False), sizes


def shared(sets: Sequence[Mapping[str, bytes]]) -> dict[str, bytes]:
    """What is the same in all of them."""
    first, *others = sets
    return {
        path: octets
        for path, octets in first.items()
        if all(other.get(path) == octets for other in others)
    }


def zip_files(files: Mapping[str, bytes], *, compress: bool = True) -> bytes:
    """A zip file that depends on its contents only: sorted names, one time, one mode."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for path in sorted(files):
            info = zipfile.ZipInfo(path, FIXED_TIME)
            info.create_system = 3  # Unix
            info.external_attr = 0o100644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            archive.writestr(info, files[path], compresslevel=6)
    return written.getvalue()
