"""What is fuzzed: every door through which octets of strangers come in, each as a function of octets.

A target raises only what is no fault: nothing. Errors of ours for bad input (BadSyntax, Refusal) it takes itself, so that
whatever comes out is a finding. `long` repeats a short input to the size that a peer may really send: a cost that grows
faster than linearly then shows as a time-out.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from murder.errors import BadSyntax, Misuse, Refusal
from murder.mime.envelope import parse_envelope
from murder.mime.field import parse_disposition, parse_media, without_comments
from murder.mime.header import decode_value, parse_date
from murder.mime.preview import preview_of
from murder.mime.structure import parse_structure
from murder.mime.subject import base_subject
from murder.mime.summary import dump_structure, load_structure
from murder.mime.text import body_has, header_has, text_has
from murder.mime.thread import message_ids
from murder.model.acl import format_acl, parse_acl
from murder.model.name import Namespace, check_new_name, collation_key, display, name_of_key
from murder.model.query.listmatch import compile_pattern
from murder.model.sasl import Challenge
from murder.session.bearer import parse_oauthbearer, parse_xoauth2
from murder.session.imap_client import ResponseCutter, non_synchronising
from murder.session.imap_server import CommandRest, ImapServerSession
from murder.session.lines import LineSession
from murder.session.mupdate_client import MupdateClientSession
from murder.session.mupdate_server import MupdateServerSession
from murder.session.sasl import (
    ExternalServer,
    LoginServer,
    PlainServer,
    ScramServer,
    Secret,
    SecretWanted,
)
from murder.sieve import (
    BadScript,
    Circumstances,
    Envelope,
    Limits,
    ListMembers,
    OwnAddresses,
    Question,
    compile_script,
    run_to_end,
    start,
)
from murder.wire import dlist, mutf7
from murder.wire.fragment import Chunk, Fragmenter, Literal
from murder.wire.haproxy import octets_wanted, parse_header
from murder.wire.imap import enable, notify
from murder.wire.imap.command import Command
from murder.wire.imap.mail import append, copy, fetch, search, store, urlauth
from murder.wire.imap.mail.body import format_body_structure
from murder.wire.imap.mail.envelope import format_envelope
from murder.wire.imap.mailboxes import acl, mailbox, metadata, quota, select, status
from murder.wire.imap.mailboxes import list as listing
from murder.wire.lmtp import parse_bdat, parse_recipient, parse_xclient
from murder.wire.lmtp import parse_envelope as parse_lmtp_envelope
from murder.wire.mupdate import format_command
from murder.wire.nodes.carry import FrameCutter, parse_message, parse_portrait, parse_uids
from murder.wire.pop3 import parse_command as parse_pop3
from murder.wire.pop3 import parse_numbers
from murder.wire.token import Scanner
from murder.wire.url import format_url, parse_mupdate_url, parse_url
from plugins.auth_ldap.ber import Malformed, whole_length
from plugins.auth_ldap.messages import parse_message as parse_ldap
from tests.fuzz.logins import logins

LONG_OCTETS: Final = 32 * 1024  # half of a line, a header: what a peer may send at once
OURS: Final = (BadSyntax, Refusal)

Target = Callable[[bytes], None]

PARSERS: Final[Mapping[bytes, Callable[[Scanner], object]]] = {
    b"APPEND": append.parse_append_mailbox,
    b"COPY": copy.parse_copy,
    b"CREATE": mailbox.parse_create,
    b"DELETE": mailbox.parse_mailbox,
    b"DELETEACL": acl.parse_deleteacl,
    b"ENABLE": enable.parse_enable,
    b"EXPUNGE": copy.parse_uid_expunge,
    b"FETCH": fetch.parse_fetch,
    b"GENURLAUTH": urlauth.parse_genurlauth,
    b"GETMETADATA": metadata.parse_getmetadata,
    b"LIST": listing.parse_list,
    b"NOTIFY": notify.parse_notify,
    b"RENAME": mailbox.parse_rename,
    b"REPLACE": append.parse_replace_target,
    b"RESETKEY": urlauth.parse_resetkey,
    b"SEARCH": search.parse_search,
    b"SELECT": select.parse_select,
    b"SETACL": acl.parse_setacl,
    b"SETMETADATA": metadata.parse_setmetadata,
    b"SETQUOTA": quota.parse_setquota,
    b"SORT": search.parse_sort,
    b"STATUS": status.parse_status,
    b"STORE": store.parse_store,
    b"THREAD": search.parse_thread,
    b"URLFETCH": urlauth.parse_urlfetch,
}


def arguments_of(command: Command) -> None:
    parser = PARSERS.get(command.name.removeprefix(b"UID "))
    if parser is not None:
        try:
            parser(Scanner(command.octets, command.start))
        except OURS:
            pass


def imap_server(octets: bytes) -> None:
    """Commands before and after login, cut and parsed, with every literal let in."""
    for logged_in in (False, True):
        session = ImapServerSession(streamed=frozenset({b"APPEND", b"REPLACE"}))
        if logged_in:
            session.logged_in()
        for at in range(0, len(octets), 1 + len(octets) // 3):
            session.receive(octets[at : at + 1 + len(octets) // 3])
            try:
                while (event := session.next_event()) is not None:
                    if isinstance(event, Command):
                        arguments_of(event)
                    literal = event.literal if isinstance(event, Command | CommandRest) else None
                    if literal is not None:
                        session.accept_literal(literal)
            except BadSyntax:
                break
            except Misuse:
                break  # a command whose literal is collected has been answered for already


def imap_client(octets: bytes) -> None:
    """What a backend says, cut for its client; and a client's command for a backend."""
    cutter, rest = ResponseCutter(), octets

    try:
        while rest:
            _, line, left = cutter.feed(rest, b"a1")
            if line is None and left == rest:
                break
            rest = left
    except BadSyntax:
        pass
    try:
        non_synchronising(octets)
    except BadSyntax:
        pass


def fragments(octets: bytes) -> None:
    """Whole and octet by octet are cut alike."""
    assert cut(octets, len(octets) or 1) == cut(octets[:2000], 1) or len(octets) > 2000


def cut(octets: bytes, size: int) -> list[object]:
    fragmenter = Fragmenter(1000, 4000, 100)
    found: list[object] = []
    for at in range(0, len(octets), size):
        fragmenter.feed(octets[at : at + size])
        try:
            while (fragment := fragmenter.next()) is not None:
                if isinstance(fragment, Literal):
                    found.append((fragment.head, fragment.size))
                    fragmenter.accept()
                elif not isinstance(fragment, Chunk):
                    found.append(fragment)
        except BadSyntax:
            found.append("bad")
            break
    return found


ARGUMENTS: Final[Sequence[Callable[[bytes], object]]] = (
    lambda octets: parse_numbers(octets, 1, 2),
    lambda octets: parse_lmtp_envelope(octets, b"FROM"),
    parse_bdat,
    parse_xclient,
    parse_recipient,
)


def lines(octets: bytes) -> None:
    """POP3 and LMTP."""
    session = LineSession(1000)
    session.receive(octets)
    try:
        while (event := session.next_event()) is not None:
            line = getattr(event, "octets", b"")
            keyword, arguments = parse_pop3(line)
            for attempt in ARGUMENTS:
                try:
                    attempt(arguments)
                except OURS:
                    pass
            if keyword == b"DATA":
                session.expect_text()
    except BadSyntax:
        pass


def mupdate(octets: bytes) -> None:
    """Either side."""
    for session in (MupdateServerSession(), MupdateClientSession()):
        if isinstance(session, MupdateServerSession):
            session.logged_in()
        session.receive(octets)
        try:
            while (event := session.next_event()) is not None:
                if isinstance(event, Command):
                    format_command(b"t", event.verb, *event.args)
        except BadSyntax:
            pass


def tokens(octets: bytes) -> None:
    for parse in (parse_oauthbearer, parse_xoauth2):
        try:
            parse(octets)
        except BadSyntax:
            pass


def ldap(octets: bytes) -> None:
    data = octets
    try:
        while (length := whole_length(data)) is not None and 0 < length <= len(data):
            parse_ldap(data[:length])
            data = data[length:]
    except Malformed:
        pass


def sasl(octets: bytes) -> None:
    """Each mechanism's exchange, its responses between line ends."""
    for begin in (PlainServer, LoginServer, ExternalServer, ScramServer):
        try:
            exchange: Any = begin()
            for response in octets.split(b"\n")[:5]:
                step = exchange.step(response)
                if isinstance(step, SecretWanted):
                    step = exchange.supply(Secret(b"salt", 4096, b"s" * 32, b"k" * 32))
                if not isinstance(step, Challenge):
                    break
        except OURS:
            pass


def proxy_header(octets: bytes) -> None:
    try:
        if not octets_wanted(octets):
            parse_header(octets)
    except BadSyntax:
        pass


def names(octets: bytes) -> None:
    """Mailbox names, patterns, access lists, URLs."""
    for parse in (mutf7.decode, mutf7.from_utf8, mutf7.to_utf8, parse_acl, parse_mupdate_url):
        try:
            parse(octets)
        except (*OURS, ValueError) as error:
            assert not isinstance(error, UnicodeError) or parse is not parse_acl
    display(octets)
    try:
        name = Namespace().internal(octets, "ana")
        check_new_name(name)
        assert name_of_key(collation_key(name)) == name
        Namespace().external(name, "ana")
    except OURS:
        pass
    try:
        compile_pattern(octets[:500], b"/").fullmatch(octets[:200])
    except OURS:
        pass
    try:
        parse_url(format_url(parse_url(octets)))
    except OURS:
        pass
    format_acl(parse_acl(b"anyone\tlrs\t"))


def between_nodes(octets: bytes) -> None:
    """What Cyrus backends and ours say to each other while a mailbox moves."""
    cutter = FrameCutter()
    cutter.feed(octets)
    try:
        while (frame := cutter.next()) is not None:
            words = frame.words()
            for parse in (parse_uids, parse_message):
                try:
                    parse(words.get("x"))
                except OURS:
                    pass
            try:
                parse_portrait(words)
            except OURS:
                pass
    except BadSyntax:
        pass
    for line in octets.split(b"\n")[:50]:
        try:
            dlist.announced_by(line + b"\n")
            dlist.parse_values([line + b"\n"])
        except OURS:
            pass


def mail(octets: bytes) -> None:
    """A message: its structure told, kept, read again; searched; shown."""
    part = parse_structure(octets)
    format_body_structure(part, True)
    if part.envelope is not None:
        format_envelope(part.envelope)
    kept = dump_structure(part)
    if kept is not None:
        assert load_structure(kept) == part
    preview_of(octets, part)
    header_has(octets, part, "subject", "x")
    body_has(octets, part, "x")
    text_has(octets, part, "zzz")


def header(octets: bytes) -> None:
    """Fields that are parsed one by one."""
    value = octets.translate(None, b"\r\n\x00")
    decode_value(value)
    parse_date(value)
    parse_media(value)
    parse_disposition(value)
    without_comments(value)
    base_subject(value)
    message_ids(value)
    parse_envelope(b"From: " + value + b"\r\nTo: " + value + b"\r\n\r\n", 0, 2 * len(value) + 16)


def kept_summary(octets: bytes) -> None:
    """A summary that a disk has damaged is none, or one."""
    load_structure(octets)


def command_line(octets: bytes) -> None:
    """Arguments of every command."""
    for name in PARSERS:
        arguments_of(Command(b"a", name, b" " + octets.translate(None, b"\r\n") + b"\r\n", 0))


def sieve(octets: bytes) -> None:
    """A script, and behind a line of its own the message that it is run over."""
    text, _, message = octets.partition(b"\n%%\n")
    try:
        script = compile_script(text)
    except BadScript:
        return
    limits = Limits(steps=100_000)
    machine = start(
        [script, script],
        message or text,
        Envelope("a@example.org", "b+c@example.com"),
        Circumstances(datetime(2026, 3, 1, tzinfo=UTC)),
        limits=limits,
        is_traced=True,
    )
    outcome = run_to_end(machine, Nothing())
    assert outcome.actions
    assert outcome.steps <= limits.steps + 100_000
    for action in outcome.actions:
        assert action.key


class Nothing:
    """A world in which nothing is."""

    def answer(self, question: Question) -> object:
        return () if isinstance(question, ListMembers | OwnAddresses) else None


TARGETS: Final[Mapping[str, Target]] = {
    "imap_server": imap_server,
    "imap_client": imap_client,
    "fragments": fragments,
    "lines": lines,
    "mupdate": mupdate,
    "sasl": sasl,
    "logins": logins,
    "tokens": tokens,
    "ldap": ldap,
    "proxy_header": proxy_header,
    "names": names,
    "between_nodes": between_nodes,
    "mail": mail,
    "header": header,
    "kept_summary": kept_summary,
    "command_line": command_line,
    "sieve": sieve,
}


def long(octets: bytes, size: int = LONG_OCTETS) -> bytes:
    """The same again and again: what is quadratic shows."""
    return (octets * (size // max(1, len(octets)) + 1))[:size] if octets else b""
