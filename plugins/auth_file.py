"""Authentication: users and hashed passwords in one text file.

A line is `user:SCRYPT:SCRAM:group,group`; a `!` before SCRYPT says that the account is disabled. SCRYPT is
`log2cost,r,p,salt,hash` (without a hash it is of one whom another plugin knows, who is only kept out), SCRAM (for
SCRAM-SHA-256, RFC 7677) is `iterations,salt,storedkey,serverkey`; octets are base64. `murder auth` keeps the file; it is
only ever replaced as a whole, and read again when it has changed. Hashes are counted in threads, which let everything
else go first. A password that was right is remembered for a while, in memory, under a key that only this process has, so
that a mail client's tenth connection costs nothing.

Who asks for SCRAM as a user that is not here gets a challenge too, always the same for a name. A first line
`#decoys:KEY` keeps what those are made from; nodes that have a copy of the file make the same ones.
"""

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from murder.api import Denied, Identity, LoginAttempt, ScramSecret, hookimpl
from murder.durable import replace_file
from murder.errors import Code, Refusal

SCRAM_MECHANISM: Final = "SCRAM-SHA-256"
HASH_OCTETS: Final = 32
SALT_OCTETS: Final = 16
BLOCK_SIZE, LANES = 8, 1  # scrypt's r and p
MAX_PASSWORD_OCTETS: Final = 1024  # far above any, so that nobody can make us hash megabytes
MAX_USER_LENGTH: Final = 256
FORBIDDEN_IN_USERS: Final = frozenset(':,/%*"\\\t\r\n\0 ')
MAX_REMEMBERED: Final = 20_000
MAX_PARSED: Final = 1000
DECOYS: Final = "#decoys:"
DISABLED: Final = "!"
MAX_GROUPS: Final = 200
NICENESS: Final = 5  # of the threads that hash, against the one that serves
FILE_MODE: Final = 0o600

log = logging.getLogger("murder.plugins.auth_file")


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.auth_file]."""

    file: Path | None = field(
        default=None, metadata={"doc": "The file; empty: `users` in `[node] data`."}
    )
    log2_cost: int = field(
        default=14,
        metadata={"doc": "scrypt's cost for new passwords: 14 is about 50 ms and 16 MiB."},
    )
    scram_iterations: int = field(
        default=10_000,
        metadata={"doc": "Iterations of new SCRAM secrets (RFC 7677: 4096 or more)."},
    )
    remember_s: float = field(
        default=600.0,
        metadata={"doc": "How long a right password is remembered in memory; 0: not at all."},
    )
    lower_case: bool = field(
        default=True, metadata={"doc": "User names are taken in lower case, as Cyrus does."}
    )

    least_length: int = field(
        default=1, metadata={"doc": "Characters that a new password has at least.", "least": 1}
    )
    least_kinds: int = field(
        default=1,
        metadata={
            "doc": "Of small letters, capitals, digits and other signs a new password has so many kinds at least.",
            "least": 1,
            "most": 4,
        },
    )
    refused: Path | None = field(
        default=None,
        metadata={
            "doc": "A file with passwords that nobody may choose, one a line, as the lists of those that leaked."
        },
    )

    def __post_init__(self) -> None:
        if not 1 <= self.log2_cost <= 20:
            raise ValueError("log2_cost must be between 1 and 20")
        if self.scram_iterations < 4096:
            raise ValueError("scram_iterations must be 4096 or more (RFC 7677)")


@hookimpl
def make_auth_backend(settings: Settings, data_dir: Path) -> "UserFile":
    """The backend for one process."""
    return UserFile(settings.file or data_dir / "users", settings)


@dataclass(frozen=True, slots=True)
class Record:
    """One user's line."""

    user: str
    log2_cost: int
    block_size: int
    lanes: int
    salt: bytes
    hashed: bytes
    scram: ScramSecret
    groups: frozenset[str]
    is_disabled: bool = False


def parse_record(line: str) -> Record:
    """Read one line. Raises ValueError."""
    user, scrypt, scram, groups = line.split(":")
    cost, block_size, lanes, salt, hashed = scrypt.removeprefix(DISABLED).split(",")
    iterations, scram_salt, stored_key, server_key = scram.split(",")
    return Record(
        user,
        int(cost),
        int(block_size),
        int(lanes),
        _octets(salt),
        _octets(hashed),
        ScramSecret(_octets(scram_salt), int(iterations), _octets(stored_key), _octets(server_key)),
        frozenset(filter(None, groups.split(","))),
        scrypt.startswith(DISABLED),
    )


def format_record(record: Record) -> str:
    """The line of a user, without its end."""
    scrypt = (
        str(record.log2_cost),
        str(record.block_size),
        str(record.lanes),
        _text(record.salt),
        _text(record.hashed),
    )
    secret = record.scram
    scram = (
        str(secret.iterations),
        _text(secret.salt),
        _text(secret.stored_key),
        _text(secret.server_key),
    )
    groups = ",".join(sorted(record.groups))
    mark = DISABLED if record.is_disabled else ""
    return ":".join((record.user, mark + ",".join(scrypt), ",".join(scram), groups))


def make_record(
    user: str,
    password: bytes,
    settings: Settings,
    groups: frozenset[str] = frozenset(),
    is_disabled: bool = False,
) -> Record:
    """Hash a password; takes the time that `log2_cost` sets."""
    salt, scram_salt = secrets.token_bytes(SALT_OCTETS), secrets.token_bytes(SALT_OCTETS)
    hashed = _scrypt(salt, settings.log2_cost, BLOCK_SIZE, LANES).derive(password)
    salted = hashlib.pbkdf2_hmac(
        "sha256", _prepared(password), scram_salt, settings.scram_iterations
    )
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    scram = ScramSecret(scram_salt, settings.scram_iterations, stored_key, server_key)
    return Record(
        user, settings.log2_cost, BLOCK_SIZE, LANES, salt, hashed, scram, groups, is_disabled
    )


def _scrypt(salt: bytes, log2_cost: int, block_size: int, lanes: int) -> Scrypt:
    return Scrypt(salt=salt, length=HASH_OCTETS, n=1 << log2_cost, r=block_size, p=lanes)


def _prepared(password: bytes) -> bytes:
    """A password as SCRAM clients hash it: RFC 4013's NFKC; octets that are no text stay as they are."""
    with contextlib.suppress(UnicodeDecodeError):
        return unicodedata.normalize("NFKC", password.decode("utf-8")).encode("utf-8")
    return password


def _octets(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


class UserFile:
    """The file, in memory; one object a process. Fulfils AuthBackend, ChecksAttempts, HasScramSecrets,
    ManagesUsers, ManagesGroups, LocksOut."""

    def __init__(self, file: Path, settings: Settings) -> None:
        self._file = file
        self._path = os.fspath(file)
        self._settings = settings
        self._stamp: tuple[int, int, int] | None = None
        self._lines: dict[str, str] = {}
        self._decoy_key = b""
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, tuple[str, float, Identity]] = OrderedDict()
        self._nobody = Record(
            "",
            settings.log2_cost,
            BLOCK_SIZE,
            LANES,
            secrets.token_bytes(SALT_OCTETS),
            secrets.token_bytes(HASH_OCTETS),
            ScramSecret(b"", settings.scram_iterations, b"", b""),
            frozenset(),
        )
        # The hash takes a core and megabytes; more at once than cores would only make all of them later.
        self._threads = ThreadPoolExecutor(
            self.checks_at_once, thread_name_prefix="auth_file", initializer=_stand_back
        )

    @property
    def checks_at_once(self) -> int:
        """See ChecksFewAtOnce."""
        return os.cpu_count() or 1

    def recall(self, user: str, password: bytes) -> Identity | None:
        """See RecallsPasswords."""
        name = user.lower() if self._settings.lower_case else user
        self._refresh()
        token = blake2b(name.encode("utf-8", "replace") + b"\0" + password, key=self._key).digest()
        known = self._remembered.get(token)
        if known is None or known[0] != self._lines.get(name) or known[1] < time.monotonic():
            return None  # `verify` forgets it
        self._remembered.move_to_end(token)
        return known[2]

    @property
    def depends_on(self) -> Collection[str]:
        """See ChecksAttempts."""
        return ()

    async def check(self, attempt: LoginAttempt, user: str, password: bytes) -> Identity | Denied:
        """See ChecksAttempts. Who is not here is told at once; see `take_time`."""
        self._refresh()
        name = self._canonical(user)
        line = self._lines.get(name)
        record = None if line is None else self._record(line)
        if line is None or record is None or not record.hashed:
            return Denied.UNKNOWN
        if not await self._is_right(name, line, record, password):
            return Denied.WRONG
        if record.is_disabled:
            raise Refusal(Code.CONTACT_ADMIN, "This account is disabled; ask your administrator")
        return self._identity(record)

    async def verify(self, user: str, password: bytes) -> Identity | None:
        """See AuthBackend. A name that does not exist costs what a wrong password costs."""
        name = self._canonical(user)
        self._refresh()
        line = self._lines.get(name)
        record = self._somebody() if line is None else self._record(line)
        right = await self._is_right(name, line, record, password)
        return self._identity(record) if right and not record.is_disabled else None

    async def take_time(self, password: bytes) -> None:
        """See TakesTime."""
        await self._is_right("", None, self._somebody(), password)

    async def _is_right(self, name: str, line: str | None, record: Record, password: bytes) -> bool:
        token = self._token(name, password)
        if line is not None and self._is_remembered(token, line):
            return True
        if len(password) > MAX_PASSWORD_OCTETS:
            return False
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._threads, _is_right, record, password)
        if line is None or not right:
            return False
        if not record.is_disabled:
            self._remember(token, line, self._identity(record))
        return True

    async def lookup(self, user: str) -> Identity | None:
        """See AuthBackend."""
        self._refresh()
        record = self._enabled(user)
        return None if record is None else self._identity(record)

    async def scram_secret(self, user: str, mechanism: str) -> ScramSecret | None:
        """See HasScramSecrets."""
        if mechanism.removesuffix("-PLUS") != SCRAM_MECHANISM:
            return None
        self._refresh()
        record = self._enabled(user)
        return None if record is None else record.scram

    def scram_decoy(self, user: str, mechanism: str) -> ScramSecret:
        """See HasScramDecoys."""
        self._refresh()
        name = self._canonical(user).encode("utf-8", "surrogatepass")
        like = self._somebody().scram
        salt = hmac.digest(self._decoy_key, name, "sha256")[: len(like.salt) or SALT_OCTETS]
        return ScramSecret(
            salt,
            like.iterations,
            secrets.token_bytes(HASH_OCTETS),
            secrets.token_bytes(HASH_OCTETS),
        )

    def _somebody(self) -> Record:
        """Whose hash costs what a hash costs here: the first of the file."""
        records = map(self._record, self._lines.values())
        return next((record for record in records if record.hashed), self._nobody)

    async def users(self) -> Collection[Identity]:
        """See ManagesUsers."""
        self._refresh(may_be_missing=True)
        records = map(self._record, self._lines.values())
        return [self._identity(record) for record in records if record.hashed]

    async def set_passwords(self, passwords: Mapping[str, bytes]) -> None:
        """See ManagesUsers."""
        wanted = {self._canonical(user): password for user, password in passwords.items()}
        for user, password in wanted.items():
            _check_user(user)
            _check_password(password)
            await asyncio.to_thread(_check_rules, user, password, self._settings)
        self._refresh(may_be_missing=True)
        loop = asyncio.get_running_loop()
        made = await asyncio.gather(
            *(
                loop.run_in_executor(self._threads, make_record, user, password, self._settings)
                for user, password in wanted.items()
            )
        )
        with self._locked():
            for record in made:
                self._put(record.user, record)
            self._write()

    def _put(self, user: str, record: Record) -> None:
        """A new password leaves groups, and whether the account is disabled, as they are in the file now."""
        line = self._lines.get(user)
        if line is not None:
            old = parse_record(line)
            record = replace(record, groups=old.groups, is_disabled=old.is_disabled)
        self._lines[user] = format_record(record)

    async def set_groups(self, user: str, groups: Collection[str]) -> None:
        """See ManagesGroups."""
        if len(groups) > MAX_GROUPS:
            raise Refusal(Code.CANNOT, f"A user is in {MAX_GROUPS} groups at most")
        for group in groups:
            _check_user(group, "group")
        self._change(user, lambda record: replace(record, groups=frozenset(groups)))

    async def set_disabled(self, user: str, disabled: bool) -> None:
        """See ManagesGroups. Who is not here gets a line all the same, until they are enabled."""
        name = self._canonical(user)
        _check_user(name)
        with self._locked():
            line = self._lines.get(name)
            if line is None and not disabled:
                raise Refusal(Code.NONEXISTENT, f"there is no user {user}")
            outsider = replace(self._nobody, user=name, salt=b"", hashed=b"")
            record = outsider if line is None else parse_record(line)
            if disabled or record.hashed:
                self._lines[name] = format_record(replace(record, is_disabled=disabled))
            else:
                del self._lines[name]
            self._write()

    def is_locked_out(self, user: str) -> bool:
        """See LocksOut."""
        self._refresh()
        name = self._canonical(user)
        return self._lines.get(name, "").startswith(DISABLED, len(name) + 1)

    async def disabled_users(self) -> Collection[str]:
        """See ManagesGroups."""
        self._refresh(may_be_missing=True)
        records = (self._record(line) for line in self._lines.values())
        return [record.user for record in records if record.is_disabled]

    def _change(self, user: str, changed: Callable[[Record], Record]) -> None:
        name = self._canonical(user)
        with self._locked():
            record = parse_record(self._lines[name]) if name in self._lines else None
            if record is None or not record.hashed:
                raise Refusal(Code.NONEXISTENT, f"there is no user {user}")
            self._lines[name] = format_record(changed(record))
            self._write()

    async def remove(self, user: str) -> bool:
        """See ManagesUsers."""
        with self._locked():
            line = self._lines.get(self._canonical(user))
            if line is None or not parse_record(line).hashed:
                return False  # who is disabled stays so
            del self._lines[self._canonical(user)]
            self._write()
        return True

    def _canonical(self, user: str) -> str:
        return user.lower() if self._settings.lower_case else user

    def _enabled(self, user: str) -> Record | None:
        """Who may log in."""
        line = self._lines.get(self._canonical(user))
        record = None if line is None else self._record(line)
        return None if record is None or record.is_disabled or not record.hashed else record

    def _record(self, line: str) -> Record:
        """What a line says; those of late are kept, as base64 takes as long as all else at a login."""
        record = self._records.get(line)
        if record is None:
            record = self._records[line] = parse_record(line)
            if len(self._records) > MAX_PARSED:
                self._records.popitem(last=False)
        return record

    def _token(self, name: str, password: bytes) -> bytes:
        """A MAC: BLAKE2 takes a key by itself, and one call where HMAC takes several."""
        return blake2b(name.encode("utf-8", "replace") + b"\0" + password, key=self._key).digest()

    def _identity(self, record: Record) -> Identity:
        return Identity(record.user, record.groups)

    def _is_remembered(self, token: bytes, line: str) -> bool:
        """Whether this very password was right for this very line (a new password is a new line)."""
        known = self._remembered.get(token)
        if known is None:
            return False
        if known[0] != line or known[1] < time.monotonic():
            del self._remembered[token]
            return False
        self._remembered.move_to_end(token)
        return True

    def _remember(self, token: bytes, line: str, identity: Identity) -> None:
        if self._settings.remember_s <= 0:
            return
        self._remembered[token] = (line, time.monotonic() + self._settings.remember_s, identity)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def _refresh(self, *, may_be_missing: bool = False) -> None:
        """Read the file again if it is another one; what cannot be read leaves all as it was, and is logged."""
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError as error:
            stamp = (0, 0, error.errno or 0)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._take(*_read(self._file))
            if not self._lines and not may_be_missing:
                text = "%s has no users: nobody can log in by it; `murder auth add` makes them"
                log.warning(text, self._file)
        except FileNotFoundError:
            self._lines = {}
            if not may_be_missing:
                text = "%s is missing: nobody can log in by it; `murder auth add` makes it"
                log.warning(text, self._file)
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read, the users stay as they were: %s", self._file, error)

    def _take(self, lines: dict[str, str], decoy_key: bytes) -> None:
        """What is in the file. One without a key has one all the same, from its first user."""
        self._lines = lines
        first = next(iter(lines.values()), "")
        made = hmac.digest(first.encode(), DECOYS.encode(), "sha256") if first else self._key
        self._decoy_key = decoy_key or made

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the file against other writers, with its present content read."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(
            self._file.with_name(self._file.name + ".lock"), os.O_RDWR | os.O_CREAT, FILE_MODE
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self._take(*_read(self._file))
            except FileNotFoundError:
                self._lines = {}
            except ValueError as error:
                raise Refusal(Code.CANNOT, f"{error}; mend it by hand first") from None
            yield
        finally:
            os.close(lock)

    def _write(self) -> None:
        """Replace the file; root changing a password must not lock the service out of it."""
        decoys = DECOYS + _text(self._decoy_key or secrets.token_bytes(32))
        text = "".join(f"{line}\n" for line in (decoys, *self._lines.values()))
        replace_file(self._file, text.encode(), FILE_MODE, keep_owner=True)


def _stand_back() -> None:
    """A thread that hashes leaves the processor to the one that serves (Linux: of this thread alone)."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _read(file: Path) -> tuple[dict[str, str], bytes]:
    """All lines by user, and the key of decoys. Raises OSError, and ValueError for the first line that is none of ours."""
    lines: dict[str, str] = {}
    decoy_key = b""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith(DECOYS):
            decoy_key = _octets(line.removeprefix(DECOYS).strip())
        if not line.strip() or line.startswith("#"):
            continue
        user, _, rest = line.partition(":")
        if not user or rest.count(":") != 2:
            raise ValueError(f"{file} line {number} is not `user:SCRYPT:SCRAM:groups`")
        lines[user] = line
    return lines, decoy_key


def _is_right(record: Record, password: bytes) -> bool:
    """Count the hash and compare; in a thread."""
    try:
        derived = _scrypt(record.salt, record.log2_cost, record.block_size, record.lanes)
        derived.verify(password, record.hashed)
    except InvalidKey:
        return False
    return True


def _check_user(user: str, what: str = "user") -> None:
    bad = next((c for c in user if c in FORBIDDEN_IN_USERS or not c.isprintable()), None)
    if not user or user.startswith("#") or len(user) > MAX_USER_LENGTH:
        raise Refusal(
            Code.CANNOT, f"A {what} name has 1 to {MAX_USER_LENGTH} characters, and no # first"
        )
    if bad is not None:
        raise Refusal(Code.CANNOT, f"A {what} name must not contain {bad!r}")


def _check_rules(user: str, password: bytes, settings: Settings) -> None:
    """What this site asks of a password; may read a long file. Raises Refusal."""
    text = password.decode("utf-8", "replace")
    if len(text) < settings.least_length:
        raise Refusal(
            Code.CANNOT, f"A password has {settings.least_length} characters at least here"
        )
    tests = (str.islower, str.isupper, str.isdigit)
    kinds = [any(test(character) for character in text) for test in tests]
    kinds.append(any(not any(test(character) for test in tests) for character in text))
    if sum(kinds) < settings.least_kinds:
        raise Refusal(
            Code.CANNOT,
            f"A password has {settings.least_kinds} kinds at least here of small letters, capitals, digits, other signs",
        )
    if settings.least_length > 1 and text.casefold() == user.casefold():
        raise Refusal(Code.CANNOT, "A password must not be the user's name")
    if settings.refused is not None and _stands_in(settings.refused, password):
        raise Refusal(Code.CANNOT, "This password is known to those who guess; take another")


def _stands_in(file: Path, password: bytes) -> bool:
    try:
        with file.open("rb") as lines:
            return any(line.rstrip(b"\r\n") == password for line in lines)
    except OSError as error:
        text = f"{file} (plugins.auth_file.refused): {error.strerror or error}"
        raise Refusal(Code.CANNOT, text) from error


def _check_password(password: bytes) -> None:
    if not password or len(password) > MAX_PASSWORD_OCTETS or b"\0" in password:
        raise Refusal(
            Code.CANNOT, f"A password has 1 to {MAX_PASSWORD_OCTETS} octets and no NUL among them"
        )
