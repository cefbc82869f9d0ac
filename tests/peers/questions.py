"""Searches, sort keys, list patterns and bad commands that are put to every server."""

# ruff: noqa: E501 - they are data

from collections.abc import Iterator

from tests.peers.corpus import crlf

SEARCHED: tuple[tuple[str, str, str], ...] = (
    # flags and internal date, header, body
    (
        r' (\Seen) "05-Jan-2024 23:59:59 +0000"',
        "From: Ana <ana@x.org>\nTo: bob@y.org\nSubject: Hello World\nDate: Fri, 5 Jan 2024 23:30:00 -0800\n",
        "plain text here\n",
    ),
    (
        r' (\Flagged $Work) "06-Jan-2024 00:00:01 +0000"',
        "From: bob@y.org\nTo: ana@x.org, Carl <carl@z.org>\nCc: dora@w.org\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nDate: 6 Jan 2024 01:00:00 +1400\nX-Empty:\n",
        "body with hello\n",
    ),
    (
        r' (\Answered \Deleted) "07-Jan-2024 12:00:00 +0000"',
        "From: =?iso-8859-1?q?J=F6rg?= <joerg@q.org>\nTo: undisclosed-recipients:;\nBcc: hidden@h.org\nSubject: folded\n  subject line\nDate: nonsense\n",
        "Zeile\n",
    ),
    (
        r' (\Draft work) " 8-Jan-2024 00:00:00 +0000"',
        "From: <only@addr.org>\nSubject: Re: Hello World\n",
        "no date header\n",
    ),
    (
        r' () "31-Dec-2023 23:00:00 +0000"',
        "From: x@y.z\nSubject: mime\nMIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\nDate: Sun, 31 Dec 2023 22:00:00 -0300\n",
        "Gr=FC=DFe an =\nalle\n",
    ),
    (
        r' () "01-Jan-2024 00:30:00 +0000"',
        "From: x@y.z\nSubject: base64\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n",
        "R3LDvMOfZSBoaWRkZW4gbmVlZGxlCg==\n",
    ),
    (
        r' () "29-Feb-2024 10:00:00 +0000"',
        'From: x@y.z\nSubject: parts\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\nDate: Thu, 29 Feb 2024 10:00:00 +0000\n',
        "preambleword\n--b\nContent-Type: text/html\nX-Part: partheader\n\n<b>bo</b>ld html\n--b\nContent-Type: message/rfc822\n\nSubject: innersubject\nFrom: inner@i.org\n\ninnerbody\n--b\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\nYmluYXJ5d29yZA==\n--b--\nepilogueword\n",
    ),
    (
        r' (\Seen \Flagged) "01-Mar-2024 10:00:00 +0000"',
        "From: x@y.z\nSubject: STRASSE \xc4\x80\nDate: Fri, 1 Mar 2024 10:00 +0000\nMessage-ID: <m8@x>\nIn-Reply-To: <m1@x>\n",
        "caf\u00e9 CAF\u00c9\n" + "x" * 3000 + "\n",
    ),
)


def searched() -> Iterator[tuple[bytes, bytes]]:
    """What is searched in: arguments of APPEND, and a message."""
    for arguments, header, body in SEARCHED:
        yield arguments.encode(), crlf(header + "\n" + body)


SEARCHES: tuple[str, ...] = tuple(
    """
ALL|ANSWERED|UNANSWERED|DELETED|UNDELETED|DRAFT|UNDRAFT|FLAGGED|UNFLAGGED|SEEN|UNSEEN|KEYWORD $Work|KEYWORD $work|KEYWORD work
UNKEYWORD $Work|KEYWORD nosuch|UNKEYWORD nosuch|NEW|OLD|RECENT|1|1:3|3:1|*|*:1|4:*|100:*|*:100|1,3,5:6|2:*,1|UID 1|UID 1:*|UID *
UID 999|UID 999:*|UID *:999|UID 3:1|NOT 1|NOT 1:8|NOT SEEN|NOT NOT SEEN|OR SEEN FLAGGED|OR OR 1 2 3|NOT OR SEEN FLAGGED
OR NOT SEEN NOT FLAGGED|(SEEN)|((SEEN))|(SEEN FLAGGED)|OR (SEEN FLAGGED) (DRAFT)|SEEN FLAGGED|1:5 SEEN|NOT (SEEN FLAGGED)|()
BEFORE 6-Jan-2024|ON 6-Jan-2024|SINCE 6-Jan-2024|ON 5-Jan-2024|ON 06-Jan-2024|ON "6-Jan-2024"|ON 8-Jan-2024|BEFORE 1-Jan-2024
ON 31-Dec-2023|ON 1-Jan-2024|SENTON 5-Jan-2024|SENTON 6-Jan-2024|SENTBEFORE 6-Jan-2024|SENTSINCE 6-Jan-2024|SENTON 31-Dec-2023
SENTON 1-Jan-2024|SENTON 29-Feb-2024|SENTSINCE 1-Jan-1970|SENTBEFORE 1-Jan-1980|ON 30-Feb-2024|ON 32-Jan-2024|ON 1-Foo-2024
ON 1-jan-2024|SINCE 1-Jan-1900|BEFORE 1-Jan-2100|SINCE 29-Feb-2024|BEFORE 29-Feb-2024|LARGER 0|SMALLER 0|LARGER 3000|SMALLER 200
LARGER 4294967295|SMALLER 4294967295|FROM ana|FROM ANA|FROM "Ana <ana@x.org>"|FROM ""|FROM x.org|TO bob|TO ana|TO carl|CC dora
CC ""|BCC hidden|BCC ""|SUBJECT hello|SUBJECT "hello world"|SUBJECT "folded subject"|SUBJECT "folded  subject"|SUBJECT ""
SUBJECT Re:|BODY hello|BODY HELLO|BODY ""|TEXT hello|TEXT ""|TEXT partheader|BODY partheader|BODY preambleword|TEXT preambleword
BODY epilogueword|BODY bold|BODY "<b>"|BODY innerbody|BODY innersubject|TEXT innersubject|BODY binaryword|TEXT binaryword
BODY needle|BODY "hidden needle"|HEADER Subject hello|HEADER subject ""|HEADER X-Empty ""|HEADER X-Empty x|HEADER Nonexistent ""
HEADER Message-ID m8|HEADER Message-ID <m8@x>|HEADER X-Part ""|HEADER Date 2024|HEADER From ana|HEADER Cc ""|HEADER In-Reply-To m1
TEXT ana@x.org|TEXT "Subject: Hello"|TEXT Fri|CHARSET US-ASCII ALL|CHARSET UTF-8 ALL|CHARSET utf-8 SUBJECT hello|CHARSET X-NONE ALL
CHARSET ISO-8859-1 ALL|OLDER 10|YOUNGER 10|OLDER 0|YOUNGER 0|OLDER x|YOUNGER 1000000000|BOGUS|SEEN BOGUS|NOT|OR SEEN|FROM|HEADER x
LARGER|LARGER -1|LARGER x|KEYWORD|KEYWORD \\Seen|UID|UID x|0|1:|:1|1,,2|(SEEN|SEEN)|BEFORE|BEFORE x|RETURN () ALL|RETURN (MIN) ALL
RETURN (MAX) ALL|RETURN (COUNT) ALL|RETURN (MIN MAX COUNT ALL) SEEN|RETURN (ALL) 1:3|RETURN (MIN) KEYWORD nosuch
RETURN (COUNT ALL) KEYWORD nosuch|RETURN (BOGUS) ALL|RETURN ALL|RETURN (COUNT) CHARSET UTF-8 ALL|RETURN (SAVE) SEEN|$|NOT $|$ FLAGGED
RETURN (SAVE MIN) SEEN|$|RETURN (SAVE MIN MAX) ALL|$|RETURN (SAVE) BOGUS|$|RETURN (SAVE) KEYWORD nosuch|$|RETURN (PARTIAL 1:3) ALL
RETURN (PARTIAL 1:3 ALL) ALL|RETURN (PARTIAL 3:1) ALL|RETURN (PARTIAL 0:1) ALL|MODSEQ 1|MODSEQ 999999
EMAILID nosuch|SAVEDBEFORE 1-Jan-2024|SAVEDSINCE 1-Jan-2024|SAVEDATESUPPORTED|FUZZY SUBJECT hello|ALL ALL|NOT ALL|UNDELETED UNSEEN
""".strip()
    .replace("\n", "|")
    .split("|")
)
LITERAL_SEARCHES: tuple[bytes, ...] = tuple(
    b"CHARSET UTF-8 %s {%d+}\r\n%s" % (key, len(text.encode()), text.encode())
    for key in (b"SUBJECT", b"TEXT", b"BODY", b"FROM")
    for text in (
        "Grüße",
        "GRÜSSE",
        "grüße",
        "café",
        "CAFÉ",
        "cafe",
        "Jörg",
        "JÖRG",
        "ā",
        "straße",
        "strasse",
        "ü",
    )
)

SUBJECTS: tuple[str, ...] = (
    "alpha", "Alpha", "Re: alpha", "RE: alpha", "re:alpha", "Re : alpha", "Re[2]: alpha", "Re: Re: alpha", "Fwd: alpha", "FW: alpha",
    "Forw: alpha", "[list] alpha", "[list] Re: alpha", "Re: [list] alpha", "[a] [b] alpha", "[fwd: alpha]", "[Fwd: Re: alpha]",
    "alpha (fwd)", "alpha (FWD) ", "alpha (fwd) (fwd)", "Re: alpha (fwd)", "[only]", "Re: [only]", "[only] [two]", "Re:", "Re: ", "", "(fwd)", "Re[x[y]]: alpha",
    "Re [z]: alpha", "=?utf-8?q?Re=3A_alpha?=", "=?utf-8?q?=5Blist=5D?= alpha", "  alpha", "alpha  beta", "alpha\tbeta", "alpha beta", "ALPHA BETA", "Ref: alpha", "re-alpha",
    "Re:Fwd:[x]Re: alpha (fwd)", "[fwd: [x] alpha]", "[fwd: alpha] tail", "beta", "ä", "=?utf-8?q?=C3=84?=", "Z", "a", "_", "[", "]", "[]", "[] alpha", "Re: []", "10", "9",
)  # fmt: skip

PATTERNS: tuple[tuple[str, str], ...] = (
    ('""', '""'), ('""', '*'), ('""', '%'), ('""', 'INBOX'), ('""', 'inbox'), ('""', 'InBox/*'), ('""', 'INBOX/%'), ('""', 'INBOX/%/%'), ('""', '%/%'),
    ('""', 'INBOX*'), ('""', 'INBOX%'), ('""', 'I%'), ('""', '*X'), ('""', 'INBOX/a'), ('""', 'INBOX/a/'), ('""', 'INBOX/a/%'), ('""', 'INBOX/a*'), ('""', 'INBOX/a%'), ('""', '*a*'),
    ('""', '*/b'), ('""', '%/b'), ('""', 'INBOX/%/b'), ('""', 'INBOX/*b'), ('""', '**'), ('""', '%%'), ('""', '*%'), ('""', '%*'), ('""', '/'), ('""', '/*'), ('""', 'nosuch'), ('""', 'nosuch/%'), ('INBOX', '%'),
    ('INBOX/', '%'), ('INBOX/', '*'), ('INBOX/a', '/%'), ('INBOX/a/', 'b'), ('INBOX/', '""'), ('inbox/', '%'), ('""', 'INBOX/A'), ('INBOX/a/', '/b'), ('""', 'INBOX/"sp ace"'), ('""', '"INBOX/sp ace"'), ('""', '"INBOX/sp%"'), ('""', '"INBOX/&AOQ-"'),
    ('""', '"INBOX/x.y"'), ('""', 'INBOX/gone%'), ('""', 'INBOX/gone/%'), ('""', 'INBOX/gone/child/%'), ('""', 'INBOX/gone*'),
)  # fmt: skip

EXTENDED: tuple[str, ...] = (
    '(SUBSCRIBED) "" *', '(SUBSCRIBED) "" %', '(SUBSCRIBED) "" "INBOX/%"', '(SUBSCRIBED RECURSIVEMATCH) "" %', '(SUBSCRIBED RECURSIVEMATCH) "" "INBOX/%"', '(RECURSIVEMATCH) "" *', '(REMOTE) "" INBOX',
    '() "" INBOX', '"" (INBOX "INBOX/a")', '"" ("INBOX/a" "INBOX/%")', '"" * RETURN (CHILDREN)', '"" * RETURN (SUBSCRIBED)', '"" "INBOX/%" RETURN (SUBSCRIBED CHILDREN)', '"" INBOX RETURN ()', '"" INBOX RETURN (BOGUS)', '(BOGUS) "" *',
    '(SUBSCRIBED) "" "INBOX/%" RETURN (SUBSCRIBED)', '(SUBSCRIBED) "" "INBOX/nosub*" RETURN (CHILDREN)', '"" (INBOX', '"" ()', '"" INBOX RETURN', '(SUBSCRIBED "" *', '"" "" RETURN (CHILDREN)', '"" ("")', '(SUBSCRIBED) "" ""', '"" INBOX RETURN (STATUS (MESSAGES))', '"" INBOX RETURN (STATUS)',
)  # fmt: skip

BAD_COMMANDS: tuple[bytes, ...] = tuple(
    line.encode()
    for line in """
NOOP x|NOOP |CHECK|BOGUS|FETCH|FETCH 1|FETCH 1 |FETCH x FLAGS|FETCH 0 FLAGS|FETCH 1 BOGUS|FETCH 1 (FLAGS|FETCH 1 FLAGS)|FETCH 1 ()
FETCH 1 (FLAGS BOGUS)|FETCH 999 FLAGS|FETCH 1:999 FLAGS|FETCH 999:* FLAGS|FETCH 1,999 FLAGS|UID FETCH 999 FLAGS|UID FETCH 0 FLAGS
FETCH 1 BODY[|FETCH 1 BODY[]<|FETCH 1 BODY[]<0>|FETCH 1 BODY.PEEK[]<0.0>|FETCH 1 BODY.PEEK[]<0.5>|FETCH 1 BODY.PEEK[0]|FETCH 1 BODY.PEEK[1.0]
FETCH 1 BODY.PEEK[MIME]|FETCH 1 BODY.PEEK[BOGUS]|FETCH 1 BODY.PEEK[HEADER.FIELDS]|FETCH 1 BODY.PEEK[HEADER.FIELDS ()]|FETCH 1 BODY.PEEK[1.]
FETCH 1 BODY.PEEK[HEADER.FIELDS (From]|FETCH 1 BODY.PEEK[HEADER.FIELDS ("From")]|FETCH 1 BODY.PEEK[TEXT.1]|FETCH 1 BODY.PEEK[999999999999]
FETCH 1 (ALL)|FETCH 1 ALL|FETCH 1 FAST|FETCH 1 FULL|FETCH 1 (FAST FLAGS)|FETCH 1 ALL FLAGS|FETCH 1 FLAGS FLAGS|FETCH 1 (FLAGS FLAGS)|FETCH * FLAGS|FETCH *:* FLAGS
FETCH 1 (UID)|FETCH 1 UID|FETCH 1 RFC822.PEEK|FETCH 1 BINARY.PEEK[1]|FETCH 1 BINARY.PEEK[]|FETCH 1 BINARY.SIZE[1]|FETCH 1 BINARY.PEEK[HEADER]|FETCH 1 BINARY.PEEK[1]<0.3>
FETCH 1 BINARY.PEEK[9]|FETCH 1 BINARY.SIZE[9]|STORE|STORE 1|STORE 1 FLAGS|STORE 1 FLAGS ()|STORE 1 FLAGS.SILENT ()|STORE 1 +FLAGS ()|STORE 1 -FLAGS ()|STORE 1 FLAGS (\\Seen
STORE 1 FLAGS \\Seen|STORE 1 FLAGS \\Seen \\Deleted|STORE 1 FLAGS (\\Recent)|STORE 1 +FLAGS (\\Recent)|STORE 1 FLAGS (\\Bogus)|STORE 1 FLAGS (\\*)|STORE 1 BOGUS (\\Seen)|STORE 999 FLAGS ()|STORE 1 +FLAGS (a b)
STORE 1 FLAGS (kw)|STORE 1 FLAGS ("kw")|STORE 1 +FLAGS.BOGUS (x)|STORE 0 FLAGS ()|UID STORE 999 FLAGS ()|UID STORE 1 -FLAGS (kw)|STORE * +FLAGS (\\Seen)|STORE 1 FLAGS (\\SEEN)|STORE 1 FLAGS (])|STORE 1 FLAGS (a[b)
COPY|COPY 1|COPY 1 INBOX/nosuch|COPY 999 INBOX|COPY 0 INBOX|UID COPY 999 INBOX|COPY 1 ""|COPY 1 INBOX extra|COPY x INBOX|MOVE 1 INBOX/nosuch|UID MOVE 999 INBOX|MOVE 999 INBOX
SELECT|SELECT INBOX/nosuch|EXAMINE ""|SELECT INBOX (|SELECT INBOX (BOGUS)|SELECT INBOX ()|STATUS|STATUS INBOX|STATUS INBOX ()|STATUS INBOX (BOGUS)|STATUS INBOX MESSAGES|STATUS INBOX (MESSAGES
STATUS INBOX/nosuch (MESSAGES)|STATUS INBOX (MESSAGES MESSAGES)|CREATE|CREATE INBOX|CREATE inbox|CREATE ""|CREATE INBOX/a//b|CREATE /|CREATE INBOX/|CREATE "INBOX/*"|CREATE "INBOX/%"|CREATE "INBOX/&"|CREATE "INBOX/&AOQ"
CREATE INBOX/new/|CREATE INBOX/new|CREATE INBOX/deep/er/est|DELETE INBOX/deep|DELETE INBOX/deep/er/est|DELETE INBOX/deep/er/est|DELETE INBOX|DELETE ""|DELETE INBOX/nosuch|DELETE INBOX/new/|DELETE INBOX/new
RENAME|RENAME INBOX/nosuch INBOX/x|RENAME INBOX/ra INBOX/ra|RENAME INBOX/ra INBOX/ra/b|RENAME INBOX/ra INBOX/rb|RENAME INBOX/rb ""|RENAME INBOX/rb inbox|RENAME INBOX/rb INBOX/rc/|RENAME INBOX/rc INBOX/rd/re
SUBSCRIBE|SUBSCRIBE ""|UNSUBSCRIBE INBOX/nosuch|LIST|LIST ""|LIST "" * x|LSUB "" *|LSUB|APPEND|APPEND INBOX|APPEND INBOX {3+}\r\nabc x|APPEND INBOX/nosuch {3+}\r\nabc|APPEND INBOX (\\Seen {3+}\r\nabc|APPEND INBOX (\\Recent) {7+}\r\nA: b\r\n\r
APPEND INBOX () {8+}\r\nA: b\r\n\r\n|APPEND INBOX "1-Jan-2024 10:00:00 +0000" {8+}\r\nA: b\r\n\r\n|APPEND INBOX "32-Jan-2024 10:00:00 +0000" {8+}\r\nA: b\r\n\r\n|APPEND INBOX "01-Jan-2024" {8+}\r\nA: b\r\n\r\n
APPEND INBOX "01-Jan-2024 25:00:00 +0000" {8+}\r\nA: b\r\n\r\n|APPEND INBOX bogus {8+}\r\nA: b\r\n\r\n|APPEND INBOX (\\Bogus) {8+}\r\nA: b\r\n\r\n|APPEND INBOX {0+}\r\n|APPEND INBOX "quoted"|EXPUNGE x|UID EXPUNGE|UID EXPUNGE 999|UID|UID BOGUS 1|UID NOOP
SORT|SORT ()|SORT () UTF-8 ALL|SORT (BOGUS) UTF-8 ALL|SORT (DATE) UTF-8|SORT (DATE) X-NONE ALL|SORT (DATE) ALL|SORT (REVERSE) UTF-8 ALL|SORT (REVERSE REVERSE DATE) UTF-8 ALL|SORT (DATE DATE) UTF-8 ALL|SORT DATE UTF-8 ALL
THREAD|THREAD BOGUS UTF-8 ALL|THREAD REFERENCES ALL|THREAD REFERENCES UTF-8|THREAD REFERENCES X-NONE ALL|ENABLE|ENABLE BOGUS|ENABLE CONDSTORE BOGUS|NAMESPACE x|ID|ID x|ID (a b)|ID NIL|ID ("name" "x")|ID ("name")|ID ()|CAPABILITY x|LOGIN a b|AUTHENTICATE PLAIN|STARTTLS
GETQUOTA|GETQUOTA x|GETQUOTAROOT|GETQUOTAROOT INBOX|GETQUOTAROOT INBOX/nosuch|SETQUOTA "" (STORAGE 1)|GETACL|GETACL INBOX|GETACL INBOX/nosuch|MYRIGHTS INBOX|MYRIGHTS INBOX/nosuch|MYRIGHTS|LISTRIGHTS INBOX|LISTRIGHTS INBOX user1|SETACL INBOX|SETACL INBOX bob|SETACL INBOX bob lrZ|SETACL INBOX bob +r|SETACL INBOX bob -r|DELETEACL INBOX|DELETEACL INBOX bob
IDLE x|UNSELECT x|CLOSE x|COMPRESS|COMPRESS BOGUS|FETCH 1 (FLAGS) (BOGUS)|FETCH 1 FLAGS (CHANGEDSINCE)|FETCH 1 FLAGS (CHANGEDSINCE 0)|FETCH 1 FLAGS (CHANGEDSINCE x)|STORE 1 (UNCHANGEDSINCE) FLAGS ()|STORE 1 (UNCHANGEDSINCE x) FLAGS ()|STORE 1 (BOGUS 1) FLAGS ()|SEARCH|SEARCH |UID SEARCH|GETMETADATA|GETMETADATA INBOX|GETMETADATA INBOX x|GETMETADATA "" /shared/comment|SETMETADATA INBOX|SETMETADATA INBOX (/private/comment)|SETMETADATA INBOX (x "y")|GETMETADATA INBOX /bogus/x|GETMETADATA INBOX /private/com*ent|GETMETADATA (DEPTH 7) INBOX /private|GETMETADATA (MAXSIZE x) INBOX /private
""".strip()
    .replace("\n", "|")
    .replace("\\r", "\r")
    .replace("\\n", "\n")
    .split("|")
)

THREADS: dict[str, tuple[str, ...]] = {
    "chain": (
        "Message-ID: <1@x>\nSubject: s\n",
        "Message-ID: <2@x>\nReferences: <1@x>\nSubject: Re: s\n",
        "Message-ID: <3@x>\nReferences: <1@x> <2@x>\nSubject: Re: s\n",
    ),
    "missing parent": (
        "Message-ID: <2@x>\nReferences: <1@x>\nSubject: a\n",
        "Message-ID: <3@x>\nReferences: <1@x>\nSubject: b\n",
    ),
    "missing middle": (
        "Message-ID: <1@x>\nSubject: s\n",
        "Message-ID: <3@x>\nReferences: <1@x> <2@x>\nSubject: Re: s\n",
        "Message-ID: <4@x>\nReferences: <1@x> <2@x>\nSubject: Re: s\n",
    ),
    "duplicate ids": (
        "Message-ID: <1@x>\nSubject: a\n",
        "Message-ID: <1@x>\nSubject: b\n",
        "Message-ID: <2@x>\nReferences: <1@x>\nSubject: c\n",
    ),
    "in-reply-to": (
        "Message-ID: <1@x>\nSubject: a\n",
        "Message-ID: <2@x>\nIn-Reply-To: <1@x>\nSubject: b\n",
        "Message-ID: <3@x>\nIn-Reply-To: your mail <2@x> of today <9@x>\nSubject: c\n",
    ),
    "both": (
        "Message-ID: <1@x>\nSubject: a\n",
        "Message-ID: <2@x>\nSubject: b\n",
        "Message-ID: <3@x>\nIn-Reply-To: <1@x>\nReferences: <2@x>\nSubject: c\n",
    ),
    "loop": (
        "Message-ID: <1@x>\nReferences: <2@x>\nSubject: a\n",
        "Message-ID: <2@x>\nReferences: <1@x>\nSubject: b\n",
    ),
    "self": (
        "Message-ID: <1@x>\nReferences: <1@x>\nSubject: a\n",
        "Message-ID: <2@x>\nReferences: <1@x> <2@x>\nSubject: b\n",
    ),
    "subjects": (
        "Subject: s\n",
        "Subject: Re: s\n",
        "Subject: s\n",
        "Subject: t\n",
        "Subject: Re: s\n",
    ),
    "reply first": ("Subject: Re: s\n", "Subject: s\n", "Subject: Re: s\n"),
    "only replies": ("Subject: Re: s\n", "Subject: Re: s\n"),
    "no subjects": ("", "", "Subject:\n"),
    "order": (
        "Message-ID: <1@x>\nSubject: a\nDate: 9 Jan 2024 10:00:00 +0000\n",
        "Message-ID: <2@x>\nReferences: <1@x>\nSubject: b\nDate: 8 Jan 2024 10:00:00 +0000\n",
        "Message-ID: <3@x>\nReferences: <1@x>\nSubject: c\nDate: 7 Jan 2024 10:00:00 +0000\n",
        "Message-ID: <4@x>\nSubject: d\nDate: 6 Jan 2024 10:00:00 +0000\n",
    ),
    "late parent": (
        "Message-ID: <3@x>\nReferences: <1@x> <2@x>\nSubject: c\n",
        "Message-ID: <2@x>\nReferences: <1@x>\nSubject: b\n",
        "Message-ID: <1@x>\nSubject: a\n",
    ),
    "contradiction": (
        "Message-ID: <3@x>\nReferences: <1@x> <2@x>\nSubject: c\n",
        "Message-ID: <2@x>\nReferences: <9@x>\nSubject: b\n",
        "Message-ID: <1@x>\nSubject: a\n",
    ),
    "dummy and subject": (
        "Message-ID: <2@x>\nReferences: <1@x>\nSubject: s\n",
        "Message-ID: <3@x>\nReferences: <1@x>\nSubject: s\n",
        "Message-ID: <4@x>\nSubject: Re: s\n",
        "Message-ID: <5@x>\nSubject: s\n",
    ),
    "odd ids": (
        "Message-ID: 1@x\nSubject: a\n",
        'Message-ID: <"1"@x>\nSubject: b\n',
        'Message-ID: <2@x> junk\nReferences: junk <1@x>, <"1"@x>\nSubject: c\n',
        "Message-ID: < 3@x >\nReferences: <2@x>\nSubject: d\n",
    ),
    "fork": (
        "Message-ID: <1@x>\nSubject: a\n",
        "Message-ID: <2@x>\nReferences: <1@x>\nSubject: a\n",
        "Message-ID: <3@x>\nReferences: <2@x>\nSubject: a\n",
        "Message-ID: <4@x>\nReferences: <1@x>\nSubject: a\n",
        "Message-ID: <5@x>\nReferences: <4@x>\nSubject: a\n",
    ),
}

SORTS: tuple[str, ...] = (
    "SUBJECT", "REVERSE SUBJECT", "DATE", "REVERSE DATE", "FROM", "TO", "CC", "SIZE", "REVERSE SIZE", "ARRIVAL", "FROM TO",
    "SUBJECT REVERSE DATE", "REVERSE FROM REVERSE TO SIZE", "DISPLAYFROM", "DISPLAYTO", "CC DATE",
)  # fmt: skip
MAILBOXES: tuple[bytes, ...] = tuple(
    b"a|a/b|a/b/c|sp ace|&AOQ-|x.y|gone|gone/child|ab|nosub|nosub/sub|missing|missing/one".split(
        b"|"
    )
)

# one session, command by command; between scripts the mailbox is a new one with four messages
SCRIPTS: dict[str, tuple[str, ...]] = {
    "seen": (
        "FETCH 1 BODY[]",
        "FETCH 1 FLAGS",
        "FETCH 2 BODY[TEXT]",
        "FETCH 2 FLAGS",
        "FETCH 3 BODY.PEEK[]",
        "FETCH 3 FLAGS",
        "FETCH 3 RFC822.HEADER",
        "FETCH 3 FLAGS",
        "FETCH 3 RFC822.TEXT",
        "FETCH 3 FLAGS",
        "FETCH 4 RFC822",
        "FETCH 4 FLAGS",
        "UID FETCH 1:* FLAGS",
        "FETCH 1:4 (UID)",
        "UID FETCH 2:3 (UID FLAGS)",
        "FETCH 4:2 UID",
    ),
    "partial": (
        "FETCH 1 BODY.PEEK[]<0.10>",
        "FETCH 1 BODY.PEEK[]<5.3>",
        "FETCH 1 BODY.PEEK[]<100000.5>",
        "FETCH 1 BODY.PEEK[TEXT]<0.4294967295>",
        "FETCH 1 BODY.PEEK[TEXT]<3.1>",
        "FETCH 1 BODY.PEEK[HEADER]<2.4>",
        "FETCH 1 BODY.PEEK[HEADER.FIELDS (Subject)]<0.7>",
        "FETCH 1 (BODY.PEEK[]<0.5> BODY.PEEK[]<5.5>)",
        "FETCH 1 BODY.PEEK[1]<2.3>",
        "FETCH 1 BODY.PEEK[1.MIME]<0.5>",
    ),
    "store": (
        "STORE 1 +FLAGS (\\Seen)",
        "STORE 1 +FLAGS.SILENT (\\Deleted)",
        "FETCH 1 FLAGS",
        "STORE 1:3 FLAGS (\\Answered kw1)",
        "STORE 1 -FLAGS (kw1)",
        "STORE 2 -FLAGS.SILENT (\\Answered)",
        "FETCH 1:4 FLAGS",
        "STORE 1 FLAGS ()",
        "STORE 1 FLAGS \\Seen",
        "STORE 1 +FLAGS (\\SEEN \\flagged)",
        "STORE 1 +FLAGS (KW1)",
        "FETCH 1 FLAGS",
        "UID STORE 1:2 +FLAGS (\\Draft)",
        "UID STORE 999 FLAGS (x)",
        "STORE 1,3 +FLAGS.SILENT (b)",
        "FETCH 1:* FLAGS",
        "STORE 1:* -FLAGS (b nosuch)",
    ),
    "expunge": (
        "STORE 2,4 +FLAGS.SILENT (\\Deleted)",
        "EXPUNGE",
        "FETCH 1:* UID",
        "EXPUNGE",
        "STORE 1:2 +FLAGS.SILENT (\\Deleted)",
        "UID EXPUNGE 3:9",
        "FETCH 1:* UID",
        "UID EXPUNGE 1,7",
        "STATUS INBOX/s (MESSAGES UIDNEXT)",
        "CLOSE",
        "FETCH 1 FLAGS",
    ),
    "copy": (
        "COPY 1:2 {me}",
        "FETCH 1:* UID",
        "UID COPY 1:* {me}",
        "UID COPY 99 {me}",
        "COPY 2,1 {me}",
        "MOVE 1 {me}",
        "UID MOVE 3:4 {me}",
        "FETCH 1:* (UID FLAGS)",
        "NOOP",
    ),
    "examine": (
        "EXAMINE {me}",
        "STORE 1 FLAGS (\\Seen)",
        "EXPUNGE",
        "FETCH 1 BODY[]",
        "FETCH 1 FLAGS",
        "CLOSE",
        "EXAMINE {me}",
        "UNSELECT",
        "CHECK",
        "UID FETCH 1 FLAGS",
    ),
    "append": (
        "APPEND {me} (\\Seen kw) {8+}\r\nA: b\r\n\r\n",
        "FETCH 5 (FLAGS RFC822.SIZE)",
        'APPEND {me} " 1-Feb-2024 10:00:00 +0000" {8+}\r\nA: b\r\n\r\n',
        "FETCH 6 INTERNALDATE",
        'APPEND {me} (\\Deleted) "29-Feb-2024 23:59:59 +0000" {8+}\r\nA: b\r\n\r\n',
        "FETCH 7 (INTERNALDATE FLAGS)",
        "APPEND {me}/none {8+}\r\nA: b\r\n\r\n",
        "APPEND {me} () {8+}\r\nA: b\r\n\r\n",
        "APPEND {me} {8+}\r\nA: b\r\n\r\n {8+}\r\nA: c\r\n\r\n",
        "APPEND {me} (\\Seen) {8+}\r\nA: b\r\n\r\n (\\Deleted) {8+}\r\nA: c\r\n\r\n",
        "FETCH 9:* FLAGS",
        "NOOP",
    ),
    "status": (
        "STATUS {me} (MESSAGES RECENT UNSEEN)",
        "STATUS {me} (UIDNEXT)",
        "STATUS {me} (SIZE)",
        "STATUS {me} (DELETED)",
        "STORE 1 +FLAGS.SILENT (\\Deleted)",
        "STATUS {me} (DELETED MESSAGES)",
        "STATUS {me} (BOGUS)",
        'STATUS "{me}" (MESSAGES)',
    ),
    "binary": (
        "FETCH 3 BINARY.PEEK[1]",
        "FETCH 3 BINARY.SIZE[1]",
        "FETCH 3 BINARY.PEEK[2]",
        "FETCH 3 BINARY.SIZE[2]",
        "FETCH 3 BINARY.PEEK[2]<2.4>",
        "FETCH 3 BINARY.PEEK[3]",
        "FETCH 3 BINARY.PEEK[4]",
        "FETCH 3 BINARY.SIZE[4]",
        "FETCH 3 BINARY.PEEK[5]",
        "FETCH 3 BINARY.SIZE[5]",
        "FETCH 3 BINARY[1]",
        "FETCH 3 FLAGS",
        "FETCH 3 BINARY.PEEK[]",
        "FETCH 3 BINARY.PEEK[9]",
    ),
    "macros": (
        "FETCH 1 ALL",
        "FETCH 1 FAST",
        "FETCH 1 FULL",
        "FETCH 1 (UID RFC822.SIZE INTERNALDATE FLAGS ENVELOPE)",
    ),
    "condstore": (
        "ENABLE CONDSTORE",
        "STORE 1 (UNCHANGEDSINCE 0) +FLAGS (x)",
        "FETCH 1 FLAGS",
        "FETCH 1:* (FLAGS) (CHANGEDSINCE 99999)",
        "STORE 1:2 (UNCHANGEDSINCE 99999) +FLAGS.SILENT (y)",
        "SEARCH MODSEQ 99999",
        "FETCH 1 (FLAGS) (CHANGEDSINCE 1 VANISHED)",
    ),
}
SCRIPTED: tuple[bytes, ...] = (
    crlf("From: a@b\nSubject: first\nDate: Mon, 1 Jan 2024 10:00:00 +0000\n\nhello world\n"),
    crlf("From: c@d\nTo: e@f\nSubject: second\n\nshort\n"),
    crlf(
        "From: x@y\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nplain\n--b\nContent-Transfer-Encoding: base64\n\naGVsbG8gd29ybGQ=\n--b\nContent-Transfer-Encoding: quoted-printable\n\ncaf=C3=A9 =\njoined=XX \n--b\nContent-Transfer-Encoding: base64\n\naGV*sbG8\n--b\nContent-Transfer-Encoding: x-bogus\n\nq\n--b--\n"
    ),
    crlf("From: g@h\nSubject: fourth\n\n"),
)

# whom `corpus.addressed` is searched for
PEOPLE = (
    *(
        "a@b.c",
        "b.c",
        "d@e.f",
        "<a@b.c>",
        "A B",
        "A B <a@b.c>",
        "group",
        "relay",
        "Comment",
        "ä",
        "bücher",
        "a b",
        "x@y.z",
    ),
    *("a@b.c, d@e.f", "q q", "local", "h.i", "trailing", "unfinished", "A. B"),
)
# what is looked for in `corpus.texts`
TEXTS = ("hello", "mailing list", "footer", "softbreak", "köln", "grüße aus", "ende", "aus köln")

# Where we stand alone and mean it: what a key contains, and why
OUR_WAY: dict[str, str] = {
    "ON 32-Jan-2024": "no day of any calendar",
    "GRÜSSE": "full case folding: ß is ss",
    "straße": "full case folding: ß is ss",
    "LSUB": "a mailbox that is not here may be subscribed to: it may live on another backend",
    "STORE 1:* -FLAGS (b nosuch)": "every message named is told, also one whose flags stay the same",
    "(DELETED": "RFC 9208, which they do not know",
    "UNCHANGEDSINCE 0": "the flags that prevented it are told (RFC 7162 §3.1.3)",
    "BODY.PEEK[0]": "section numbers begin with 1",
    "BODY.PEEK[1.0]": "section numbers begin with 1",
    "BODY.PEEK[999999999999]": "a number has 32 bits",
    "INBOX/nosuch": "with the response code of RFC 5530",
    'CREATE "INBOX/*"': "no new names with wildcards",
    "REVERSE REVERSE": "no grammar has it",
    '"unfinished <a@b.c>': "what can be found in it is found",
    "'<a@b.c>' in 99": "an address before angles is the name of the one in them",
}
