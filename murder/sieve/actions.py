"""What is to be done with a message: the answer of a script, as values.

Order is the script's. Each has a `key`, the same whenever the same script comes to the same action for the same message:
with the message's own key it names a side effect, so that who carries actions out can note it and never does it twice.
Actions that would be the same twice stand here once (RFC 5228 §2.10.3).
"""

import hashlib
from dataclasses import dataclass, field


def _key(kind: str, *facts: str) -> str:
    joined = "\0".join(facts).encode("utf-8", "surrogateescape")
    return f"{kind}:{hashlib.sha256(joined).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Place:
    """The line of the script that said so; `script` counts those that ran for the message, from 0; an included one has
    its name in `include`."""

    script: int = 0
    line: int = 0
    include: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """The mailbox that is meant: by name as the user's mail program calls it, in Unicode; where it has one, by its
    MAILBOXID first (RFC 9042), then by its special use (RFC 8579), then by name. `create`: made where it is not there."""

    mailbox: str
    create: bool = False
    mailbox_id: str = ""
    special_use: str = ""
    flags: tuple[str, ...] = ()

    @property
    def facts(self) -> tuple[str, ...]:
        """What tells one mailbox from another."""
        return (self.mailbox, self.mailbox_id, self.special_use)


@dataclass(frozen=True, slots=True)
class Keep:
    """Where the message would go without a script. `implicit`: no action took that back (RFC 5228 §2.10.2). `flags` None:
    the script says nothing of flags, so those that it has stay (imapsieve), or none are set."""

    flags: tuple[str, ...] | None = None
    version: int = 0  # of Outcome.messages
    implicit: bool = False
    place: Place = field(default=Place(), compare=False)

    @property
    def key(self) -> str:
        """Actions with the same one are the same, and done once."""
        return "keep"


@dataclass(frozen=True, slots=True)
class FileInto:
    """Into another mailbox (RFC 5228 §4.1)."""

    target: Target
    flags: tuple[str, ...] | None = None
    version: int = 0
    place: Place = field(default=Place(), compare=False)

    @property
    def key(self) -> str:
        """By the mailbox, however the script names it."""
        return _key("fileinto", *self.target.facts)


@dataclass(frozen=True, slots=True)
class Discard:
    """Nowhere, silently. Stands alone: where something else is done, it says nothing."""

    place: Place = field(default=Place(), compare=False)

    @property
    def key(self) -> str:
        return "discard"


@dataclass(frozen=True, slots=True)
class Reject:
    """Nowhere, and the sender is told why (RFC 5429). `ereject`: never with a message of our own where it can be refused
    before it is accepted."""

    text: str
    ereject: bool = False
    place: Place = field(default=Place(), compare=False)

    @property
    def key(self) -> str:
        return "reject"


@dataclass(frozen=True, slots=True)
class Redirect:
    """To another address. `sender` is the envelope's, as policy has it; empty: the null sender."""

    address: str
    version: int = 0
    sender: str = ""
    place: Place = field(default=Place(), compare=False)

    @property
    def key(self) -> str:
        """By the address, in whatever case."""
        return _key("redirect", self.address.casefold())


@dataclass(frozen=True, slots=True)
class Once:
    """Not again within `period_s` for this `handle`: who sends notes it, and does not send while the note is young.
    A `handle` is an opaque text that stays the same over deliveries."""

    handle: str
    period_s: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A vacation reply (RFC 5230): a whole message, its lines ended by CRLF. `recipient` is the sender of the message that
    is answered. The envelope's sender is null, unless `sender` is set. `copy`: where the reply is filed (fcc)."""

    recipient: str
    octets: bytes = field(repr=False)
    once: Once
    sender: str = ""
    copy: Target | None = None
    place: Place = field(default=Place(), compare=False)

    @property
    def key(self) -> str:
        """By what is answered once, and to whom."""
        return _key("vacation", self.once.handle, self.recipient.casefold())


@dataclass(frozen=True, slots=True)
class Notify:
    """A notification (RFC 5435). By mailto (RFC 5436) `octets` is the whole message for `recipients`; other methods have
    what the script says in `message` and `options`. `importance`: 1 high, 2 normal, 3 low."""

    method: str
    recipients: tuple[str, ...] = ()
    octets: bytes = field(default=b"", repr=False)
    sender: str = ""
    message: str = ""
    importance: int = 2
    options: tuple[str, ...] = ()
    copy: Target | None = None
    place: Place = field(default=Place(), compare=False)

    @property
    def key(self) -> str:
        """By all of it: two notifications may differ in the text alone."""
        return _key("notify", self.method, self.message, str(self.importance), *self.options)


@dataclass(frozen=True, slots=True)
class Remember:
    """That this message has come (RFC 7352): to be noted when all else was done."""

    once: Once
    place: Place = field(default=Place(), compare=False)

    @property
    def key(self) -> str:
        return _key("remember", self.once.handle)


@dataclass(frozen=True, slots=True)
class Pipe:
    """To a program of the site (vnd.dovecot.pipe). `may_fail`: then nothing is to be done about it."""

    program: str
    arguments: tuple[str, ...] = ()
    may_fail: bool = False
    version: int = 0
    place: Place = field(default=Place(), compare=False)

    @property
    def key(self) -> str:
        return _key("pipe", self.program, *self.arguments)


Action = Keep | FileInto | Discard | Reject | Redirect | Reply | Notify | Remember | Pipe
