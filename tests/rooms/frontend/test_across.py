"""Messages from one backend to another, by REPLACE, CATENATE, COPY and MOVE: what is told, and what is there then."""

from pathlib import Path
from typing import Final

import pytest

from murder.net.outgoing.relay import ImapUpstream
from murder.roles.frontend.imap.dialogue import FrontendImap
from tests.kit.dialogue import Player
from tests.kit.waiting import until_soon
from tests.rooms.frontend.cluster import running_cluster
from tests.rooms.frontend.entering.test_multiplexor import entered

BEGIN = r"""
C2= LOGIN bob secret
C2= CREATE INBOX/both
C2= SETACL INBOX/both ana lrswipkxte
C1= LOGIN ana secret
C1= APPEND INBOX (\Seen $$Junk) "01-Jan-2020 10:00:00 +0100" {...}
C1> Subject: one
C1>
C1> first
C1= APPEND INBOX {...}
C1> Subject: two
C1>
C1> second
C1= SELECT INBOX
"""
SCENES = {
    "modseqs by STATUS": r"""
C2= APPEND INBOX/both {...}
C2> Subject: one
C1: a1 STATUS user/bob/both (HIGHESTMODSEQ)
S1: * OK [HIGHESTMODSEQ $_] $_
S1: * STATUS user/bob/both (HIGHESTMODSEQ $_)
S1: a1 OK $_
C1: a2 FETCH 1 FLAGS
S1: * 1 FETCH (FLAGS (\Recent \Seen $$Junk) MODSEQ ($_))
S1: a2 OK $_
C1: a3 SELECT user/bob/both
S1~ a3 OK $_
C1: a4 FETCH 1 FLAGS
S1: * 1 FETCH (FLAGS ($_) MODSEQ ($_))
S1: a4 OK $_
C1: a5 STATUS INBOX (HIGHESTMODSEQ)
S1: * STATUS INBOX (HIGHESTMODSEQ $_)
S1: a5 OK $_
""",
    "modseqs by SELECT": r"""
C2= APPEND INBOX/both {...}
C2> Subject: one
C1: a1 SELECT INBOX (CONDSTORE)
S1~ a1 OK $_
C1: a2 SELECT user/bob/both
S1~ a2 OK $_
C1: a3 FETCH 1 FLAGS
S1: * 1 FETCH (FLAGS ($_) MODSEQ ($_))
S1: a3 OK $_
C1: a4 EXAMINE INBOX
S1~ a4 OK $_
C1: a5 FETCH 1 FLAGS
S1: * 1 FETCH (FLAGS (\Seen $$Junk) MODSEQ ($_))
S1: a5 OK $_
""",
    "modseqs by LIST": r"""
C2= APPEND INBOX/both {...}
C2> Subject: one
C1: a1 LIST "" user/bob/both RETURN (STATUS (HIGHESTMODSEQ))
S1: * OK [HIGHESTMODSEQ $_] $_
S1~ a1 OK $_
C1: a2 STORE 1 +FLAGS (\Flagged)
S1: * 1 FETCH (UID 1 FLAGS (\Recent \Flagged \Seen $$Junk) MODSEQ ($_))
S1: a2 OK $_
""",
    "no modseqs by words alone": r"""
C2= APPEND INBOX/both {...}
C2> Subject: one
C1: a1 SEARCH SUBJECT "modseq 1"
S1: * SEARCH
S1: a1 OK $_
C1: a2 FETCH 1 (MODSEQ
S1: a2 BAD $_
C1: a3 SELECT user/bob/both
S1~ a3 OK $_
C1: a4 STORE 1 +FLAGS (\Seen)
S1: * 1 FETCH (FLAGS ($flags))
S1: a4 OK $_
""",
    "quota": r"""
Cadmin= LOGIN admin secret
Cadmin= SETQUOTA user/ana (STORAGE 1000)
C1: a1 GETQUOTAROOT INBOX
S1: * QUOTAROOT INBOX INBOX
S1: * QUOTA INBOX (STORAGE $_ 1000)
S1: a1 OK Completed
Cadmin= CREATE user/ana/far be2.test
C1: a2 GETQUOTA INBOX
S1: * QUOTA INBOX (STORAGE $_ 1000)
S1: a2 OK Completed; only what is on be1.test counts, not what is on be2.test
""",
    "placement": r"""
Cadmin= LOGIN admin secret
Cadmin= CREATE dept/one be1.test
Cadmin= CREATE dept/two be2.test!default
Cadmin: a1 CREATE dept/three
Sadmin: a1 NO [CANNOT] What is below dept is on several servers (be1.test, be2.test): name one, $_
Cadmin= CREATE dept/three be2.test
Cadmin= CREATE sole/one be2.test
Cadmin= CREATE sole/two
Cbe2= LOGIN admin secret
Cbe2: a3 LIST "" (dept/* sole/*)
Sbe2: * LIST (\HasNoChildren) "/" dept/three
Sbe2: * LIST (\HasNoChildren) "/" dept/two
Sbe2: * LIST (\HasNoChildren) "/" sole/one
Sbe2: * LIST (\HasNoChildren) "/" sole/two
Sbe2: a3 OK Completed
""",
    "replace": r"""
C1: a1 UID REPLACE 2 user/bob/both (\Flagged) {...}
C1> Subject: new
C1>
C1> text
S1: * OK [APPENDUID $_ 1] Replaced
S1: * 2 EXPUNGE
S1: * 1 RECENT
S1: a1 OK Completed
C1: a2 REPLACE 7 user/bob/both {3+}
C1: abc
S1: a2 $_
C1: a3 UID REPLACE 7 user/bob/both {3+}
C1: abc
S1: a3 NO [NONEXISTENT] $_
C1: a4 REPLACE 1 user/bob/none {3+}
C1: abc
S1: a4 NO $_
C1: a5 STATUS INBOX (MESSAGES)
S1: * STATUS INBOX (MESSAGES 1)
S1: a5 OK Completed
C1: a6 STATUS user/bob/both (MESSAGES)
S1: * STATUS user/bob/both (MESSAGES 1)
S1: a6 OK Completed
""",
    "catenate": r"""
C1: a1 APPEND user/bob/both (\Seen) CATENATE (URL "/INBOX;UID=1/;SECTION=HEADER" TEXT {7+}
C1: hello
C1:  URL ";UID=2/;SECTION=TEXT")
S1: a1 OK [APPENDUID $_ 1] Completed
C1: a2 APPEND user/bob/both CATENATE (URL "/INBOX;UID=99" TEXT {1+}
C1: x)
S1: a2 NO [BADURL /INBOX;UID=99] There is no such message
C1: a3 APPEND user/bob/both CATENATE (URL "/INBOX;UIDVALIDITY=1/;UID=1")
S1: a3 NO [BADURL /INBOX;UIDVALIDITY=1/;UID=1] $_
C1: a4 APPEND user/bob/both CATENATE (URL "imap://fe1.test/user/bob/both;UID=1/;SECTION=TEXT;PARTIAL=0.5" TEXT {1+}
C1: !)
S1: a4 OK [APPENDUID $_ 2] Completed
C1: a5 APPEND user/bob/both CATENATE (URL "imap://fe1.test/user/bob/both;UID=77")
S1: a5 NO [BADURL imap://fe1.test/user/bob/both;UID=77] $_
C1= SELECT user/bob/both
C1: b1 FETCH 1:2 (FLAGS BODY.PEEK[])
S1: * 1 FETCH (FLAGS (\Recent \Seen) BODY[] {$_}
S1: Subject: one
S1:
S1: hello
S1: second
S1: )
S1: * 2 FETCH (FLAGS (\Recent) BODY[] {6}
S1: hello!)
S1: b1 OK Completed
""",
    "uidonly": r"""
C1= ENABLE UIDONLY
C1: a1 COPY 1:2 user/bob/both
S1: a1 BAD [UIDREQUIRED] $_
C1: a2 UID COPY 1:2 user/bob/both
S1~ a2 OK [COPYUID $_ 1:2 1:2] $_
C1: a3 UID MOVE 1 user/bob/both
S1: * OK [COPYUID $_ 1 3] $_
S1~ * VANISHED 1
S1~ a3 OK $_
C1: a4 STATUS user/bob/both (MESSAGES)
S1: * STATUS user/bob/both (MESSAGES 3)
S1: a4 OK Completed
""",
    "copy": r"""
C1: a1 FETCH 1 (FLAGS INTERNALDATE SAVEDATE MODSEQ)
S1~ * 1 FETCH (FLAGS ($_) INTERNALDATE "$date" SAVEDATE "$_" MODSEQ ($_))
S1: a1 OK Completed
C1: a2 UID COPY 2,1,9 user/bob/both
S1: a2 OK [COPYUID $_ 1:2 1:2] $_
C1: a3 UID COPY 9 user/bob/both
S1: a3 OK $_
C1: a4 UID MOVE 1 user/bob/none
S1: a4 NO $_
C2= SETACL INBOX/both ana lrs
C1: a5 UID MOVE 1 user/bob/both
S1: a5 NO [NOPERM] $_
C1: a6 STATUS INBOX (MESSAGES)
S1: * STATUS INBOX (MESSAGES 2)
S1: a6 OK Completed
C1= SELECT user/bob/both
C1: b1 FETCH 1 (FLAGS INTERNALDATE)
S1~ * 1 FETCH (FLAGS (\Recent \Seen $$Junk) INTERNALDATE "$date" MODSEQ ($_))
S1: b1 OK Completed
""",
    "read your writes": r"""
Cother= LOGIN ana secret
C1= CREATE INBOX/new
Cother: a1 SELECT INBOX/new
Sother~ a1 OK $_
C1= RENAME INBOX/new INBOX/newer
C1: a2 LIST "" INBOX/n*
S1: * LIST (\HasNoChildren) "/" INBOX/newer
S1: a2 OK Completed
Cother: a3 SELECT INBOX/newer
Sother~ a3 OK $_
C1= DELETE INBOX/newer
C1: a4 STATUS INBOX/newer (MESSAGES)
S1: a4 NO [NONEXISTENT] $_
""",
}


ASKING = (
    "FETCH 1 (FLAGS MODSEQ)",
    "uid fetch 1:* flags (changedsince 1)",
    "STORE 1 (UNCHANGEDSINCE 999) +FLAGS.SILENT (x)",
    "UID STORE 1 ( UNCHANGEDSINCE 999 ) +FLAGS.SILENT (x)",
    "SEARCH NOT MODSEQ 1",
    "UID SEARCH RETURN (COUNT) MODSEQ 1",
    "SORT (DATE) UTF-8 MODSEQ 1",
    "UID THREAD REFERENCES UTF-8 MODSEQ 1",
)
ASKED: Final = r"""
C2= LOGIN bob secret
C2= APPEND INBOX/both {...}
C2> Subject: one
C1= LOGIN ana secret
C1= SELECT INBOX
C1= STATUS user/bob/both (MESSAGES)
C1: a1 ASKING
S1: * OK [HIGHESTMODSEQ $_] $_
S1~ a1 OK $_
C1: a2 SELECT user/bob/both
S1~ a2 OK $_
C1: a3 STORE 1 +FLAGS (\Seen)
S1: * 1 FETCH (UID 1 FLAGS ($_) MODSEQ ($_))
S1: a3 OK $_
"""


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "open"])
async def test_who_asks_one_backend_for_modseqs_is_told_them_by_all(
    is_new: bool, tmp_path: Path
) -> None:
    """`is_new`: the connection to the other backend is made later."""
    text = ASKED.replace("C1= STATUS user/bob/both (MESSAGES)\n", "") if is_new else ASKED
    async with running_cluster(tmp_path, frontends=2) as cluster:
        await Player(cluster.connect).play(BEGIN)
        for asking in ASKING:
            await Player(cluster.connect).play(text.replace("ASKING", asking))


@pytest.mark.parametrize("scene", SCENES)
async def test_across_backends(scene: str, tmp_path: Path) -> None:
    async with running_cluster(tmp_path, frontends=2) as cluster:
        await Player(cluster.connect).play(BEGIN + SCENES[scene])


async def test_a_url_is_read_on_when_a_slow_client_takes_octets_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of another mailbox on the backend of the selected one: one more connection reads it."""
    opened: list[ImapUpstream] = []
    really = FrontendImap._open

    async def full_by_then(self: FrontendImap, server: str) -> ImapUpstream:
        opened.append(await really(self, server))
        if self.selected is not None:
            self.connection.pause_writing()  # as the loop does, of a client that has been sent much
        return opened[-1]

    async with running_cluster(tmp_path) as cluster:
        bob = await entered(cluster, "bob")
        await bob.ok(b"SETACL INBOX ana lrswi")
        peer = await entered(cluster, "ana")
        await peer.ok(b"CREATE INBOX/here")
        await peer.ok(b"APPEND INBOX/here {5+}\r\nhello")
        await peer.ok(b"SELECT INBOX")
        monkeypatch.setattr(FrontendImap, "_open", full_by_then)
        peer.send(b'b APPEND user/bob CATENATE (URL "/INBOX/here;UID=1")\r\n')
        await until_soon(lambda: any(one._waits_for_client for one in opened))
        client = opened[0].client
        assert isinstance(client, FrontendImap)
        client.connection.resume_writing()
        await peer.until(b"b OK")
        await bob.ok(b"SELECT INBOX")
        said = await bob.ok(b"FETCH 1 BODY.PEEK[]")
        assert b"hello" in said[0]
        assert not client.extras
        await peer.close()
        await bob.close()
