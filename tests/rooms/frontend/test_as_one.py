"""What is said and heard across backends, line by line: a frontend before two against one server with everything.

A line of a scene is a command; `&` joins commands that go out in one write; `+ ` begins what follows a continuation request.
Nothing but the servers' names, times and identifiers may differ.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from tests.rooms.frontend.cluster import running_cluster

LIMIT_S: Final = 60.0
ADMIN = "LOGIN admin secret\nCREATE user/ana/far{far}\nCREATE user/ana/far/near{near}"
BOB = r"""
LOGIN bob secret
CREATE INBOX/both
SETACL INBOX/both ana lrswipkxte
CREATE INBOX/ro
SETACL INBOX/ro ana lr
CREATE INBOX/post
SETACL INBOX/post ana lrsi
APPEND INBOX/both (\Seen) {15+}~Subject: b1~~
APPEND INBOX/both {15+}~Subject: b2~~
"""
ANA = r"""
LOGIN ana secret
APPEND INBOX (\Seen) {15+}~Subject: a1~~
APPEND INBOX (\Flagged) {15+}~Subject: a2~~
APPEND INBOX {15+}~Subject: a3~~
CREATE INBOX/here
"""
SCENES = {
    "results kept by SEARCH": r"""
SELECT INBOX
UID SEARCH RETURN (SAVE) FLAGGED
UID FETCH $ FLAGS
UID COPY $ user/bob/both
COPY $ INBOX/far
UID MOVE $ user/bob/both
UID FETCH $ FLAGS
SELECT user/bob/both
UID FETCH $ FLAGS
SEARCH RETURN (SAVE ALL) ALL
MOVE $ INBOX
SELECT INBOX
UID FETCH $ UID
UID FETCH 1:* FLAGS
UID SORT RETURN (SAVE COUNT) (REVERSE SUBJECT) UTF-8 ALL
UID MOVE $ INBOX/far
""",
    "COPY and MOVE refused": r"""
SELECT INBOX
COPY 1 user/bob/none
COPY 1 user/zoe
COPY 1 INBOX/none
COPY 9 user/bob/both
MOVE 9 user/bob/both
UID COPY 99 user/bob/both
UID MOVE 99 user/bob/both
COPY 1 user/bob/ro
MOVE 1 user/bob/ro
COPY 0 user/bob/both
COPY a user/bob/both
COPY 1:2
MOVE 1:2 user/bob/post
COPY 3,1:2 user/bob/both
UID COPY * "user/bob/both"
EXAMINE INBOX
MOVE 1 user/bob/both
COPY 1 user/bob/both
SELECT user/bob/ro
MOVE 1 INBOX
""",
    "REPLACE": r"""
SELECT INBOX
REPLACE 2 user/bob/none {3+}~abc
REPLACE 2 user/bob/ro {3+}~abc
REPLACE 2 user/bob/post {3+}~abc
UID REPLACE 3 user/bob/both (\Draft) "01-Jan-2020 10:00:00 +0100" {3+}~abc
REPLACE 9 user/bob/both {3+}~abc
EXAMINE INBOX
REPLACE 1 user/bob/both {3+}~abc
""",
    "UIDONLY": r"""
ENABLE CONDSTORE QRESYNC FOO
ENABLE UIDONLY UTF8=ACCEPT
SELECT user/bob/both
FETCH 1 FLAGS
UID FETCH 1:* FLAGS
UID STORE 1 +FLAGS (\Deleted)
UID EXPUNGE 1
SELECT INBOX
UID FETCH 1:* (FLAGS)
UID MOVE 1 user/bob/both
UID REPLACE 2 user/bob/both {1+}~a
NOOP
""",
    "QRESYNC": r"""
ENABLE QRESYNC
SELECT INBOX
UID STORE 1 +FLAGS (\Answered)
UID MOVE 2 user/bob/both
REPLACE 2 INBOX/far {1+}~a
SELECT user/bob/both (CONDSTORE)
UID STORE 1 +FLAGS.SILENT (\Answered)
UID EXPUNGE 1
UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)
SELECT INBOX (QRESYNC (1 1))
SELECT INBOX (QRESYNC (foo))
SELECT INBOX (FOO)
SELECT nothing (QRESYNC (1 1))
FETCH 1 FLAGS
""",
    "one write across a SELECT": r"""
SELECT INBOX & FETCH 1:* FLAGS & SELECT user/bob/both & FETCH 1:* FLAGS & STORE 1 +FLAGS (\Flagged) & SELECT INBOX & NOOP
UNSELECT & FETCH 1 UID & SELECT user/bob/both & CLOSE & CHECK & EXAMINE user/bob/ro & STORE 1 +FLAGS (\Seen)
SELECT INBOX & COPY 1 user/bob/both & STATUS user/bob/both (MESSAGES) & MOVE 1 user/bob/both & FETCH 1:* UID
SELECT nope & FETCH 1 UID & SELECT user/bob/both & FETCH 1:* UID & LOGOUT
""",
    "a tree on two servers": r"""
LIST "" *
LIST "" %
RENAME INBOX/here INBOX/far/here
RENAME INBOX/far/here INBOX/there
RENAME INBOX/far/near INBOX/near
RENAME INBOX/far INBOX/farther
LIST "" *
CREATE INBOX/farther/deep
SUBSCRIBE INBOX/farther
LIST (SUBSCRIBED) "" *
LSUB "" *
LIST "" "INBOX/far*" RETURN (CHILDREN STATUS (MESSAGES) MYRIGHTS)
DELETE INBOX/farther
LIST "" INBOX/%
RENAME INBOX INBOX/farther/deep/old
LIST "" *
""",
    "special uses": r"""
CREATE INBOX/far/Sent (USE (\Sent))
CREATE INBOX/Trash (USE (\Trash))
CREATE INBOX/Odd (USE (\Bogus))
LIST (SPECIAL-USE) "" *
LIST "" * RETURN (SPECIAL-USE)
LIST "" *
XLIST "" *
SETMETADATA INBOX/far (/private/specialuse "\\Junk")
GETMETADATA INBOX/far /private/specialuse
LIST (SPECIAL-USE) "" *
SUBSCRIBE INBOX/far/Sent
SUBSCRIBE user/bob/both
LIST (SUBSCRIBED SPECIAL-USE) "" *
LIST (SUBSCRIBED RECURSIVEMATCH) "" %
LIST (SUBSCRIBED) "" * RETURN (SPECIAL-USE STATUS (MESSAGES UIDNEXT))
LIST (RECURSIVEMATCH) "" *
LIST "" (INBOX user/bob/both) RETURN (SUBSCRIBED STATUS (MESSAGES) MYRIGHTS METADATA (/shared/comment))
""",
    "what does not exist": r"""
SELECT nope
EXAMINE user/bob/nope
STATUS nope (MESSAGES)
DELETE nope
RENAME nope nope2
RENAME INBOX/here INBOX
SETACL nope ana lr
GETACL nope
MYRIGHTS nope
MYRIGHTS user/bob
LISTRIGHTS nope ana
GETQUOTAROOT nope
GETMETADATA nope /shared/comment
SETMETADATA nope (/shared/comment "x")
APPEND nope {3+}~abc
APPEND user/zoe/x {3+}~abc
CREATE user/bob/x
CREATE user/zoe
DELETE user/bob/both
CREATE "a//b"
STATUS "" (MESSAGES)
""",
    "the selected one goes": r"""
SELECT INBOX/far/near
DELETE INBOX/far/near
NOOP
SELECT INBOX/far
RENAME INBOX/far INBOX/other
NOOP
DELETE INBOX/other
NOOP
CHECK
""",
    "literals": r"""
SELECT {5}
+ INBOX
COPY 1 {13}
+ user/bob/both
UID SEARCH SUBJECT {2}
+ a1 BODY {2}
+ zz
LIST {0}
+  {1}
+ *
STATUS {13+}~user/bob/both (MESSAGES)
SETMETADATA {9}
+ INBOX/far (/private/comment {3}
+ abc)
GETMETADATA {9}
+ INBOX/far {16}
+ /private/comment
RENAME {10}
+ INBOX/here {11}
+ INBOX/there
FETCH 1 BODY.PEEK[HEADER.FIELDS ({7}
+ Subject)]
APPEND {13}
+ user/bob/both (\Seen) {5}
+ hello
ID ({4}
+ name {1}
+ x)
SETACL {5}
+ INBOX {3}
+ bob {2}
+ lr
UID MOVE 1 {13}
+ user/bob/both
REPLACE 1 {13}
+ user/bob/both {3}
+ abc
SUBSCRIBE {13}
+ user/bob/both
LSUB {0}
+  {1}
+ *
CREATE {7}
+ INBOX/l
GETQUOTA {5}
+ INBOX
LIST "" ({5}
+ INBOX {13}
+ user/bob/both) RETURN (STATUS (MESSAGES))
FOO {3}
+ abc
""",
    "syntax": r"""
SELECT
SELECT INBOX INBOX
LIST ""
STATUS INBOX
STATUS INBOX ()
STATUS INBOX (FOO)
CREATE
COPY 1 x
SELECT INBOX
FETCH
FETCH 1 (FOO)
UID FOO
FOO
LOGIN a b
STARTTLS
IDLE x
APPEND INBOX
APPEND INBOX "x" {1+}~a
MOVE 1
UNSELECT x
""",
    "IMAP4rev2": r"""
ENABLE IMAP4rev2
SELECT user/bob/both
SELECT INBOX
SEARCH FLAGGED
STATUS user/bob/both (MESSAGES DELETED SIZE)
COPY 1 user/bob/none
MOVE 1 user/bob/both
LIST (SUBSCRIBED) "" *
UNAUTHENTICATE
SELECT INBOX
LOGIN bob secret
FETCH 1 FLAGS
SELECT INBOX/both
FETCH 1:* FLAGS
""",
}
NOT_COMPARED: Final = (
    (re.compile(rb"\b(be1|fe1)\.test\b"), b"server"),
    (re.compile(rb"\b[12]\d{9}\b"), b"<validity>"),
    (re.compile(rb"(MAILBOXID|EMAILID) \([^)]*\)"), rb"\1"),
    (re.compile(rb"\[CAPABILITY [^]]*\]"), b"[CAPABILITY]"),
)
LITERAL: Final = re.compile(rb"\{(\d+)\}\r\n\Z")


class Talk:
    """One connection. `lines`: all that was said on it, but for what is not compared."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.lines: list[bytes] = []
        self._commands = 0

    async def _hear(self, *ends: bytes) -> None:
        async for line in self._responses():
            if line.startswith(ends):
                return

    async def _responses(self) -> AsyncIterator[bytes]:
        while line := await asyncio.wait_for(self._reader.readline(), LIMIT_S):
            octets = line
            while found := LITERAL.search(octets):
                octets += await self._reader.readexactly(int(found[1]))
                octets += await self._reader.readline()
            for pattern, shown in NOT_COMPARED:
                octets = pattern.sub(shown, octets)
            self.lines.append(octets)
            yield line
        self.lines.append(b"the end")

    async def begin(self) -> None:
        await self._hear(b"* OK")

    async def play(self, scene: str) -> None:
        for line in scene.strip("\n").split("\n"):
            octets = line.replace("~", "\r\n").encode()
            if octets.startswith(b"+ "):
                commands = [octets[2:]]
            else:
                commands = []
                for one in octets.split(b" & "):
                    self._commands += 1
                    commands.append(b"t%d " % self._commands + one)
            self.lines += commands
            self._writer.write(b"".join(one + b"\r\n" for one in commands))
            await self._hear(b"t%d " % self._commands, b"+ ")

    def close(self) -> None:
        self._writer.close()


async def said(address: tuple[str, int], *scenes: str) -> list[bytes]:
    """All of it, on one connection."""
    talk = Talk(*await asyncio.open_connection(*address))
    await talk.begin()
    for scene in scenes:
        await talk.play(scene)
    talk.close()
    return talk.lines


@pytest.mark.parametrize("scene", SCENES)
async def test_two_backends_are_as_one(scene: str, tmp_path: Path) -> None:
    one = {"be1.test": ("ana", "bob")}
    async with (
        running_cluster(tmp_path / "one", one) as alone,
        running_cluster(tmp_path / "two") as murder,
    ):
        heard = []
        for address, places in (
            (alone.backends["be1.test"].address, {"far": "", "near": ""}),
            (murder.address, {"far": " be2.test", "near": " be1.test"}),
        ):
            for preparation in (ADMIN.format(**places), BOB, ANA):
                answers = await said(address, preparation)
                assert not any(b" NO " in line or b" BAD " in line for line in answers), answers
            heard.append(await said(address, "LOGIN ana secret", SCENES[scene]))
        assert heard[1] == heard[0]
