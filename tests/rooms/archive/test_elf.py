"""Shared objects without their debugging records: what is loaded of them is the same, and they do load."""

import importlib.machinery
import importlib.util
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from murder.archive.elf import without_debugging


def made(*segments: tuple[int, bytes], length: int) -> bytes:
    """A file of that length, full of letters, with program headers behind its header, and these segments."""
    octets = bytearray(b"x" * length)
    octets[:64] = b"\x7fELF\x02\x01".ljust(64, b"h")
    struct.pack_into("<QQ", octets, 32, 64, 4711)
    struct.pack_into("<HH", octets, 54, 56, len(segments))
    for number, (offset, content) in enumerate(segments):
        at = 64 + number * 56
        struct.pack_into("<Q", octets, at + 8, offset)
        struct.pack_into("<Q", octets, at + 32, len(content))
        octets[offset : offset + len(content)] = content
    return bytes(octets)


def test_what_is_behind_the_segments_goes_and_what_is_between_becomes_zeros() -> None:
    whole = made((200, b"code"), (300, b"data"), length=9000)
    cut = without_debugging(whole)
    assert len(cut) == 304
    assert cut[200:204] == b"code" and cut[300:304] == b"data"
    assert set(cut[204:300]) == {0}
    assert cut[:40] == whole[:40] and cut[64:176] == whole[64:176]
    assert cut[40:48] == bytes(8) and cut[58:64] == bytes(6)  # and no sections are promised
    assert without_debugging(cut) == cut


@pytest.mark.parametrize("octets", [b"", b"import os\n", b"\x7fELF\x01\x01" + bytes(80)])
def test_what_is_no_such_file_stays_as_it_is(octets: bytes) -> None:
    assert without_debugging(octets) == octets


@pytest.mark.parametrize("length", [6, 40, 100, 203])
def test_one_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="ELF file"):
        without_debugging(made((200, b"code"), length=400)[:length])


@pytest.mark.parametrize("name", ["lmdb.cpython", "uvloop.loop", "_cffi_backend"])
def test_a_real_one_is_smaller_and_loads(tmp_path: Path, name: str) -> None:
    """Its initialisation is run in a process of its own: it may be loaded once in one."""
    found = importlib.util.find_spec(name)
    assert found is not None and found.origin
    whole = Path(found.origin).read_bytes()
    cut = tmp_path / Path(found.origin).name
    cut.write_bytes(without_debugging(whole))
    assert cut.stat().st_size < len(whole)
    assert any(cut.name.endswith(one) for one in importlib.machinery.EXTENSION_SUFFIXES)
    program = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location({name!r}, {str(cut)!r})\n"
        "sys.modules[spec.name] = made = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(made)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
