"""What fuzzing begins with: a few inputs of each kind, and every one that has ever found something.

They are run as plain tests, too, as they are and repeated to the size that a peer may send.
"""

from collections.abc import Mapping, Sequence
from typing import Final

MAIL: Final = (
    b"From: =?utf-8?q?An=C3=A1?= <ana@example.org>, group: b@c, d@e;\r\nSubject: [a] Re: x (fwd)\r\n"
    b"Date: Mon, 1 Jan 2024 00:00:00 +0100 (CET)\r\nMessage-ID: <a@b>\r\nReferences: <c@d> <e@f>\r\n"
    b"Content-Type: multipart/mixed; boundary=\"b\"; x*0*=utf-8''a; x*1=b\r\n\r\n--b\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"a=C3=A1 =\r\nb \r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\nYWJj\r\n--b\r\n"
    b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx\r\n--b--\r\n"
)

SEEDS: Final[Mapping[str, Sequence[bytes]]] = {
    "imap_server": (
        b"a LOGIN {3}\r\nana {6+}\r\nsecret\r\n",
        b"b SELECT INBOX (QRESYNC (1 2 3:4))\r\nc UID FETCH 1:*,3 (FLAGS BODY.PEEK[1.2.MIME]<0.3>)\r\n",
        b"d APPEND x (\\Seen) {10+}\r\n0123456789\r\n",
        b"e SEARCH RETURN (SAVE) OR NOT (FROM x) UID 1:3,$ CHARSET UTF-8 TEXT {1}\r\nx\r\n",
        b"b SEARCH SUBJECT {00000000000000000005}\r\n{1}\r\n\r\n",
        b"f NOTIFY SET (SELECTED (MessageNew (FLAGS) MessageExpunge)) (SUBTREE (a b) (FlagChange))\r\n",
    ),
    "imap_client": (
        b"* 1 FETCH (BODY[] {3}\r\nabc)\r\na1 OK [READ-WRITE] done\r\n",
        b'* BYE x\r\n+ go\r\n* LIST () "/" {2+}\r\nxx\r\na1 NO\r\n',
    ),
    "fragments": (b"a {3+}\r\nabc {2}\r\nde\r\nb {00000000000000000005}\r\n", b"}\n{5+}\n12345\n"),
    "lines": (
        b'MAIL FROM:<a@b> SIZE=3 BODY=8BITMIME\r\nRCPT TO:<"a b"+c@d>\r\nDATA\r\n.x\r\n..\r\n.\r\nBDAT 3 LAST\r\n',
        b"UIDL 1\r\nTOP 1 5\r\nXCLIENT ADDR=1.2.3.4 NAME=+41\r\n",
    ),
    "mupdate": (
        b'a ACTIVATE "user.x" {5+}\r\nbe1!p "x\tlrs\t"\r\nb FIND {1}\r\nx\r\nc UPDATE\r\n',
        b'* AUTH "PLAIN"\r\n* OK MUPDATE "h" "i" "1" "(master)"\r\na MAILBOX "n" "l" "acl"\r\na OK "x"\r\n',
    ),
    "tokens": (
        b"n,a=anna,\x01host=x\x01port=143\x01auth=Bearer abc\x01\x01",
        b"user=anna\x01auth=Bearer abc\x01\x01",
    ),
    "ldap": (
        b"0\x0c\x02\x01\x01a\x07\n\x01\x00\x04\x00\x04\x00",
        b"0\x1f\x02\x01\x02d\x1a\x04\x05uid=a0\x110\x0f\x04\x03uid1\x08\x04\x01a\x04\x03b\xffc",
    ),
    "sasl": (b"\0ana\0secret", b"n,a=x,n=ana,r=abc\nc=biws,r=abcdef,p=YWJj", b"*"),
    "logins": (
        b"\0ana\0secret",
        b"n,,n=ana,r=abc\nc=biws,r=abcdef,p=YWJj",
        b"n,a=ana,\x01host=x\x01port=143\x01auth=Bearer abc\x01\x01\n\x01",
        b"user=ana\x01auth=Bearer abd\x01\x01\n",
        b"`\x82\x01\x00\x06\x09*\x86H\x86\xf7\x12\x01\x02\x02\x01\x00n\x82\n\n\x01\x00\x00\x00ana",
        b"`\x08\x06\x06+\x06\x01\x05\x05\x02\n\n\x01\xff\xff\xffbob",
    ),
    "proxy_header": (
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\1\2\3\4\5\6\7\x08\0\1\0\2",
    ),
    "names": (
        b"INBOX/&AOE-/x",
        b"user/ana/%*",
        "á\u0301\u0323".encode(),
        b"imap://ana;AUTH=*@h:1/x;UIDVALIDITY=1/;UID=2/;SECTION=1;URLAUTH=anonymous:internal:0",
        b"anyone\tlrs\tana\tlrswipkxtecda\t",
    ),
    "between_nodes": (
        b'J\0\0\0\x0f{"x":[[1,3]]}\r\n',
        b"APPLY MESSAGE (%{default 0123456789012345678901234567890123456789 3}\r\nabc)\r\n",
        b'%(A "b" C (1 2) D NIL)\r\n',
    ),
    "mail": (
        MAIL,
        b"Content-Type: text/plain" + b";" * 50 + b"=\r\n\r\nx\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b" " * 50 + b"x\r\n",
        "Subject: a\u0301\u0323\r\n\r\na\u0301\u0323\r\n".encode(),
        "Subject: x\r\n\r\n\u0323\u0323".encode(),
        b"Content-Type: message/rfc822\r\n\r\n",
        b'Content-Type: multipart/mixed; boundary="q"\r\n\r\n--q\r\n',
    ),
    "header": (
        b'"An a" <ana@example.org>, (c (d)) b@c, <@r:x@y>, group: a@b;',
        b"=?utf-8?b?w6E=?= =?iso-8859-1?q?=E1_b?=",
        b"text/plain; charset=\"utf-8\"; x*0*=utf-8''%41; x*1=b; y",
        b"Re: [list] Fwd: x (fwd)",
        b"<a@b> <c@d>",
    ),
    "kept_summary": (b"\x01\0\0\0\0",),
    "command_line": (
        b"1:*,5 (FLAGS BODY[HEADER.FIELDS (a b)])",
        b'"" (a% b*) RETURN (STATUS (MESSAGES))',
        b"OR NOT (FROM x) 1:3,$",
        b"(REVERSE DATE) UTF-8 ALL",
        b"x (MESSAGES UIDNEXT)",
        b"(MAXSIZE 5 DEPTH infinity) x (/private/a /shared/b)",
        b"1 (UNCHANGEDSINCE 5) +FLAGS.SILENT (\\Seen x)",
        b"SET STATUS (PERSONAL (MessageNew MessageExpunge))",
    ),
    "sieve": (
        b'require ["fileinto", "variables", "regex", "body"];\nif anyof(header :matches "a" "*x?", body :text :contains "y")'
        b' {set :upper "v" "${1}"; fileinto "${v}F"; stop;}\n%%\n' + MAIL,
        b'require ["mime","foreverypart","extracttext","variables","replace","enclose","editheader"];foreverypart {'
        b'extracttext "t"; if header :mime :anychild :param "x" "Content-Type" "a" {replace :mime "${t}";break;}}'
        b' deleteheader "from"; addheader "X" "${t}"; enclose :headers ["a: b"] "c";\n%%\n' + MAIL,
        b'require ["vacation","enotify","date","imap4flags","include","duplicate","relational"];vacation :mime "a";'
        b' notify "mailto:a@b.c?cc=d@e.f&subject=%20";addflag ["a b"]; if date :value "ge" :zone "+0100" "date" "hour" "1"'
        b' {include :optional "x";} if duplicate :header "to" {keep;}\n%%\n' + MAIL,
        b'/* { [ text: # \n.\n.. \n" \\ ${hex:4} 99G :tag ( not not true , ; ]',
        b"if allof(true, not anyof(false, if true {} elsif false {",
    ),
}
