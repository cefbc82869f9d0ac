"""Scripts run in tests: a world that answers from dictionaries, and outcomes as short texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from murder.sieve import (
    CAPABILITIES,
    PROGRAMS,
    Action,
    Answer,
    BadScript,
    Circumstances,
    Discard,
    Envelope,
    FileInto,
    InList,
    Keep,
    Limits,
    ListIsKnown,
    ListMembers,
    MailboxExists,
    MailboxIdExists,
    Metadata,
    Notify,
    Outcome,
    OwnAddresses,
    Pipe,
    Policy,
    Question,
    Redirect,
    Reject,
    Remember,
    Reply,
    RunProgram,
    ScriptNamed,
    SeenBefore,
    SpecialUseExists,
    compile_script,
    run_to_end,
    start,
)

NOW = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)
MESSAGE = b"""From: Coyote <coyote@desert.example.org>
To: Roadrunner <roadrunner@acme.example.com>
Subject: I have a present for you
Message-ID: <one@desert.example.org>
Date: Sun, 1 Mar 2026 10:00:00 +0200

Look, I'm sorry about the whole anvil thing.
""".replace(b"\n", b"\r\n")


@dataclass
class Books:
    """What there is in the world of a test."""

    mailboxes: set[str] = field(default_factory=lambda: {"INBOX"})
    mailbox_ids: set[str] = field(default_factory=set)
    uses: dict[str, str] = field(default_factory=dict)  # special use -> mailbox
    metadata: dict[tuple[str | None, str], str] = field(default_factory=dict)
    lists: dict[str, set[str]] = field(default_factory=dict)
    scripts: dict[tuple[str, bool], bytes] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    addresses: tuple[str, ...] = ("roadrunner@acme.example.com",)
    run_program: Callable[[str, str, Sequence[str], bytes], bytes | None] = lambda *_: None
    asked: list[Question] = field(default_factory=list)

    def answer(self, question: Question) -> Answer:
        self.asked.append(question)
        match question:
            case MailboxExists(mailbox=name):
                return name in self.mailboxes
            case MailboxIdExists(mailbox_id=name):
                return name in self.mailbox_ids
            case SpecialUseExists(mailbox=None, uses=uses):
                return all(use in self.uses for use in uses)
            case SpecialUseExists(mailbox=name, uses=uses):
                return all(self.uses.get(use) == name for use in uses)
            case Metadata(mailbox=mailbox, name=name):
                return self.metadata.get((mailbox, name))
            case InList(name=name, value=value):
                members = self.lists.get(name)
                if members is None:
                    return None
                return next((one for one in members if one.lower() == value.lower()), "")
            case ListIsKnown(name=name):
                return name in self.lists
            case ListMembers(name=name):
                members = self.lists.get(name)
                return None if members is None else tuple(sorted(members))
            case ScriptNamed(name=name, is_global=is_global):
                return self.scripts.get((name, is_global))
            case SeenBefore(handle=handle):
                return handle in self.seen
            case OwnAddresses():
                return self.addresses
            case RunProgram(kind=kind, program=program, arguments=arguments, octets=octets):
                return self.run_program(kind, program, arguments, bytes(octets))
            case _:
                raise AssertionError(question)


def run(
    *scripts: str,
    message: bytes = MESSAGE,
    sender: str = "coyote@desert.example.org",
    recipient: str = "roadrunner@acme.example.com",
    books: Books | None = None,
    limits: Limits | None = None,
    policy: Policy | None = None,
    circumstances: Circumstances | None = None,
    is_traced: bool = False,
) -> Outcome:
    """What scripts come to, one after another."""
    limits, policy = limits or Limits(), policy or Policy()
    programs = [
        compile_script(script.encode(), limits, CAPABILITIES | PROGRAMS, policy)
        for script in scripts
    ]
    envelope = Envelope(sender, recipient)
    known = circumstances or Circumstances(NOW, "roadrunner", "mail.example.com")
    machine = start(
        programs,
        message,
        envelope,
        known,
        limits=limits,
        policy=policy,
        is_traced=is_traced,
    )
    return run_to_end(machine, books or Books())


def shown(action: Action) -> str:
    """An action in a few words: `fileinto Lists [\\Seen]`."""
    match action:
        case Keep(flags=flags, implicit=implicit):
            words = ["implicit keep" if implicit else "keep", _shown_flags(flags)]
        case FileInto(target=target, flags=flags):
            words = ["fileinto", target.mailbox, _shown_flags(flags)]
        case Redirect(address=address):
            words = ["redirect", address]
        case Reject(text=text):
            words = ["reject", text]
        case Reply(recipient=recipient):
            words = ["reply", recipient]
        case Notify(recipients=recipients):
            words = ["notify", *recipients]
        case Pipe(program=program):
            words = ["pipe", program]
        case Remember():
            words = ["remember"]
        case Discard():
            words = ["discard"]
    return " ".join(word for word in words if word)


def _shown_flags(flags: tuple[str, ...] | None) -> str:
    return "" if flags is None else f"[{' '.join(flags)}]"


def actions_of(outcome: Outcome) -> list[str]:
    """All actions in words, or what went wrong."""
    if outcome.failure is not None:
        return [f"failure {outcome.failure.problem.text}"]
    return [shown(action) for action in outcome.actions]


def problems_of(script: str | bytes, **given: object) -> list[str]:
    """What is wrong with a script, `line:column text` each; empty where nothing is."""
    octets = script.encode() if isinstance(script, str) else script
    try:
        compile_script(octets, **given)  # type: ignore[arg-type] # whatever a test gives
    except BadScript as bad:
        return [f"{one.line}:{one.column} {one.text}" for one in bad.problems]
    return []
