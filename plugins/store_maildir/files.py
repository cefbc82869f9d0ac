"""Maildir++'s own files: message names with their flags, UID lists, keywords, subscriptions.

Names are octets on disk; here they are text by Latin-1, which loses nothing. Knows no index. The formats are those of
Dovecot 2.x (`dovecot-uidlist` versions 1 and 3, `dovecot-keywords`, `subscriptions` with and without its version line)
and of Courier (`courierimapuiddb`, `courierimapsubscribed`).
"""

import contextlib
import errno
import io
import itertools
import os
import re
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from murder.durable import replace_file
from murder.errors import Code, Refusal
from murder.kit.schema import BITS

LETTERS: Final = {
    "D": "\\Draft",
    "F": "\\Flagged",
    "R": "\\Answered",
    "S": "\\Seen",
    "T": "\\Deleted",
}
LETTER_OF_BIT: Final = {BITS[flag]: letter for letter, flag in LETTERS.items()}
MAX_KEYWORDS: Final = 26  # a … z in file names; more of them stand in the index only
DRAFT: Final = "murder-draft."  # no name of a message, nor of a folder
UIDLIST, KEYWORDS, SUBSCRIPTIONS = b"dovecot-uidlist", b"dovecot-keywords", b"subscriptions"
COURIER_UIDS, COURIER_SUBSCRIPTIONS = b"courierimapuiddb", b"courierimapsubscribed"
KEPT: Final = "murder-expunged"  # folder of what was expunged and may come back; other software passes it over
# INBOX is the tree's top
OF_INBOX: Final = (b"cur", b"new", b"tmp", KEPT.encode(), UIDLIST, KEYWORDS, COURIER_UIDS)
OPENED: Final = (b"cur", b"new", b"tmp")
MAX_BESIDE: Final = 128 * 1024 * 1024  # octets of a UID list: a million messages have 100 MB
MAX_UIDLIST_LINES: Final = 1_500_000
MAX_HEADER_WORDS: Final = 100
# RFC 3501 §9, an atom: clients are told it
_KEYWORD: Final = re.compile(r'[^(){ %*"\\\]\x00-\x20\x7f-\xff]{1,255}')
LOCK_WAIT_S: Final = 10.0
LOCK_STALE_S: Final = 60.0  # Dovecot holds it for milliseconds and takes such a lock over too
LOCK_PAUSE_S: Final = 0.01
FOLDER_MODE, FILE_MODE = 0o700, 0o600
_counter: Final = itertools.count(1)


# --- what others have put there


def open_plain(path: bytes) -> BinaryIO:
    """A file to read. Whoever owns the tree may have put a link to somebody else's file there, a pipe that nobody writes
    to, a device: to us they are not there (FileNotFoundError). Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise FileNotFoundError(errno.ENOENT, "it is not a plain file", path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "it is not a plain file", path)
    return os.fdopen(descriptor, "rb")


def create_plain(path: bytes) -> int:
    """The descriptor of a new, empty file, whatever stands there under its name: a link would lead the writing elsewhere.
    Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, FILE_MODE)


def read_plain(path: bytes) -> bytes:
    """One of the small files beside the messages. Raises OSError; FileNotFoundError as `open_plain`."""
    with open_plain(path) as file:  # `read` makes room for all that it may read
        return file.read(min(os.fstat(file.fileno()).st_size + 1, MAX_BESIDE))


def names_in(folder: bytes) -> Iterator[bytes]:
    """All names in a folder, which may be hundreds of thousands: `os.listdir` keeps every other thread waiting until it
    has them all. Raises OSError."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name


def is_own_folder(path: bytes, top: bytes) -> bool:
    """Whether it is a folder, and no link out of the tree to what belongs to somebody else than the tree does."""
    try:
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            return False
        is_link = stat.S_ISLNK(os.lstat(path).st_mode)
        return not is_link or status.st_uid == os.stat(top).st_uid
    except OSError:
        return False


def is_own_maildir(path: bytes, top: bytes) -> bool:
    """Whether a folder of the tree is a maildir, with all that is opened in it."""
    if path != top and not is_own_folder(path, top):
        return False
    return all(
        is_own_folder(path + b"/" + part, top)
        for part in OPENED
        if part == b"cur" or os.path.lexists(path + b"/" + part)
    )


# --- message names


def split_name(name: str) -> tuple[str, str]:
    """`(base, letters)` of `base:2,letters`."""
    base, _, info = name.partition(":")
    return base, info[2:].partition(",")[0] if info.startswith("2,") else ""


def join_name(base: str, letters: Iterable[str]) -> str:
    return f"{base}:2,{''.join(sorted(set(letters)))}"


def new_base(size: int, virtual_size: int | None) -> str:
    """A name that no other message has: time, process, count, host (maildir(5)), and the sizes as Dovecot writes them."""
    now = time.time_ns()
    host = socket.gethostname().replace("/", "_").replace(":", "_")
    unique = f"{now // 10**9}.M{now // 1000 % 10**6}P{os.getpid()}Q{next(_counter)}.{host}"
    return f"{unique},S={size}" + (f",W={virtual_size}" if virtual_size is not None else "")


def sizes_of(base: str) -> tuple[int | None, int | None]:
    """Octets on disk (S=) and with CRLF line ends (W=), where the name tells them."""
    sizes: dict[str, int] = {}
    for part in base.split(",")[1:]:
        key, _, value = part.partition("=")
        if value.isdecimal():
            sizes[key] = int(value)
    return sizes.get("S"), sizes.get("W")


def letters_of(bits: int, keywords: Iterable[str], known: list[str]) -> str:
    """Flags and keywords as letters; a keyword without a letter has none."""
    letters = [letter for bit, letter in LETTER_OF_BIT.items() if bits & bit]
    places = {word.lower(): at for at, word in enumerate(known[:MAX_KEYWORDS])}
    for word in keywords:
        if word.lower() in places:
            letters.append(chr(ord("a") + places[word.lower()]))
    return "".join(letters)


def flags_of(letters: str, known: list[str]) -> tuple[int, list[str]]:
    """Bits and keywords of a file name's letters; letters that nobody explained are left alone."""
    bits = sum(bit for bit, letter in LETTER_OF_BIT.items() if letter in letters)
    places = [ord(letter) - ord("a") for letter in letters if "a" <= letter <= "z"]
    return bits, [known[at] for at in places if at < len(known) and known[at]]


# --- keywords


def read_keywords(folder: bytes) -> list[str]:
    """`dovecot-keywords`: number, space, word."""
    words: list[str] = []
    try:
        lines = read_plain(folder + b"/" + KEYWORDS).decode("latin-1").splitlines()
    except FileNotFoundError:
        return words
    for line in lines:
        number, _, word = line.strip().partition(" ")
        if number.isdecimal() and len(number) < 4 and _KEYWORD.fullmatch(word):
            words += [""] * (int(number) + 1 - len(words))
            words[int(number)] = word
    return words


def add_keywords(folder: bytes, known: list[str], wanted: Iterable[str]) -> list[str]:
    """Give new keywords letters while there are any."""
    have = {word.lower() for word in known}
    new = [word for word in wanted if word.lower() not in have]
    if not new or len(known) >= MAX_KEYWORDS:
        return known
    words = [*known, *dict.fromkeys(new)][:MAX_KEYWORDS]
    lines = [f"{at} {word}\n" for at, word in enumerate(words) if word]
    replace_small(folder + b"/" + KEYWORDS, "".join(lines).encode("latin-1", "replace"))
    return words


# --- UID lists


@dataclass(slots=True)
class UidList:
    """`extra` is what a header holds besides (Dovecot's GUID of the mailbox), `highest` the largest UID of a message,
    `lines` how many tell one, `octets` the file, of which the header's lines tell how the others are read."""

    validity: int
    next: int
    extra: list[str] = field(default_factory=list)
    highest: int = 0
    lines: int = 0
    octets: bytes = b""

    @property
    def guid(self) -> str:
        return next((word[1:] for word in self.extra if word.startswith("G")), "")

    def rows(self, *, last_first: bool = False) -> Iterator[tuple[int, str]]:
        """UID and base name, a line at a time: all of them at once would take ten times the file's size. Of several lines
        for one message the last counts."""
        is_named = self.octets.startswith(b"3")
        lines = _lines_from_end(self.octets) if last_first else _lines_in(self.octets)
        for line in itertools.islice(lines, MAX_UIDLIST_LINES):
            number, _, rest = line.decode("latin-1").partition(" ")
            name = rest.partition(":")[2] if is_named else rest
            base = split_name(name)[0]
            if _is_number(number) and base:
                yield int(number), base


def _lines_in(octets: bytes) -> Iterator[bytes]:
    """Behind the header, without their ends."""
    lines = io.BytesIO(octets)
    lines.readline()
    return (line.removesuffix(b"\n") for line in lines)


def _lines_from_end(octets: bytes) -> Iterator[bytes]:
    """The same ones."""
    start, end = octets.find(b"\n") + 1, len(octets) - octets.endswith(b"\n")
    while start and end >= start:
        begin = octets.rfind(b"\n", start - 1, end) + 1
        yield octets[begin:end]
        end = begin - 1


def read_uidlist(folder: bytes) -> UidList | None:
    """Dovecot's, else Courier's; None where there is neither, or none that can be read."""
    for name in (UIDLIST, COURIER_UIDS):
        try:
            uidlist = _parse_uidlist(read_plain(folder + b"/" + name))
        except FileNotFoundError:
            continue
        if uidlist is not None:
            return uidlist
    return None


def _parse_uidlist(octets: bytes) -> UidList | None:
    words = octets.partition(b"\n")[0].decode("latin-1").split(" ", MAX_HEADER_WORDS)
    uidlist: UidList | None = None
    if words[0] == "3":
        by_letter = {word[0]: word[1:] for word in words[1:] if word}
        if _is_number(by_letter.get("V", "")) and _is_number(by_letter.get("N", "1") or "1"):
            uidlist = UidList(int(by_letter["V"]), int(by_letter.get("N", "1") or 1))
            uidlist.extra = [word for word in words[1:] if word and word[0] not in "VN"]
    elif words[0] == "1" and len(words) >= 3 and _is_number(words[1]) and _is_number(words[2]):
        uidlist = UidList(int(words[1]), int(words[2]))
    if uidlist is None:
        return None
    uidlist.octets = octets
    for uid, _ in uidlist.rows():
        uidlist.highest = max(uidlist.highest, uid)
        uidlist.lines += 1
    uidlist.next = max(uidlist.next, uidlist.highest + 1)
    return uidlist


def _is_number(text: str) -> bool:
    """Of 32 bits, about: what no list of ours or Dovecot's has is no number."""
    return text.isdecimal() and len(text) <= 10


def add_to_uidlist(folder: bytes, known: UidList, new: Iterable[tuple[int, str]]) -> None:
    """Tell others of UIDs: appended, or the file made. The caller holds the lock."""
    path = folder + b"/" + UIDLIST
    if not os.path.exists(path):
        write_uidlist(folder, known, sorted(known.rows()))
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK  # no link, and no pipe
    with os.fdopen(os.open(path, flags), "ab") as file:
        file.write(_lines_of(new).getbuffer())  # at once: others read it without the lock


def write_uidlist(folder: bytes, known: UidList, rows: Iterable[tuple[int, str]]) -> None:
    """The whole file anew."""
    header = " ".join(["3", f"V{known.validity}", f"N{known.next}", *known.extra])
    octets = _lines_of(rows, f"{header}\n".encode("latin-1"))
    replace_small(folder + b"/" + UIDLIST, octets.getbuffer())


def _lines_of(rows: Iterable[tuple[int, str]], header: bytes = b"") -> io.BytesIO:
    octets = io.BytesIO()
    octets.write(header)
    octets.writelines(f"{uid} :{base}\n".encode("latin-1") for uid, base in rows)
    return octets


@contextlib.contextmanager
def uidlist_lock(folder: bytes) -> Iterator[None]:
    """`dovecot-uidlist.lock`, as Dovecot takes it: `pid:host` in a file that is linked into place."""
    lock = folder + b"/" + UIDLIST + b".lock"
    draft = lock + b".%d" % os.getpid()
    descriptor = create_plain(draft)
    try:
        os.write(descriptor, f"{os.getpid()}:{socket.gethostname()}".encode())
        _link_when_free(draft, lock)
    finally:
        os.close(descriptor)
        os.unlink(draft)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock)


def _link_when_free(draft: bytes, lock: bytes) -> None:
    give_up_at = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            os.link(draft, lock)
            return
        except FileExistsError:
            if _is_stale(lock):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(lock)
                continue
        if time.monotonic() > give_up_at:
            raise Refusal(
                Code.IN_USE, f"Another program holds {os.fsdecode(lock)}; try again later"
            )
        time.sleep(LOCK_PAUSE_S)


def _is_stale(lock: bytes) -> bool:
    """Whether its process has died (or was an earlier one of our number), or it is older than any may be."""
    try:
        with open_plain(lock) as file:
            pid, _, host = file.read(300).partition(b":")
        age = abs(time.time() - os.stat(lock).st_mtime)
    except FileNotFoundError:
        return False
    if host.decode("utf-8", "replace") == socket.gethostname() and pid.isdigit():
        if int(pid) == os.getpid():
            return True
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass
    return age > LOCK_STALE_S


# --- subscriptions


def read_subscriptions(tree: bytes) -> tuple[set[bytes], bytes] | None:
    """Names below the tree (`Sub.Folder`; `INBOX` for itself), and the file they stand in."""
    for name, prefix in ((SUBSCRIPTIONS, b""), (COURIER_SUBSCRIPTIONS, b"INBOX.")):
        try:
            lines = read_plain(tree + b"/" + name).split(b"\n")
        except FileNotFoundError:
            continue
        if lines[0].startswith(b"V\t2"):
            lines = [
                b".".join(_unescaped(part) for part in line.split(b"\t")) for line in lines[1:]
            ]
        return {line.removeprefix(prefix) for line in lines if line}, name
    return None


def write_subscriptions(tree: bytes, names: set[bytes], name: bytes) -> None:
    """In the form that the file has."""
    if name == COURIER_SUBSCRIPTIONS:
        lines = [b"INBOX" if folder == b"INBOX" else b"INBOX." + folder for folder in sorted(names)]
    else:
        lines = [b"V\t2", b""]
        lines += [
            b"\t".join(_escaped(part) for part in folder.split(b".")) for folder in sorted(names)
        ]
    replace_small(tree + b"/" + name, b"".join(line + b"\n" for line in lines))


def change_subscription(tree: bytes, name: bytes, subscribed: bool) -> None:
    """In the tree's file: this name, as it stands there, or no more."""
    names, file = read_subscriptions(tree) or (set(), SUBSCRIPTIONS)
    before = set(names)
    (names.add if subscribed else names.discard)(name)
    if names != before:
        write_subscriptions(tree, names, file)


def _escaped(part: bytes) -> bytes:
    return part.replace(b"\x01", b"\x011").replace(b"\t", b"\x01t")


def _unescaped(part: bytes) -> bytes:
    return part.replace(b"\x01t", b"\t").replace(b"\x011", b"\x01")


# --- files


def replace_small(path: bytes, octets: bytes | memoryview) -> None:
    """Whole or not at all, and durable; one of the small files beside the messages. Raises OSError."""
    replace_file(Path(os.fsdecode(path)), octets, FILE_MODE, prefix=DRAFT)


def sync_path(path: bytes) -> None:
    """Make a file's octets, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # no pipe that was put there holds us
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_crlf(octets: bytes) -> bytes:
    """Line ends as IMAP has them."""
    return octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def pattern_of(template: str) -> str:
    """Finds the variables of a template in a path. One that comes twice is the same both times."""
    pattern, named = "", set()
    for at, part in enumerate(re.split("%([und%])", template)):
        if at % 2 == 0:
            pattern += re.escape(part)
        elif part == "%":
            pattern += part
        else:
            pattern += f"(?P={part})" if part in named else f"(?P<{part}>[^/]+)"
            named.add(part)
    return pattern
