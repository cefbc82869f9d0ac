"""The words of `vnd.dovecot.testsuite`: tests in Sieve of Sieve."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from murder.sieve import Envelope, Keep, Machine
from murder.sieve.check.emit import Emitter, Label
from murder.sieve.check.spec import Argument, Call, Extension, Tag, Takes, Word
from murder.sieve.language.arguments import KEYS, MATCH_TAGS, match
from murder.sieve.problem import RunProblem
from murder.sieve.run.addresses import addresses_in
from murder.sieve.run.message import Message

if TYPE_CHECKING:
    from tests.rooms.sieve.suite import Suite

INDEX = Tag("index", Takes.NUMBER)


def envelope_of(message: Message) -> Envelope:
    """Where a test says no envelope, it is as the header has it."""

    def first(name: str, default: str) -> str:
        for one in message.named(name):
            for address in addresses_in(one.value):
                if address.domain:
                    return address.plain
        return default

    return Envelope(first("from", "sender@example.com"), first("to", "recipient@example.com"))


def path_of(text: str) -> str:
    """Without its angles, if it has both."""
    if text.startswith("<") and text.endswith(">") and text.count("<") == 1:
        return text[1:-1]
    return text


class Words:
    """Each method is a command or test: of a machine and its call."""

    def __init__(self, suite: "Suite") -> None:
        self.suite = suite

    # The tests themselves

    def begin(self, machine: Machine, call: Call) -> None:
        self.suite.name = machine.text(call.arguments[0])
        self.suite.is_failing = False

    def end(self, machine: Machine, call: Call) -> None:
        if not self.suite.is_failing:
            self.suite.held.append(self.suite.name)
        self.suite.name = ""

    def fail(self, machine: Machine, call: Call) -> None:
        self.suite.is_failing = True
        why = f"line {call.line}: {machine.text(call.arguments[0])}"
        if self.suite.errors:
            why += f" -- errors: {self.suite.errors}"
        self.suite.failed.append((self.suite.name, why))
        if call.data is None:
            raise RunProblem(why)
        machine.go(call.data.at)

    # Their world

    def set(self, machine: Machine, call: Call) -> None:
        from tests.rooms.sieve.suite import reset_message

        name, value = machine.text(call.arguments[0]), machine.text(call.arguments[1])
        envelope = machine.envelope
        match name:
            case "message":
                reset_message(machine, value.encode("utf-8", "surrogateescape"))
                machine.envelope = envelope_of(machine.message)
            case "envelope.from":
                machine.envelope = replace(envelope, sender=path_of(value))
            case "envelope.to":
                machine.envelope = replace(envelope, recipient=path_of(value))
            case "envelope.orig_to" | "envelope.orig-to":
                machine.envelope = replace(envelope, original=path_of(value))
            case "envelope.auth":
                machine.envelope = replace(envelope, auth=value)
            case _:
                raise AssertionError(name)
        self.looked(machine)

    def config_set(self, machine: Machine, call: Call) -> None:
        self.changed(machine)
        self.suite.config[machine.text(call.arguments[0])] = machine.text(call.arguments[1])

    def config_unset(self, machine: Machine, call: Call) -> None:
        self.suite.config.pop(machine.text(call.arguments[0]), None)

    def config_reload(self, machine: Machine, call: Call) -> None:
        self.changed(machine)
        machine.policy = self.suite.policy
        machine.limits = replace(self.suite.limits, actions=10_000, redirects=10_000)
        machine.circumstances = self.suite.circumstances()

    @staticmethod
    def changed(machine: Machine) -> None:
        """What was asked before may have another answer now."""
        machine._answers.clear()

    def mailbox_create(self, machine: Machine, call: Call) -> None:
        self.changed(machine)
        self.suite.stored.setdefault(self.suite.folder(machine.text(call.arguments[0])), [])

    def mailbox_delete(self, machine: Machine, call: Call) -> None:
        self.suite.stored.pop(machine.text(call.arguments[0]), None)

    def metadata_set(self, machine: Machine, call: Call) -> None:
        self.changed(machine)
        mailbox = call.tags.get("mailbox")
        key = None if mailbox is None else machine.text(mailbox)
        name = machine.text(call.arguments[0]).lower()
        self.suite.books.metadata[key, name] = machine.text(call.arguments[1])

    # Scripts

    def looked(self, machine: Machine) -> None:
        """What a program is told of the message's envelope."""
        envelope = machine.envelope
        self.suite.environment = {
            "SENDER": envelope.sender or "",
            "RECIPIENT": envelope.recipient or "",
            "ORIG_RECIPIENT": envelope.original,
            "HOST": machine.circumstances.host,
        }

    def compile(self, machine: Machine, call: Call) -> bool:
        return self.suite.compile_file(machine.text(call.arguments[0]))

    def run(self, machine: Machine, call: Call) -> bool:
        assert self.suite.script is not None
        return self.suite.run([self.suite.script], machine, appends="append_result" in call.tags)

    def multiscript(self, machine: Machine, call: Call) -> bool:
        scripts = []
        for name in machine.texts(call.arguments[0]):
            if not self.suite.compile_file(name):
                return False
            assert self.suite.script is not None
            scripts.append(self.suite.script)
        return self.suite.run(scripts, machine) and self.suite.execute(machine)

    def nothing(self, machine: Machine, call: Call) -> bool:
        return True

    # What came of them

    def error(self, machine: Machine, call: Call) -> Any:
        return match(machine, call, self._indexed(call, self.suite.errors))

    def action(self, machine: Machine, call: Call) -> Any:
        from tests.rooms.sieve.suite import NAMES

        names = [
            NAMES[type(action)]
            for action in self.suite.result(machine).actions
            if not (isinstance(action, Keep) and action.implicit)
        ]
        return match(machine, call, self._indexed(call, names))

    @staticmethod
    def _indexed(call: Call, values: list[str]) -> list[str]:
        index = call.tags.get("index")
        return values if index is None else values[index - 1 : index]

    def execute(self, machine: Machine, call: Call) -> bool:
        self.changed(machine)
        return self.suite.execute(machine)

    def reset(self, machine: Machine, call: Call) -> None:
        suite = self.suite
        suite.outcome, suite.errors = None, []
        suite.sent.clear()
        machine.actions.clear()
        machine.implicit_keep, machine.flags = True, None
        machine.state.clear()
        machine.message = machine.original
        machine.versions.append(machine.original)

    def message(self, machine: Machine, call: Call) -> bool:
        """Look at a message that was sent or stored from here on; whether there is one."""
        from tests.rooms.sieve.suite import reset_message

        number = call.arguments[0]
        if "smtp" in call.tags:
            if number >= len(self.suite.sent):
                return False
            sent = self.suite.sent[number]
            reset_message(machine, sent.octets)
            machine.envelope = Envelope(sent.sender, sent.recipient)
            return True
        name = self.suite.folder(machine.text(call.tags["folder"]))
        stored = self.suite.stored.get(name, [])
        if number >= len(stored):
            return False
        reset_message(machine, stored[number].octets)
        machine.flags = stored[number].flags
        machine.envelope = envelope_of(machine.message)
        return True


def extension_of(suite: "Suite") -> Extension:
    words = Words(suite)
    begin, end = Word("test", run=words.begin), Word("test", run=words.end)
    fail = Word("test_fail", run=words.fail)
    open_tests: list[Label] = []

    def emit_test(emitter: Emitter, call: Call) -> None:
        label = Label()
        open_tests.append(label)
        emitter.do(Call(begin, call.at, call.line, call.column, call.arguments))
        emitter.commands(call.block)
        emitter.place(label)
        emitter.do(Call(end, call.at, call.line, call.column))
        open_tests.pop()

    def emit_fail(emitter: Emitter, call: Call) -> None:
        emitter.do(
            Call(
                fail,
                call.at,
                call.line,
                call.column,
                call.arguments,
                data=open_tests[-1] if open_tests else None,
            )
        )

    text, number = Argument("text", Takes.STRING), Argument("number", Takes.NUMBER)
    texts = Argument("texts", Takes.STRINGS)
    found = [
        Word("test", (text,), block=True, emit=emit_test),
        Word("test_fail", (text,), emit=emit_fail),
        Word("test_set", (text, Argument("value", Takes.STRING)), run=words.set),
    ]

    def both(
        name: str, run: Callable[[Machine, Call], Any], *arguments: Argument, tags: Any = ()
    ) -> None:
        places = tuple(Argument(one.name, one.takes) for one in arguments)
        found.append(Word(name, places, tags, run=run))
        found.append(Word(name, places, tags, is_test=True, run=run))

    both("test_config_set", words.config_set, text, text)
    both("test_config_unset", words.config_unset, text)
    both("test_config_reload", words.config_reload, tags=(Tag("extension", Takes.STRING),))
    both("test_mailbox_create", words.mailbox_create, text)
    both("test_mailbox_delete", words.mailbox_delete, text)
    both(
        "test_imap_metadata_set",
        words.metadata_set,
        text,
        text,
        tags=(Tag("mailbox", Takes.STRING),),
    )
    both("test_script_compile", words.compile, text)
    both("test_script_run", words.run, tags=(Tag("append_result"),))
    both("test_multiscript", words.multiscript, texts)
    both("test_binary_load", words.nothing, text)
    both("test_binary_save", words.nothing, text)
    both("test_result_execute", words.execute)
    both("test_result_reset", words.reset)
    both("test_result_print", words.nothing)
    both("test_message", words.message, number, tags=(Tag("smtp"), Tag("folder", Takes.STRING)))
    tags = (*MATCH_TAGS, INDEX)
    found.append(Word("test_error", (KEYS,), tags, is_test=True, run=words.error))
    found.append(Word("test_result_action", (KEYS,), tags, is_test=True, run=words.action))
    return Extension("vnd.dovecot.testsuite", tuple(found))
