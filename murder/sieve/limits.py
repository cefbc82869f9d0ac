"""How much a script may be and do, and what a site decides about the extensions. All of it is given from outside."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# What a reject, or our own loop detection, must be able to rely on: never taken out of a message (RFC 5293 §6, RFC 5321)
PROTECTED_FIELDS: Final = frozenset({"received", "auto-submitted", "x-sieve-redirected-from"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one script, one run, one message. What is beyond is a Problem, never a silent end.

    A step is about a microsecond of work: an eighth of an instruction, or some 64 octets that are looked at.
    """

    script_octets: int = 1024 * 1024  # as Pigeonhole; Cyrus takes 32 KiB
    problems: int = 20  # told of one script
    # what a user's own mailboxes begin with, where they begin with something: who files into others is warned
    own_prefix: str = ""
    blocks: int = 32  # within each other, as Pigeonhole; RFC 5228 §2.10.5 asks for 15
    tests: int = 32  # within each other
    arguments: int = 32  # of one command; strings of a list are none
    commands: int = 20_000  # and tests, of one script: each takes about 1 kB in memory
    string_octets: int = 1024 * 1024  # of one string of a script, as Pigeonhole
    identifier_octets: int = 32
    list_strings: int = 10_000  # of one list
    actions: int = 32  # as Pigeonhole
    redirects: int = 4  # as Pigeonhole; 0: none may be asked for
    notifications: int = 10  # as Pigeonhole; 0: none may be asked for
    # about 30 s, as Pigeonhole's CPU time; for all scripts of a message together
    steps: int = 30_000_000
    # of a variable, longer ones are cut: RFC 5229 §6 asks for 4000 characters
    value_octets: int = 4096
    name_octets: int = 64  # of a variable's name: RFC 5229 §6 asks for 32
    variables: int = 255  # RFC 5229 §6 asks for 128
    match_values: int = 32  # ${0} to ${31}; RFC 5229 §6 asks for 10
    result_octets: int = 4 * 1024 * 1024  # of all texts that a run makes for its actions
    # of the parts together that one `body` or `extracttext` looks at
    body_octets: int = 16 * 1024 * 1024
    include_depth: int = 10  # RFC 6609 §3.1 asks for 3
    includes: int = 255  # scripts of one run
    header_octets: int = 2048  # of a field that `addheader` makes, as Pigeonhole
    message_versions: int = 64  # that editheader and replace make of a message
    # that replace and enclose put together, but for a first time
    rebuilt_octets: int = 16 * 1024 * 1024
    patterns: int = 250  # regular expressions of one script, and `:matches` with a `?`
    trace_lines: int = 10_000


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a filter before us wrote its verdict (RFC 5235): the field's name, what in it is the score (a regular
    expression with one group), how it is read, and what the best score is.

    `kind`: "score" a number, "strlen" as many characters, "text" one of `texts` (verdict -> its text).
    """

    name: str = ""
    pattern: str = ""
    kind: str = "score"
    maximum: str = ""  # a number, or `name: pattern` of where it stands
    texts: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a site decides about the extensions."""

    separator: str = "+"  # between user and detail (RFC 5233)
    protected_fields: frozenset[str] = PROTECTED_FIELDS  # never deleted, in lower case
    not_added_fields: frozenset[str] = frozenset()  # never added
    vacation_default_s: int = 7 * 86_400
    # of `:seconds` (RFC 6131 §2); `:days` are one at least (RFC 5230 §4.1)
    vacation_minimum_s: int = 0
    vacation_maximum_s: int = 30 * 86_400
    vacation_subject: str = ""  # where the script and the message say none
    vacation_subject_template: str = ""  # `%$` stands for the message's
    vacation_subject_characters: int = 256
    duplicate_default_s: int = 12 * 3600  # as Pigeonhole
    duplicate_maximum_s: int = 2 * 86_400
    # of `string`: RFC 5228 §2.7.3; Pigeonhole has i;octet
    string_comparator: str = "i;ascii-casemap"
    spam: Scale = field(default_factory=Scale)
    virus: Scale = field(default_factory=Scale)
    # only where an own address is in To, Cc, Bcc (RFC 5230 §4.5)
    vacation_checks_recipient: bool = True
    vacation_uses_original: bool = False  # the recipient before aliases is an own address, too
    vacation_names_from_header: bool = False  # answer whom the header says, not the envelope
    # Envelopes of what is sent: "null", "sender", "recipient", "original" (ORCPT), "user", "postmaster", or an address.
    # What answers a null sender has one itself, always.
    vacation_from: str = "null"
    notify_from: str = ""  # whom the script names, else postmaster
    redirect_from: str = "sender"
