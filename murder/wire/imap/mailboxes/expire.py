"""XEXPIRE, ours, for operators: what the rules of age would do at a backend, or do now; both directions."""

from dataclasses import dataclass
from typing import Final

from murder.wire.token import Scanner, astring, string

CAPABILITY: Final = b"X-EXPIRE"
WORD: Final = b"XEXPIRE"


@dataclass(frozen=True, slots=True)
class ExpiredTold:
    """What a rule does in one mailbox; names are as administrators see them. `target`: empty for away."""

    rule: str
    mailbox: bytes
    messages: int
    octets: int
    target: bytes = b""
    problem: str = ""


# xexpire = "XEXPIRE" SP ("PLAN" / "RUN")
def parse_expire(scanner: Scanner) -> bool:
    """Whether it is to be done. Raises BadSyntax."""
    scanner.space()
    word = scanner.word()
    if word not in (b"PLAN", b"RUN"):
        raise scanner.bad("PLAN or RUN")
    scanner.end()
    return word == b"RUN"


def format_expire(acts: bool) -> bytes:
    """The command, without a tag and CRLF."""
    return WORD + (b" RUN" if acts else b" PLAN")


# "*" SP "XEXPIRE" SP string SP mailbox SP number64 SP number64 SP string SP string
def format_expired(expired: ExpiredTold) -> bytes:
    """With CRLF."""
    rule, problem = (string(text.encode()) for text in (expired.rule, expired.problem))
    words = (WORD, rule, astring(expired.mailbox), expired.messages, expired.octets)
    return b"* %b %b %b %d %d " % words + b"%b %b\r\n" % (string(expired.target), problem)


def parse_expired(octets: bytes) -> ExpiredTold:
    """What follows the word. Raises BadSyntax."""
    scanner = Scanner(octets, 0)
    rule = scanner.string().decode("utf-8", "replace")
    scanner.space()
    mailbox = scanner.astring()
    scanner.space()
    messages = scanner.number(2**63 - 1)
    scanner.space()
    size = scanner.number(2**63 - 1)
    scanner.space()
    target = scanner.string()
    scanner.space()
    problem = scanner.string().decode("utf-8", "replace")
    return ExpiredTold(rule, mailbox, messages, size, target, problem)
