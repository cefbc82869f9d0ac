"""What a backend writes down before it changes the hierarchy, so that a start after a crash can finish or undo it.

One intent for each tree that an operation touches (a user's, or a shared top level): the intent is also the lock that
keeps two operations, in any two workers, out of one tree.
"""

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from murder.errors import Code, Refusal
from murder.model.name import USER_ROOT, MailboxName, split_domain
from murder.roles.mupdate.database.change import Change, RemoveIntent
from murder.roles.mupdate.database.transaction import ListTransaction

FORMAT: Final = 1
ENDED: Final = frozenset("ZXx")  # states of a process that runs no more


class Operation(Enum):
    """What was begun."""

    CREATE = "create"  # undone
    DELETE = "delete"  # finished
    RENAME = "rename"  # undone
    SET_ACL = "setacl"  # forgotten: the list tells
    SPLIT = "split"  # a mailbox made and given another's mail: undone before the mail has gone over, else finished
    HELD = "held"  # forgotten: it was a lock only
    MOVE = "move"  # left alone: the journal of moves tells, and whoever keeps it goes on
    JOINT = "joint"  # of a whole hierarchy, its parts at other backends too: undone until it is decided, then finished
    PART = "part"  # a part of another's: left alone, and asked about, until that one has decided
    # no lock: what was decided, until every part has been told (`renames.coordinator`)
    OWED = "owed"


# what the store has of its names is certain at its end only; nothing is made or removed by the others
CHANGES_STORE: Final = frozenset(
    {
        *(Operation.CREATE, Operation.DELETE, Operation.RENAME, Operation.SPLIT),
        *(Operation.JOINT, Operation.PART),
    }
)


class Stage(Enum):
    """How far a RENAME over several backends has come here."""

    PREPARED = "prepared"  # the new names are taken; nothing has its new name yet
    COMMIT = "commit"  # decided: it can only go on
    ABORT = "abort"  # decided: the names are given back


@dataclass(frozen=True, slots=True)
class Intent:
    """One operation. `moves` are (old, new) for a rename and (name, name) else; `process` does it (`this_process`).

    `mailbox_id` is that of a mailbox to be made: nothing else is ever removed by undoing a create. Of a RENAME over several
    backends, `rename_id` is the same everywhere; `peers` are the servers of the parts, or for a part that of the root;
    `root` is what it is of, by its old and its new name, wherever that lies.
    """

    operation: Operation
    moves: tuple[tuple[MailboxName, MailboxName], ...]
    process: str = ""
    mailbox_id: str = ""
    rename_id: str = ""
    peers: tuple[str, ...] = ()
    root: tuple[MailboxName, MailboxName] | None = None
    stage: Stage = Stage.PREPARED

    @property
    def names(self) -> frozenset[MailboxName]:
        """Old ones and new ones."""
        return frozenset(name for move in self.moves for name in move)

    @property
    def trees(self) -> list[str]:
        """The trees it touches, in the order in which they are locked."""
        return sorted({tree_of(name) for name in self.names})

    @property
    def waits_for_others(self) -> bool:
        """Whether who keeps the moves, or the RENAMEs over several backends, ends it; no start after a crash does."""
        is_in_doubt = self.operation is Operation.PART and self.stage is Stage.PREPARED
        return is_in_doubt or self.operation in (Operation.MOVE, Operation.OWED)


def tree_of(name: MailboxName) -> str:
    """What is locked together: everything of one user, or everything below one shared top level."""
    domain, rest = split_domain(name)
    parts = rest.split(b".", 2)
    depth = 2 if parts[0] == USER_ROOT else 1
    root = b".".join(parts[:depth])
    return (domain + b"!" + root if domain else root).decode("latin-1")


def format_intent(intent: Intent) -> bytes:
    """As JSON: an operator may have to read it."""
    moves = [[name.decode("latin-1") for name in move] for move in intent.moves]
    fields: dict[str, object] = {
        "format": FORMAT,
        "operation": intent.operation.value,
        "moves": moves,
        "process": intent.process,
        "mailbox_id": intent.mailbox_id,
    }
    if intent.rename_id:
        root = intent.root or intent.moves[0]
        fields |= {
            "rename_id": intent.rename_id,
            "peers": intent.peers,
            "root": [name.decode("latin-1") for name in root],
            "stage": intent.stage.value,
        }
    return json.dumps(fields).encode()


def parse_intent(octets: bytes) -> Intent:
    """The reverse of `format_intent`."""
    fields = json.loads(octets)
    if fields["format"] > FORMAT:
        raise Refusal(
            Code.UNAVAILABLE,
            f"A newer murder has begun {fields.get('operation')} here, in format {fields['format']}; this one knows formats "
            f"up to {FORMAT}: run the newer one until it is done",
        )
    moves = tuple(
        (MailboxName(old.encode("latin-1")), MailboxName(new.encode("latin-1")))
        for old, new in fields["moves"]
    )
    intent = Intent(Operation(fields["operation"]), moves, fields["process"], fields["mailbox_id"])
    if "rename_id" not in fields:
        return intent
    old, new = (
        MailboxName(name.encode("latin-1")) for name in fields.get("root", fields["moves"][0])
    )
    return replace(
        intent,
        rename_id=fields["rename_id"],
        peers=tuple(fields["peers"]),
        root=(old, new),
        stage=Stage(fields["stage"]),
    )


def owed_key(rename_id: str) -> str:
    """Under which an OWED is kept: no tree is called so, for no part of a mailbox's name is empty."""
    return f".{rename_id}"


def this_process() -> str:
    """A name for this process that no other ever has, also after a restart of the machine."""
    return _process_name(os.getpid()) or f"{os.getpid()}"


def is_alive(process: str) -> bool:
    """Whether the process of that name still runs."""
    number = process.partition(":")[0]
    return number.isdecimal() and _process_name(int(number)) == process


def _process_name(pid: int) -> str:
    """`pid:start:boot`; just the pid where the system has no /proc; "" if there is no such process, or if it has been
    killed: one that waits for its disk may take seconds to end, but does nothing more."""
    folder = Path(f"/proc/{pid}")
    try:
        stat = (folder / "stat").read_text(encoding="ascii", errors="replace")
        status = (folder / "status").read_text(encoding="ascii", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return ""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return f"{pid}"
    words = stat.rpartition(")")[2].split()
    state, started = words[0], words[19]
    if state in ENDED or _is_killed(status):
        return ""
    return f"{pid}:{started}:{boot}"


def _is_killed(status: str) -> bool:
    """Whether SIGKILL is on its way (proc(5), `SigPnd` and `ShdPnd`)."""
    for line in status.splitlines():
        name, _, mask = line.partition(":")
        if name in ("SigPnd", "ShdPnd") and int(mask, 16) >> (signal.SIGKILL - 1) & 1:
            return True
    return False


def let_in(transaction: ListTransaction, intent: Intent, changes: Sequence[Change]) -> None:
    """Make these changes, and remove what is still there of the intent."""
    octets = format_intent(intent)
    steps = [*changes]
    steps += [RemoveIntent(tree) for tree in intent.trees if transaction.intent(tree) == octets]
    transaction.check(steps)
    for step in steps:
        transaction.apply(step)
