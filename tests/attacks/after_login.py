"""Rows of users and nodes that have a password and have gone bad."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from tests.attacks.ground import CHEAP, Ground, Wire, ask, deflated, flood, hold
from tests.attacks.rows import Attack, Row, asking, crowding, literal, read, slowly, unread

MANY: Final = "INBOX/many"
MESSAGES: Final = 10_000
BLOCK: Final = 1 << 16


def message(number: int) -> bytes:
    return (
        b"From: a%d@b.example\r\nTo: c@d.example\r\nSubject: s%d\r\nMessage-ID: <%d@x>\r\n"
        b"References: <%d@x>\r\nDate: Sat, 28 Nov 2026 12:00:00 +0000\r\n\r\nbody %d\r\n"
    ) % (number % 97, number, number, number // 2, number)


def large(ground: Ground) -> None:
    ground.mailbox(MANY, *map(message, range(MESSAGES)))


SETS: Final = ",".join(["1:4294967295", "*:1"] * 2300).encode()
NUMBERS: Final = b",".join(b"%d" % number for number in range(1, 9000))
WILD: Final = [literal(b"*" + b"a*" * 390 + b"%d" % n) for n in range(60)]
ITEMS: Final = [b"BODY.PEEK[HEADER.FIELDS (a%d)]<0.1>" % n for n in range(900)]
URLS: Final = [b'"imap://a@b/INBOX;UID=%d"' % n for n in range(900)]

# Selected, in a mailbox of 10,000
IN_MANY: Final = {
    "STORE of all": (b"STORE 1:* +FLAGS (\\Flagged)", b"STORE 1:* -FLAGS (\\Flagged)"),
    "STORE of keywords": (b"STORE 1:* +FLAGS.SILENT (k1 k2 k3)", b"STORE 1:* -FLAGS.SILENT (k1)"),
    "COPY of all": (b"CREATE INBOX/copy", b"COPY 1:* INBOX/copy", b"DELETE INBOX/copy"),
    "SORT": (b"SORT (REVERSE SUBJECT FROM TO CC DATE SIZE) UTF-8 ALL",),
    "THREAD REFERENCES": (b"THREAD REFERENCES UTF-8 ALL",),
    "THREAD ORDEREDSUBJECT": (b"THREAD ORDEREDSUBJECT UTF-8 ALL",),
    "SEARCH NOT 1, 3000 times": (b"SEARCH " + b"NOT 1 " * 3000 + b"ALL",),
    "SEARCH of OR in OR": (b"SEARCH " + b"OR SEEN " * 400 + b"SEEN",),
    "SEARCH of OR as deep as is let": (b"SEARCH " + (b"OR SEEN " * 60 + b"SEEN ") * 100 + b"ALL",),
    "SEARCH of 9000 dollars": (b"SEARCH RETURN (SAVE) ALL", b"SEARCH " + b"$ " * 9000 + b"ALL"),
    "SEARCH of 50 TEXT": (b"SEARCH " + b" ".join(b"NOT TEXT q%d" % n for n in range(50)),),
    "SEARCH of 50 HEADER": (b"SEARCH " + b" ".join(b"NOT HEADER X%d q" % n for n in range(50)),),
    "SEARCH of UID sets": (b"UID SEARCH UID " + SETS,),
    "FETCH of 900 items": (b"FETCH 1:200 (" + b" ".join(ITEMS) + b")",),
    "FETCH of as many items as are let": (b"FETCH 1:200 (" + b" ".join(ITEMS[:250]) + b")",),
    "FETCH of all that is cheap": (b"FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)",),
    "FETCH of all bodies": (b"FETCH 1:* (BODY.PEEK[] BODYSTRUCTURE)",),
    "FETCH of large sets": (b"UID FETCH " + SETS + b" (UID)", b"UID FETCH " + NUMBERS + b" (UID)"),
    "EXPUNGE of large sets": (b"UID EXPUNGE " + SETS,),
    "SELECT again and again": (b"SELECT " + MANY.encode(), b"EXAMINE " + MANY.encode()),
}
# Logged in, nothing selected
LOGGED: Final = {
    "LIST with 60 wild patterns": (b'LIST "" (' + b" ".join(WILD) + b")",),
    "LIST with as many as are let": (b'LIST "" (' + b" ".join(WILD[:10]) + b")",),
    "LIST of all with STATUS": (b'LIST "" * RETURN (STATUS (MESSAGES UNSEEN SIZE))',),
    "a name of 400 kB": (b"STATUS " + literal(b"a" * 400_000) + b" (MESSAGES)",),
    "a name of combining marks": (
        b"ENABLE UTF8=ACCEPT",
        b"STATUS " + literal(b"a" + "\u0301\u0323".encode() * 15_000) + b" (MESSAGES)",
    ),
    "SETACL of many": tuple(b"SETACL INBOX i%d lr" % n for n in range(1500)),
    "CREATE and DELETE": tuple(
        b"%b INBOX/deep/a%d" % (do, n) for n in range(50) for do in (b"CREATE", b"DELETE")
    ),
    "SUBSCRIBE of many": tuple(b"SUBSCRIBE INBOX/no%d" % n for n in range(3000)),
    "SETMETADATA that is large": (
        b"SETMETADATA INBOX (/private/comment " + literal(b"x" * 60_000) + b")",
    ),
    "STATUS of 10,000 messages": (b"STATUS INBOX/many (MESSAGES UNSEEN SIZE DELETED)",),
    "APPEND of a message of 20 MB": (
        b"CREATE INBOX/big",
        b"APPEND INBOX/big " + literal((b"x" * 68 + b"\r\n") * 285_000),
        b"DELETE INBOX/big",
    ),
    "APPEND of a line of 20 MB": (
        b"CREATE INBOX/big",
        b"APPEND INBOX/big " + literal(b"x" * 70 * 285_000),
        b"DELETE INBOX/big",
    ),
    "APPEND of 500 messages": (
        b"CREATE INBOX/deep",
        b"APPEND INBOX/deep " + b" ".join([literal(message(1))] * 500),
        b"DELETE INBOX/deep",
    ),
    "URLFETCH of many": (b"URLFETCH " + b" ".join(URLS),),
    "URLFETCH of as many as are let": (b"URLFETCH " + b" ".join(URLS[:100]),),
    "wrong words": (b"X" * 60_000, b"(" * 30_000, b'"' + b"\\" * 30_000),
    "parentheses": (b"LIST " + b"(" * 30_000, b"FETCH 1 " + b"(" * 30_000),
}


def fan_out(where: str, listen: bytes, answer: bytes, count: int = 100) -> Attack:
    """As many as get in within half of the time listen to a mailbox of 10,000, none reads, and one changes all of it."""

    def attack(ground: Ground, end: float) -> None:
        def listener() -> Wire:
            wire = ground.open(where, "imap", "logged")
            wire.ok(f"SELECT {MANY}")
            wire.raw(listen)
            wire.until_quiet(answer)
            return wire

        begun = (time.monotonic() + end) / 2
        with (
            ground.crowd(count, begun, listener),
            closing(ground.open(where, "imap", "logged")) as changer,
        ):
            changer.ok(f"SELECT {MANY}")
            while time.monotonic() < end:
                ask(changer, b"STORE 1:* +FLAGS (fan)", end)
                ask(changer, b"STORE 1:* -FLAGS (fan)", end)

    return attack


def inflating(where: str, protocol: str, block: bytes, megabytes: int = 64) -> Attack:
    octets = deflated(block * (BLOCK // len(block)), megabytes * 16)

    def attack(ground: Ground, end: float) -> None:
        with closing(ground.open(where, protocol, "deflated")) as wire:
            flood(wire, octets, end)

    return attack


def never_read(where: str, count: int = 20) -> Attack:
    """Fetches of everything, on many connections, and no answer read."""

    def attack(ground: Ground, end: float) -> None:
        with ground.crowd(count, end, lambda: ground.open(where, "imap", "logged")) as wires:
            for wire in wires:
                wire.raw(b"s SELECT INBOX/many\r\n" + b"f FETCH 1:* (BODY[] ENVELOPE)\r\n" * 500)
            hold(end)

    return attack


def by_imap() -> Iterator[Row]:
    for where in ("fe", "be"):
        cheap = b"a NOOP\r\n" * (BLOCK // 8)
        for state in ("logged", "selected", "idle", "penalty"):
            at = f"{where} imap {state}"
            yield Row(f"{at}: NOOP pipelined, no answer read", unread(where, "imap", state, cheap))
            yield Row(f"{at}: NOOP pipelined, answers read", read(where, "imap", state, cheap))
            yield Row(f"{at}: octets by ones", slowly(where, "imap", state, b"a NOOP\r\n", 20))
            yield Row(f"{at}: a line that has no end", unread(where, "imap", state, b"y" * BLOCK))
        for name, commands in IN_MANY.items():
            row = asking(where, *commands, mailbox=MANY)
            yield Row(f"{where} imap many: {name}", row, large)
        for name, commands in LOGGED.items():
            yield Row(f"{where} imap logged: {name}", asking(where, *commands), large)
        status = b"a STATUS INBOX (MESSAGES SIZE)\r\n" * 2000
        yield Row(f"{where} imap logged: STATUS pipelined", unread(where, "imap", "logged", status))
        listing = b'a LIST "" *\r\n' * 2000
        yield Row(f"{where} imap logged: LIST pipelined", read(where, "imap", "logged", listing))
        yield Row(
            f"{where} imap many: FETCH of all, 20 times, no answer read", never_read(where), large
        )
        yield Row(f"{where} imap many: 100 IDLE", fan_out(where, b"i IDLE\r\n", b"+"), large)
        notify = b"n NOTIFY SET (SELECTED (MessageNew MessageExpunge FlagChange))\r\n"
        yield Row(f"{where} imap many: 100 NOTIFY", fan_out(where, notify, b"n "), large)
        for word in (b"a NOOP\r\n", b"x" * 64, b'a LIST "" *\r\n', b"a CAPABILITY\r\n"):
            name = word[:6].strip().decode()
            yield Row(f"{where} imap deflated: 64 MB of {name}", inflating(where, "imap", word))
        yield Row(f"{where} imap idle: 200 of them", crowding(where, "imap", "idle"))


def by_others() -> Iterator[Row]:
    nested = b"if true { " * 3000 + b"keep;" + b"}" * 3000
    lists = b'if header :contains ["a"] [' + b'"x",' * 20_000 + b'"y"] { keep; }'
    for where in ("fe", "be"):
        for name, line in (
            ("UIDL", b"UIDL\r\n"),
            ("TOP", b"TOP 1 9999\r\n"),
            ("STAT", b"STAT\r\n"),
        ):
            block = line * (BLOCK // len(line))
            yield Row(
                f"{where} pop3 logged: {name}, no answer read",
                unread(where, "pop3", "logged", block),
            )
            yield Row(
                f"{where} pop3 logged: {name}, answers read", read(where, "pop3", "logged", block)
            )
        text = (b"x" * 70 + b"\r\n") * 900
        yield Row(
            f"{where} lmtp data: a message without an end", unread(where, "lmtp", "data", text)
        )
        yield Row(
            f"{where} lmtp data: a line without an end", unread(where, "lmtp", "data", b"x" * BLOCK)
        )
        yield Row(f"{where} lmtp data: octets one by one", slowly(where, "lmtp", "data", b".\r\n"))
        yield Row(
            f"{where} lmtp data: messages of 1 octet", read(where, "lmtp", "data", small_mail())
        )
        recipients = b"MAIL FROM:<a@b>\r\n" + b"RCPT TO:<user1>\r\n" * 3000 + b"RSET\r\n"
        yield Row(
            f"{where} lmtp greeted: 3000 RCPT",
            read(where, "lmtp", "greeted", b"LHLO x\r\n" + recipients),
        )
        for name, script in (
            ("nested", nested),
            ("lists", lists),
            ("comments", b"/*" + b"*" * 60_000),
        ):
            put = (
                b'PUTSCRIPT "a" '
                + literal(script)
                + b"\r\nCHECKSCRIPT "
                + literal(script)
                + b"\r\n"
            )
            yield Row(
                f"{where} sieve logged: scripts of {name}", read(where, "sieve", "logged", put)
            )
        yield Row(
            f"{where} sieve logged: LISTSCRIPTS, no answer read",
            unread(where, "sieve", "logged", b"LISTSCRIPTS\r\n" * 5000),
        )


def small_mail() -> bytes:
    again = b"MAIL FROM:<a@b>\r\nRCPT TO:<user1>\r\nDATA\r\nx\r\n.\r\n"
    return b"x\r\n.\r\n" + again * 500 + b"MAIL FROM:<a@b>\r\nRCPT TO:<user1>\r\nDATA\r\n"


def by_mupdate() -> Iterator[Row]:
    words = {
        "NOOP": CHEAP["mupdate"],
        "LIST": b"l LIST\r\n",
        "FIND": b'f FIND "user.user1"\r\n',
        "UPDATE": b"u UPDATE\r\n",
        "FIND of a long name": b"f FIND " + literal(b"a" * 60_000) + b"\r\n",
        "RESERVE and DELETE": b'r RESERVE "x.y" "be1.murder.test!d"\r\nd DELETE "x.y"\r\n',
    }
    for name, line in words.items():
        block = line * max(BLOCK // len(line), 1)
        yield Row(
            f"mu mupdate logged: {name}, no answer read", unread("mu", "mupdate", "logged", block)
        )
        yield Row(
            f"mu mupdate logged: {name}, answers read", read("mu", "mupdate", "logged", block)
        )
    yield Row("mu mupdate deflated: 64 MB of NOOP", inflating("mu", "mupdate", CHEAP["mupdate"]))
    yield Row(
        "mu mupdate update: 100 who do not read", crowding("mu", "mupdate", "update", count=100)
    )
    yield Row(
        "mu mupdate update: NOOP, no answer read",
        unread("mu", "mupdate", "update", CHEAP["mupdate"] * 8192),
    )


ROWS: Final = [*by_imap(), *by_others(), *by_mupdate()]
