"""A power cut, simulated: what programs do to a folder is recorded, and made again as a disk might hold it afterwards.

    story = Story(root)                       # what stands in root now counts as durable
    subprocess.Popen(story.traced(command))   # … let it work, then end it
    for disk in story.cuts(random, number=100):
        disk.write_to(copy, random)           # the folder after a cut at this moment: open it, check it
        disk.sent                             # what the programs had said to their TCP peers until then, by peer
    for disk in story.syncs():
        disk.write_to(copy, Bare())           # each step of what is owed, and nothing but what is owed

A disk owes what was fsynced and nothing else. Of everything else `write_to` takes what it likes: each write whole, torn at
sectors, or not at all, in any order; sizes; and names (create, rename, unlink) up to some moment, unless their folder
was fsynced. Files that are mapped for writing (`lock.mdb`, `-shm`) hold nothing that must last, and are left out.

It needs strace (`MISSING` says so), sees all threads and child processes, and costs each system call about 30 µs.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any, Final

MISSING: Final = "" if shutil.which("strace") else "strace is not installed"
SECTOR: Final = 512
_CALLS: Final = (
    "open openat creat close dup dup2 dup3 fcntl clone clone3 fork vfork lseek write writev pwrite64 pwritev pwritev2 "
    "sendto sendmsg ftruncate truncate fallocate fsync fdatasync mmap rename renameat renameat2 link linkat symlink "
    "symlinkat unlink unlinkat rmdir mkdir mkdirat sendfile copy_file_range sync_file_range"
).split()
_LINE: Final = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)", re.DOTALL)
_UNFINISHED: Final = " <unfinished ...>"
_RESULT: Final = re.compile(r"\) += (-?\d+|\?)")
_DESCRIPTOR: Final = re.compile(r"(AT_FDCWD|\d+)<([A-Z0-9-]+:\[[^\]]*\]|[^>]*)>")
_ESCAPED: Final = re.compile(r"(?:\\x[0-9a-f]{2})+")
_STRING: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_PEER: Final = re.compile(r"(?:TCP|TCPv6):\[.*->(.*)\]\Z")
_SOCKET: Final = re.compile(r"(?:socket|TCP|TCPv6):\[\d+\]\Z")
"""What strace writes of a socket that the kernel's table, read while others change it, did not show this time."""


def _octets(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def _path(escaped: str) -> str:
    return _ESCAPED.sub(
        lambda match: _octets(match.group()).decode("utf-8", "surrogateescape"), escaped
    )


class Bare(Random):
    """Draws that leave a disk with what was fsynced alone."""

    def randint(self, a: int, b: int) -> int:
        return a

    def choice(self, seq: Any) -> Any:
        return seq[0]


@dataclass(eq=False, slots=True)
class _File:
    """A file: what is safe, and what came after, in order. A piece without octets sets the size."""

    safe: bytearray = field(default_factory=bytearray)
    pieces: list[tuple[int, bytearray | None]] = field(default_factory=list)
    size: int = 0

    def add(self, offset: int | None, octets: bytes) -> tuple[int, bytearray | None]:
        at = self.size if offset is None else offset
        piece: tuple[int, bytearray | None] = at, bytearray(octets)
        self.pieces.append(piece)
        self.size = max(self.size, at + len(octets))
        return piece

    def resize(self, size: int) -> None:
        self.pieces.append((size, None))
        self.size = size

    def sync(self, number: int) -> None:
        """The first pieces are safe."""
        for piece in self.pieces[:number]:
            _apply(self.safe, *piece)
        del self.pieces[:number]

    def sync_one(self, piece: tuple[int, bytearray | None]) -> None:
        """O_DSYNC: this piece is safe; what lies below it and was to be written earlier is overwritten there."""
        at = next((i for i, one in enumerate(self.pieces) if one is piece), None)
        if at is None:
            return
        begin, octets = piece
        assert octets is not None
        for other, theirs in self.pieces[:at]:
            if theirs is not None:
                for i in range(max(begin, other), min(begin + len(octets), other + len(theirs))):
                    theirs[i - other] = octets[i - begin]
        _apply(self.safe, *piece)
        del self.pieces[at]

    def after_cut(self, random: Random) -> bytearray:
        found = bytearray(self.safe)
        # "nothing" first: `Bare`
        how = random.choice(("nothing", "everything", "some", "torn", "torn"))
        for offset, octets in self.pieces if how != "nothing" else ():
            if how != "everything" and random.random() < 0.5:
                continue
            if how != "torn" or octets is None:
                _apply(found, offset, octets)
                continue
            at = 0
            while at < len(octets):  # each sector for itself
                end = min(len(octets), (offset + at) // SECTOR * SECTOR + SECTOR - offset)
                if random.random() < 0.5:
                    _apply(found, offset + at, octets[at:end])
                at = end
        return found


def _apply(content: bytearray, offset: int, octets: bytearray | None) -> None:
    if octets is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(octets)] = octets


Node = _File | None  # None: a folder
Change = tuple[tuple[str, ...], dict[str, "Node | str"]]
"""Folders it touches; path → what is there now, or "" for nothing."""


class Disk:
    """The folder at one moment: what is safe, and what waits."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sent: dict[str, bytes] = {}
        self.live: dict[str, Node] = {str(root): None}
        for path in sorted(root.rglob("*")):
            content = None if path.is_dir() else bytearray(path.read_bytes())
            self.live[str(path)] = None if content is None else _File(content, size=len(content))
        self._safe = dict(self.live)
        self._names: list[Change] = []
        self.mapped: set[_File] = set()

    def rename(self, changes: dict[str, "Node | str"]) -> None:
        """Names come and go together."""
        _name(self.live, changes)
        self._names.append((tuple({str(PurePosixPath(one).parent) for one in changes}), changes))

    def sync_folder(self, path: str) -> None:
        for folders, changes in self._names:
            if path in folders:
                _name(self._safe, changes)
        self._names = [one for one in self._names if path not in one[0]]

    def write_to(self, copy: Path, random: Random) -> None:
        """Make the folder `copy` (anew) what the disk may hold after a cut now."""
        shutil.rmtree(copy, ignore_errors=True)
        names = dict(self._safe)
        for _, changes in self._names[: random.randint(0, len(self._names))]:
            _name(names, changes)
        for path in sorted(names):
            target = copy / PurePosixPath(path).relative_to(self.root)
            node = names[path]
            if path != str(self.root) and not target.parent.is_dir():
                continue  # its folder's own name was lost
            if node is None:
                target.mkdir(exist_ok=True, parents=path == str(self.root))
            elif node not in self.mapped:
                target.write_bytes(node.after_cut(random))


def _name(names: dict[str, Node], changes: dict[str, "Node | str"]) -> None:
    for path, node in changes.items():
        if isinstance(node, str):
            names.pop(path, None)
        else:
            names[path] = node


@dataclass(slots=True)
class _Call:
    """A system call; `begin` and `end` are lines of the recording."""

    process: int
    name: str
    text: str
    begin: int
    end: int = -1
    result: int = -1
    waits: int = 0  # for a sync: how many pieces it makes safe; the piece itself for O_DSYNC
    file: _File | None = None
    piece: tuple[int, bytearray | None] | None = None

    def descriptors(self) -> list[tuple[str, str]]:
        return [(number, _path(path)) for number, path in _DESCRIPTOR.findall(self.text)]

    def strings(self) -> list[bytes]:
        return [_octets(one) for one in _STRING.findall(self.text)]

    def numbers(self) -> list[int]:
        """The plain numbers among the arguments."""
        bare = _STRING.sub("", _DESCRIPTOR.sub("", self.text[: self.text.rfind(")")]))
        return [int(one) for one in re.findall(r"(?<![\w.])-?\d+\b", bare)]


class _Open:
    """An open file: where its next write goes, and whether writes are durable at once. Copies of a descriptor share it."""

    def __init__(self, flags: str) -> None:
        self.at = 0
        self.appends = "O_APPEND" in flags
        self.is_dsync = "O_DSYNC" in flags or "O_SYNC" in flags


class Story:
    """What programs did below `root`, from the beginning."""

    def __init__(self, root: Path, log: Path | None = None) -> None:
        self.root = root.resolve()
        self.log = log or self.root.with_name(self.root.name + ".strace")
        self._disk = Disk(self.root)
        self._groups: dict[int, int] = {}
        self._opens: dict[tuple[int, str], _Open] = {}
        self._peers: dict[tuple[int, str], str] = {}
        self.unclear: list[str] = []  # lines of the recording that it could not read

    def traced(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` and records it."""
        calls = "trace=" + ",".join(_CALLS)
        options = ["-f", "-qq", "--seccomp-bpf", "-yy", "-xx", "-s", "100000000", "-e", calls]
        return ["strace", *options, "-e", "signal=none", "-o", str(self.log), "--", *command]

    def cuts(self, random: Random, number: int) -> Iterator[Disk]:
        """The disk at so many random moments and at the end, in order: one object, which moves on. Ask once."""
        moments = self._moments()
        touched = [i for i, (_, _, call) in enumerate(moments) if self._concerns_root(call)]
        chosen = iter(sorted(random.choices(touched, k=number)))
        cut = next(chosen, None)
        for i, (_, is_end, call) in enumerate(moments):
            (self._end if is_end else self._begin)(call)
            while cut == i:
                yield self._disk
                cut = next(chosen, None)
        yield self._disk

    def syncs(self) -> Iterator[Disk]:
        """The disk after each call that has made something durable, in order: one object, which moves on. Ask once."""
        for _, is_end, call in self._moments():
            (self._end if is_end else self._begin)(call)
            is_sync = call.name in ("fsync", "fdatasync") or call.piece is not None
            if is_end and is_sync and self._concerns_root(call):
                yield self._disk

    def _moments(self) -> list[tuple[int, int, _Call]]:
        """Line, begin (0) or end (1), and the call."""
        calls = list(self._calls())
        return sorted(
            [(call.begin, 0, call) for call in calls] + [(call.end, 1, call) for call in calls],
            key=lambda one: one[:2],
        )

    def _concerns_root(self, call: _Call) -> bool:
        return any(path.startswith(f"{self.root}/") for _, path in call.descriptors())

    def _calls(self) -> Iterator[_Call]:
        pending: dict[int, _Call] = {}
        with self.log.open(encoding="ascii", errors="replace") as lines:
            for at, line in enumerate(lines):
                match = _LINE.match(line)
                if match is None:
                    self.unclear.append(line[:200])
                    continue
                process, resumed, name, text = match.groups()
                if resumed:
                    call = pending.pop(int(process))
                    call.text += text
                else:
                    call = _Call(int(process), name, text.removesuffix("\n"), at)
                    if call.text.endswith(_UNFINISHED):
                        call.text = call.text.removesuffix(_UNFINISHED)
                        pending[call.process] = call
                        continue
                result = _RESULT.search(call.text[call.text.rfind(")") :])
                if result is not None and result.group(1) == "?":
                    pending[call.process] = call
                    continue
                call.end, call.result = at, int(result.group(1)) if result else -1
                yield call
        # the end came in the middle of it, or before strace saw what came of it: it began
        for call in pending.values():
            call.end, call.result = 1 << 60, len(b"".join(call.strings()))
            yield call

    # What calls do

    def _inside(self, path: str) -> bool:
        return path.startswith(f"{self.root}/") or path == str(self.root)

    def _opened(self, call: _Call) -> tuple[_Open | None, _File | None, str]:
        """The open file of the call's first descriptor; nothing where it is not below the root."""
        number, path = (call.descriptors() or [("", "")])[0]
        node = self._disk.live.get(path)
        opened = self._opens.get((self._group(call.process), number))
        return opened, node, path if self._inside(path) else ""

    def _group(self, process: int) -> int:
        return self._groups.setdefault(process, process)

    def _begin(self, call: _Call) -> None:
        if call.result < 0:
            return
        if call.name in ("clone", "clone3", "fork", "vfork"):
            self._fork(call)
        elif call.name in (
            "write",
            "writev",
            "pwrite64",
            "pwritev",
            "pwritev2",
            "sendto",
            "sendmsg",
        ):
            self._write(call)
        elif call.name in ("fsync", "fdatasync"):
            _, call.file, _ = self._opened(call)
            call.waits = len(call.file.pieces) if call.file is not None else 0

    def _write(self, call: _Call) -> None:
        opened, file, path = self._opened(call)
        octets = b"".join(call.strings())[: call.result]
        if not path:
            peer = self._peer(call)
            if peer:
                self._disk.sent[peer] = self._disk.sent.get(peer, b"") + octets
            return
        if file is None:  # removed already
            return
        assert opened is not None, f"{path} was opened unseen"
        if call.name.startswith("pw"):
            offset: int | None = call.numbers()[-1 if call.name != "pwritev2" else -2]
        elif opened.appends:
            offset = None
        else:
            offset, opened.at = opened.at, opened.at + len(octets)
        piece = file.add(offset, octets)
        if opened.is_dsync:
            call.file, call.piece = file, piece

    def _peer(self, call: _Call) -> str:
        """Whom a call writes to; nothing where that is no TCP connection."""
        number, path = (call.descriptors() or [("", "")])[0]
        socket = self._group(call.process), number
        peer = _PEER.match(path)
        if peer is not None:
            self._peers[socket] = peer.group(1)
        elif not _SOCKET.match(path):
            return ""
        elif socket not in self._peers:
            self.unclear.append(f"{call.name}({call.text[:200]}")
        return self._peers.get(socket, "")

    def _end_close(self, call: _Call) -> None:
        number, _ = (call.descriptors() or [("", "")])[0]
        self._peers.pop((self._group(call.process), number), None)

    def _end(self, call: _Call) -> None:
        if call.result < 0 or call.end == 1 << 60:
            return
        if call.piece is not None and call.file is not None:
            call.file.sync_one(call.piece)
        done = getattr(self, f"_end_{call.name.rstrip('0123456789')}", None)
        if done is not None:
            done(call)

    def _fork(self, call: _Call) -> None:
        parent = self._group(call.process)
        if "CLONE_THREAD" in call.text:
            self._groups[call.result] = parent
            return
        for (process, number), opened in list(self._opens.items()):
            if process == parent:
                self._opens[call.result, number] = opened

    def _end_openat(self, call: _Call) -> None:
        number, path = call.descriptors()[-1]
        self._opens[self._group(call.process), str(call.result)] = _Open(call.text)
        if not self._inside(path) or "O_DIRECTORY" in call.text:
            return
        assert number == str(call.result) and "O_TMPFILE" not in call.text, call.text
        node = self._disk.live.get(path)
        if path not in self._disk.live:
            assert "O_CREAT" in call.text or call.name == "creat", f"{path} came unseen"
            node = _File()
            self._disk.rename({path: node})
        if "O_TRUNC" in call.text and node is not None and node.size:
            node.resize(0)

    _end_open = _end_creat = _end_openat

    def _end_dup(self, call: _Call) -> None:
        group, (number, _) = self._group(call.process), call.descriptors()[0]
        if (group, number) in self._opens:
            self._opens[group, str(call.result)] = self._opens[group, number]

    def _end_fcntl(self, call: _Call) -> None:
        if "F_DUPFD" in call.text:
            self._end_dup(call)

    def _end_lseek(self, call: _Call) -> None:
        opened, _, path = self._opened(call)
        if opened is not None and path:
            opened.at = call.result

    def _end_fsync(self, call: _Call) -> None:
        _, _, path = self._opened(call)
        if call.file is not None:
            call.file.sync(call.waits)
        elif path in self._disk.live:
            self._disk.sync_folder(path)

    _end_fdatasync = _end_fsync

    def _end_ftruncate(self, call: _Call) -> None:
        _, file, _ = self._opened(call)
        if file is not None:
            file.resize(call.numbers()[0])

    def _end_fallocate(self, call: _Call) -> None:
        _, file, path = self._opened(call)
        assert not path or "PUNCH" not in call.text, call.text
        if file is not None and "KEEP_SIZE" not in call.text:
            file.resize(max(file.size, sum(call.numbers()[-2:])))

    def _end_mmap(self, call: _Call) -> None:
        if "PROT_WRITE" in call.text and "MAP_SHARED" in call.text:
            _, file, _ = self._opened(call)
            if file is not None:
                self._disk.mapped.add(file)

    def _paths(self, call: _Call) -> list[str]:
        folders = [path for _, path in call.descriptors()] + ["", ""]
        names = [one.decode("utf-8", "surrogateescape") for one in call.strings()]
        return [
            str(PurePosixPath(folder) / name) for folder, name in zip(folders, names, strict=False)
        ]

    def _end_rename(self, call: _Call) -> None:
        old, new = self._paths(call)
        assert "RENAME_EXCHANGE" not in call.text
        if not self._inside(old) and not self._inside(new):
            return
        assert self._inside(old) and self._inside(new), f"{old} and {new} are not both recorded"
        changes: dict[str, Node | str] = {}
        for path in list(self._disk.live):
            if path == old or path.startswith(f"{old}/"):
                changes[path] = ""
        for path in list(changes):
            changes[new + path.removeprefix(old)] = self._disk.live[path]
        self._disk.rename(changes)

    _end_renameat = _end_rename

    def _end_link(self, call: _Call) -> None:
        old, new = self._paths(call)
        if self._inside(new):
            self._disk.rename({new: self._disk.live[old]})

    _end_linkat = _end_link

    def _end_unlink(self, call: _Call) -> None:
        path = self._paths(call)[0]
        if self._inside(path):
            self._disk.rename({path: ""})

    _end_unlinkat = _end_rmdir = _end_unlink

    def _end_mkdir(self, call: _Call) -> None:
        path = self._paths(call)[0]
        if self._inside(path):
            self._disk.rename({path: None})

    _end_mkdirat = _end_mkdir

    def _end_unknown(self, call: _Call) -> None:
        assert not self._concerns_root(call), f"{call.name} is not followed here: {call.text[:200]}"

    _end_sendfile = _end_copy_file_range = _end_truncate = _end_symlink = _end_symlinkat = (
        _end_unknown
    )
