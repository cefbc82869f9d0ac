"""Run a directory of Pigeonhole's tests (`*.svtest`): Sieve scripts that test themselves with `vnd.dovecot.testsuite`.

    python -m tests.rooms.sieve.suite DIRECTORY [WORD ...]

With words, only files whose path has one of them. Tells each test that failed and why, and how many held. The tests are
Pigeonhole's own (LGPL) and are not part of this project; Debian's source package has them. What cannot hold:
vnd.dovecot.report, which is not there, and the two of `failures`, which are made to fail; of what came behind 2.4.1 one of
extlists, which wants `redirect :list` to be refused: it has none, ours has (RFC 6134 §2.3).
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from murder.sieve import (
    Action,
    BadScript,
    Circumstances,
    Discard,
    Envelope,
    FileInto,
    Keep,
    Limits,
    Machine,
    Notify,
    Outcome,
    Pipe,
    Policy,
    Redirect,
    Reject,
    Remember,
    Reply,
    ScriptCache,
    run_to_end,
    start,
)
from murder.sieve.check.compile import compile_octets
from murder.sieve.check.program import Script
from murder.sieve.check.spec import Argument, Call, Extension, Takes, Word
from murder.sieve.language.include import is_script_name
from murder.sieve.language.table import CAPABILITIES, CORE, EXTENSIONS
from murder.sieve.run.message import Message
from tests.rooms.sieve.running import Books
from tests.rooms.sieve.suite_config import (
    STRING_COMPARATOR,
    limits_of,
    lists_of,
    number_of,
    policy_of,
)

NAMES = {
    Keep: "keep",
    FileInto: "store",
    Redirect: "redirect",
    Reject: "reject",
    Reply: "vacation",
    Notify: "notify",
    Discard: "discard",
    Remember: "duplicate_mark",
    Pipe: "pipe",
}


INCLUDE = re.compile(r'^\s*include((?:\s+:\w+)*)\s+"([^"]*)"', re.MULTILINE)


@dataclass
class Sent:
    sender: str
    recipient: str
    octets: bytes


@dataclass
class Stored:
    octets: bytes
    flags: tuple[str, ...]


@dataclass
class Result:
    """What is to be executed: of a script that was run, or of the test's own commands."""

    actions: list[Action]
    messages: Callable[[int], bytes]


@dataclass
class Suite:
    """One file of tests as it runs. `failed`: tests and why."""

    path: Path
    config: dict[str, str] = field(default_factory=dict)
    books: Books = field(default_factory=lambda: Books(mailboxes=set(), addresses=()))
    stored: dict[str, list[Stored]] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    script: Script | None = None
    errors: list[str] = field(default_factory=list)
    outcome: Outcome | None = None
    name: str = ""
    held: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    is_failing: bool = False
    included: set[tuple[str, bool]] = field(default_factory=set)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def policy(self) -> Policy:
        return policy_of(self.config)

    @property
    def limits(self) -> Limits:
        return limits_of(self.config)

    def compile(self, octets: bytes) -> Script:
        extensions = {**EXTENSIONS, **self.extensions()}
        names = {*EXTENSIONS, *CAPABILITIES, *self.extensions()}
        octets = octets.replace(b"${tst.path}", str(self.path.parent).encode())
        return compile_octets(octets, CORE, extensions, names, self.limits, self.policy)

    def extensions(self) -> dict[str, Extension]:
        from tests.rooms.sieve.suite_words import extension_of

        debug = Extension(
            "vnd.dovecot.debug", (Word("debug_log", (Argument("text", Takes.STRING),), run=_log),)
        )
        return {"vnd.dovecot.testsuite": extension_of(self), debug.name: debug}

    def circumstances(self) -> Circumstances:
        environment = {"name": "Pigeonhole Sieve", "location": "MS"}
        variables = {
            re.sub("sieve_env_|sieve_environment/", "", key, count=1): value
            for key, value in self.config.items()
            if key.startswith(("sieve_env_", "sieve_environment/"))
        }
        environment |= {f"vnd.dovecot.config.{key}": value for key, value in variables.items()}
        environment["vnd.dovecot.default-mailbox"] = "INBOX"
        environment["vnd.dovecot.username"] = "testsuite"
        variables["vnd.dovecot.default_mailbox"] = "INBOX"
        variables["vnd.dovecot.username"] = "testsuite"
        variables |= {f"vnd.dovecot.config.{key}": value for key, value in variables.items()}
        return Circumstances(
            datetime.now(UTC).astimezone(), "testsuite", "host.example.com", environment, variables
        )

    def answerer(self) -> Books:
        email = self.config.get("sieve_user_email", "").strip("<>")
        self.books.addresses = (email,) if email else ()
        self.books.mailboxes = {*self.stored, "INBOX"}
        self.books.scripts = dict(self._scripts())
        self.books.lists = lists_of(self.config)
        self.books.run_program = self.run_program
        return self.books

    def _scripts(self) -> Iterator[tuple[tuple[str, bool], bytes]]:
        for is_global, folder in ((True, "included-global"), (False, "included")):
            for path in (self.path.parent / folder).glob("*.sieve"):
                yield (path.stem, is_global), path.read_bytes()

    @staticmethod
    def folder(name: str) -> str:
        """INBOX in whatever case, also as the first part of a name."""
        return "INBOX" + name[5:] if name[:5].upper() == "INBOX" else name

    def run(self, scripts: list[Script], machine: Machine, *, appends: bool = False) -> bool:
        """Scripts over the test's message; whether that went well."""
        run_ = start(
            scripts,
            bytes(machine.message.octets),
            machine.envelope,
            self.circumstances(),
            limits=self.limits,
            policy=self.policy,
            cache=ScriptCache(self.compile),
        )
        before = self.outcome.actions if appends and self.outcome is not None else ()
        self.outcome = run_to_end(run_, self.answerer())
        failure = self.outcome.failure
        self.errors = [note for note in self.outcome.notes if "invalid key" in note]
        if failure is not None:
            self.errors.append(failure.problem.text)
            self.outcome = replace(self.outcome, actions=())
        self.outcome = replace(self.outcome, actions=merged([*before, *self.outcome.actions]))
        return failure is None

    def run_program(
        self, kind: str, name: str, arguments: Sequence[str], octets: bytes
    ) -> bytes | None:
        """A program in the folder that the tests say."""
        folder = self.config.get(f"sieve_{kind}_bin_dir")
        path = Path(folder or "/nonexistent", name)
        if not path.is_file():
            return None
        end = self.config.get(f"sieve_{kind}_input_eol", "")
        if end:
            octets = octets.replace(b"\r\n", b"\n").replace(
                b"\n", b"\r\n" if end == "crlf" else b"\n"
            )
        environment = {"PATH": "/bin:/usr/bin", "HOME": "/tmp", "USER": "x", **self.environment}
        timeout = number_of(self.config.get(f"sieve_{kind}_exec_timeout", "10s"))
        try:
            done = subprocess.run(
                ["/bin/sh", str(path), *arguments],
                input=octets,
                env=environment,
                capture_output=True,
                timeout=timeout or None,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self.errors.append(f"the program {name} takes too long")
            return None
        return done.stdout if not done.returncode else None

    def compile_file(self, name: str) -> bool:
        octets = (self.path.parent / name).read_bytes()
        self.script, self.errors, self.included = None, [], set()
        try:
            self.script = self.compile(octets)
        except BadScript as bad:
            self.errors = [problem.text for problem in bad.problems]
        self.errors += self._included_errors(octets, [])
        if self.errors:
            self.errors.append("compilation failed")
            self.script = None
        return self.script is not None

    def _included_errors(self, octets: bytes, around: list[tuple[str, bool]]) -> list[str]:
        """Pigeonhole tells them when a script is compiled; each script around tells that it could not include."""
        found: list[str] = []
        scripts = dict(self._scripts())
        for match in INCLUDE.finditer(octets.decode("utf-8", "replace")):
            key = (match[2], ":global" in match[1])
            if not is_script_name(match[2]) or "${" in match[2]:
                continue  # the compiler has told it
            self.included.add(key)
            if key not in scripts:
                if ":optional" not in match[1]:
                    found.append(f"included script '{match[2]}' does not exist")
            elif key in around or len(around) >= self.limits.include_depth:
                found.append(f"included script '{match[2]}' includes itself, or too deeply")
            elif len(self.included) > self.limits.includes:
                found.append("too many scripts are included")
            else:
                within = self._included_errors(scripts[key], [*around, key])
                found += [*within, f"failed to include '{match[2]}'"] if within else []
        return found

    def result(self, machine: Machine) -> Result:
        if self.outcome is not None:
            messages = self.outcome.messages
            return Result(list(self.outcome.actions), lambda number: bytes(messages[number]))
        actions = list(machine.actions)
        if machine.implicit_keep:
            actions.append(Keep(machine.flags, machine.version(), implicit=True))
        return Result(actions, lambda number: bytes(machine.versions[number].octets))

    def execute(self, machine: Machine) -> bool:
        """Do what is to be done; whether all of it could be."""
        result = self.result(machine)
        self.errors = []
        for action in result.actions:
            self._execute(action, result, machine)
        if self.errors:
            self.stored.setdefault("INBOX", []).append(Stored(bytes(machine.original.octets), ()))
        return not self.errors

    def _execute(self, action: Action, result: Result, machine: Machine) -> None:
        match action:
            case Keep(flags=flags, version=version):
                self.stored.setdefault("INBOX", []).append(
                    Stored(result.messages(version), flags or ())
                )
            case FileInto(target=target, flags=flags, version=version):
                use = self.books.uses.get(target.special_use) if target.special_use else None
                self._store(
                    use or target.mailbox,
                    target.create,
                    Stored(result.messages(version), flags or ()),
                )
            case Redirect(address=address, version=version, sender=sender):
                own = (*self.books.addresses, machine.envelope.recipient or "")
                marks = machine.message.named("x-sieve-redirected-from")
                if not any(mark.text in own for mark in marks):
                    mark_ = f"X-Sieve-Redirected-From: {own[0]}\r\n".encode()
                    self.sent.append(Sent(sender, address, mark_ + result.messages(version)))
            case Reply(recipient=recipient, octets=octets, sender=sender):
                self.sent.append(Sent(sender, recipient, octets))
            case Notify(recipients=recipients, octets=octets, sender=sender):
                self.sent += [Sent(sender, one, octets) for one in recipients]
            case Reject(text=text):
                if machine.envelope.sender:
                    octets = (
                        f"From: <postmaster@example.com>\r\nTo: <{machine.envelope.sender}>\r\n"
                        f"Subject: Rejected\r\n\r\n{text}"
                    ).encode()
                    self.sent.append(Sent("", machine.envelope.sender, octets))
            case Pipe(program=program, arguments=arguments, version=version, may_fail=may_fail):
                said = self.run_program("pipe", program, arguments, result.messages(version))
                if said is None and not may_fail:
                    self.errors.append(f"failed to pipe message to program {program}")
            case Remember(once=once):
                self.books.seen.add(once.handle)

    def _store(self, name: str, create: bool, stored: Stored) -> None:
        name = self.folder(name)
        problem = ""
        if name not in self.stored and not create and name != "INBOX":
            problem = f"Mailbox doesn't exist: {name}"
        if "~" in name or ".." in name or "//" in name:
            problem = "Invalid mailbox name"
        if problem:
            self.errors.append(f"failed to store into mailbox '{name}': {problem}")
            return
        self.stored.setdefault(name, []).append(stored)


def _log(machine: Machine, call: Call) -> None:
    """`debug_log` says nothing here."""


def merged(actions: Sequence[Action]) -> tuple[Action, ...]:
    """A keep and a `fileinto "INBOX"` are one copy."""
    found: list[Action] = []
    for action in actions:
        if is_inbox(action) and any(map(is_inbox, found)):
            if isinstance(action, Keep) and not action.implicit:
                found = [action if is_inbox(one) else one for one in found]
            continue
        if isinstance(action, Discard) or (
            isinstance(action, Reject) and any(isinstance(one, Reject) for one in found)
        ):
            continue
        found.append(action)
    return tuple(found)


def is_inbox(action: Action) -> bool:
    if isinstance(action, FileInto):
        return action.target.mailbox.upper() == "INBOX"
    return isinstance(action, Keep)


def run_file(path: Path, config: Mapping[str, str]) -> Suite:
    """Raises BadScript where the file itself is not understood."""
    suite = Suite(path, dict(config))
    script = suite.compile(path.read_bytes())
    message = (
        b"From: sender@example.com\r\nTo: recipient@example.org\r\nSubject: Frop!\r\n\r\nFriep!\r\n"
    )
    machine = start(
        [script],
        message,
        Envelope("sender@example.com", "recipient@example.org"),
        suite.circumstances(),
        limits=replace(suite.limits, actions=10_000, redirects=10_000),
        policy=suite.policy,
        cache=ScriptCache(suite.compile),
    )
    outcome = run_to_end(machine, Live(suite))
    if suite.name and not suite.is_failing and outcome.failure is None:
        suite.held.append(suite.name)  # it ended with `stop`
    if outcome.failure is not None:
        suite.failed.append((suite.name or "the file", f"run-time error: {outcome.failure}"))
    return suite


class Live:
    """The world of the test's own commands."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite

    def answer(self, question: Any) -> Any:
        return self._suite.answerer().answer(question)


def reset_message(machine: Machine, octets: bytes) -> None:
    machine.message = Message(octets)
    for _ in machine.message.read():
        pass
    machine.original = machine.message
    machine.versions.append(machine.message)


def main(arguments: list[str]) -> int:
    folder, words = Path(arguments[0]), arguments[1:]
    # of 2.3 there are tests of what 2.4 has no more
    is_old = (folder / "deprecated").is_dir()
    config = {} if is_old else {STRING_COMPARATOR: "i;ascii-casemap"}
    held = failed = 0
    for path in sorted(folder.rglob("*.svtest")):
        shown = str(path.relative_to(folder))
        if words and not any(word in shown for word in words):
            continue
        try:
            suite = run_file(path, config)
        except BadScript as bad:
            count = path.read_text(encoding="utf-8", errors="replace").count('\ntest "')
            failed += count
            print(f"{shown}: {count} tests, not understood: {bad.problems[0]}")
            continue
        held += len(suite.held)
        failed += len(suite.failed)
        for name, why in suite.failed:
            print(f"{shown}: {name}: {why}")
    print(f"{held} held, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
