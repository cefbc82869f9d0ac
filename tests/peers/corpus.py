"""Messages as they should not be, and some as they should: each a trap for whoever cuts MIME or reads headers."""

# ruff: noqa: E501 - they are data

from collections.abc import Iterator
from itertools import chain


def crlf(text: str) -> bytes:
    return text.replace("\r\n", "\n").replace("\n", "\r\n").encode("utf-8", "surrogateescape")


HEAD = "From: a@b.c\nSubject: s\nMIME-Version: 1.0\n"


def multipart(
    boundary: str,
    *parts: str,
    kind: str = "mixed",
    before: str = "",
    after: str = "",
    head: str = HEAD,
) -> str:
    body = "".join(f"--{boundary}\n{part}\n" for part in parts)
    return f'{head}Content-Type: multipart/{kind}; boundary="{boundary}"\n\n{before}{body}--{boundary}--\n{after}'


def bodies() -> Iterator[tuple[str, bytes]]:
    """Parts, and the lack of them."""
    yield "plain", crlf(HEAD + "\nhello\n")
    yield "no-line-end", crlf(HEAD + "\nhello")
    yield "no-body", crlf(HEAD + "\n")
    yield "no-blank-line", crlf(HEAD)
    yield "only-blank-line", crlf("\nbody without a header\n")
    yield "no-header-colon", crlf("this is no header\n\nbody\n")
    yield "two-parts", crlf(multipart("b", "\none", "\ntwo"))
    yield "preamble-epilogue", crlf(multipart("b", "\none", before="pre\n", after="epi\nlogue\n"))
    yield (
        "empty-part",
        crlf(multipart("b", "", "\n", "Content-Type: text/html\n", "Content-Type: text/html\n\n")),
    )
    yield "empty-multipart", crlf(multipart("b"))
    yield "no-closing", crlf(multipart("b", "\none", "\ntwo").replace("--b--\n", ""))
    yield (
        "never-opened",
        crlf(HEAD + "Content-Type: multipart/mixed; boundary=b\n\nnothing\nhere\n"),
    )
    yield "no-boundary", crlf(HEAD + "Content-Type: multipart/mixed\n\n--b\n\none\n--b--\n")
    yield (
        "empty-boundary",
        crlf(HEAD + 'Content-Type: multipart/mixed; boundary=""\n\n--\n\none\n----\n'),
    )
    yield "only-closing", crlf(HEAD + "Content-Type: multipart/mixed; boundary=b\n\n--b--\nx\n")


def boundaries() -> Iterator[tuple[str, bytes]]:
    """Delimiter lines that are nearly others."""
    yield "boundary-spaces", crlf(multipart("a b c", "\none", "\ntwo"))
    yield "boundary-trailing-space", crlf(multipart("b", "\none").replace("--b\n", "--b  \t\n"))
    yield "boundary-with-more", crlf(multipart("b", "\none").replace("one\n", "one\n--bc\nstill\n"))
    yield (
        "duplicate-type",
        crlf("Content-Type: text/html\nContent-Type: text/plain\nSubject: x\n\nbody\n"),
    )
    yield (
        "nested",
        crlf(multipart("a", multipart("b", "\n1.1", "\n1.2", kind="alternative", head=""), "\n2")),
    )
    yield "prefix-inner", crlf(multipart("a", multipart("ab", "\n1.1", "\n1.2", head=""), "\n2"))
    yield "prefix-outer", crlf(multipart("ab", multipart("a", "\n1.1", "\n1.2", head=""), "\n2"))
    yield "same-boundary", crlf(multipart("a", multipart("a", "\n1.1", "\n1.2", head=""), "\n2"))
    yield (
        "inner-not-closed",
        crlf(
            multipart(
                "a", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\n1.1\n--b\n\n1.2", "\n2"
            )
        ),
    )
    yield (
        "inner-never-opened",
        crlf(multipart("a", "Content-Type: multipart/mixed; boundary=b\n\nnothing", "\n2")),
    )


def messages() -> Iterator[tuple[str, bytes]]:
    """Messages in messages."""
    yield (
        "digest",
        crlf(
            multipart(
                "d", "\nSubject: one\n\nfirst", "Content-Type: text/plain\n\nplain", kind="digest"
            )
        ),
    )
    yield (
        "rfc822",
        crlf(
            multipart(
                "b",
                "Content-Type: message/rfc822\n\nSubject: in\nFrom: x@y.z\n\ninner\nbody",
                "\nx",
            )
        ),
    )
    yield "rfc822-only", crlf(HEAD + "Content-Type: message/rfc822\n\nSubject: in\n\ninner body\n")
    yield (
        "rfc822-multipart",
        crlf(
            multipart(
                "o",
                "Content-Type: message/rfc822\n\n"
                + multipart("i", "\nA", "Content-Type: text/html\n\nB"),
            )
        ),
    )
    yield "rfc822-empty", crlf(multipart("b", "Content-Type: message/rfc822\n\n", "\nx"))
    yield (
        "rfc822-no-body",
        crlf(multipart("b", "Content-Type: message/rfc822\n\nSubject: only", "\nx")),
    )
    yield (
        "rfc822-base64",
        crlf(
            multipart(
                "b",
                "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeAoKeQo=",
            )
        ),
    )
    yield (
        "rfc822-nest",
        crlf(HEAD + "Content-Type: message/rfc822\n\n" * 5 + "Subject: deepest\n\nbottom\n"),
    )
    yield (
        "message-partial",
        crlf(
            HEAD + 'Content-Type: message/partial; id="x@y"; number=1; total=3\n\nSubject: p\n\nb\n'
        ),
    )
    yield (
        "external-body",
        crlf(
            multipart(
                "b",
                'Content-Type: message/external-body; access-type="anon-ftp"; name=x\n\nContent-Type: text/plain\n\nphantom',
            )
        ),
    )


def fields() -> Iterator[tuple[str, bytes]]:
    """What the fields of a part may say."""
    yield (
        "parameters",
        crlf(
            HEAD
            + 'Content-Type: text/plain; charset=utf-8; format=flowed;\n\tdelsp=yes ; name="a \\"b\\".txt"\n'
            "Content-Disposition: attachment; filename*=utf-8''%e2%82%ac.txt; size=12\n"
            "Content-ID: <id@x>\nContent-Description: some thing\nContent-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==\n"
            "Content-Language: en, de-AT\nContent-Location: http://x/y\n"
            "Content-Transfer-Encoding: QUOTED-PRINTABLE\n\na=20b\n"
        ),
    )
    yield (
        "continued-parameters",
        crlf(
            HEAD
            + "Content-Type: application/x-stuff; title*0*=us-ascii'en'This%20is%20even%20more%20;\n"
            ' title*1*=%2A%2A%2Afun%2A%2A%2A%20; title*2="isn\'t it!"\n\nx\n'
        ),
    )
    yield (
        "odd-types",
        crlf(
            multipart(
                "b",
                "Content-Type: text\n\na",
                "Content-Type: /\n\nb",
                "Content-Type:\n\nc",
                "Content-Type: text/plain; charset\n\nd",
                "Content-Type: TEXT/HTML;;charset=x\n\ne",
                "Content-Type: text/plain (comment); charset=(c)utf-8\n\nf",
                "Content-Type: x y/z\n\ng",
                "Content-Type: application/octet-stream; name=a=b\n\nh",
                'Content-Type: text/plain; charset="unfinished\n\ni',
            )
        ),
    )
    yield (
        "odd-encodings",
        crlf(
            multipart(
                "b",
                "Content-Transfer-Encoding: 8bit\n\na",
                "Content-Transfer-Encoding: x-foo\n\nb",
                "Content-Transfer-Encoding:\n\nc",
                "Content-Transfer-Encoding: base64 (c)\n\nZGVm",
                "Content-Transfer-Encoding: quoted-printable; x=y\n\n=64",
                'Content-Transfer-Encoding: "7bit"\n\ne',
            )
        ),
    )
    yield (
        "odd-dispositions",
        crlf(
            multipart(
                "b",
                "Content-Disposition: inline\n\na",
                'Content-Disposition: attachment; filename=""\n\nb',
                "Content-Disposition: ; filename=x\n\nc",
                "Content-Disposition:\n\nd",
                'Content-Disposition: attachment (c); FileName="A B"\n\ne',
            )
        ),
    )


def others() -> Iterator[tuple[str, bytes]]:
    """The rest."""
    yield "base64", crlf(HEAD + "Content-Transfer-Encoding: base64\n\naGVsbG8gd29y\nbGQ=\n")
    yield (
        "folded-type",
        crlf(HEAD + "Content-Type:\n multipart/mixed;\n\tboundary=\n  b\n\n--b\n\none\n--b--\n"),
    )
    yield "long-boundary", crlf(multipart("x" * 90, "\none", "\ntwo"))
    yield "boundary-in-header", crlf(multipart("b", "Content-Type: text/html\n--b\n\ntwo"))
    yield (
        "8-bit-body",
        crlf(
            HEAD
            + "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße, 世界\n"
        ),
    )
    yield "bare-cr", crlf(HEAD + "\none").replace(b"one", b"o\rn\re") + b"\r\n"
    yield "many", crlf(multipart("b", *[f"\npart {n}" for n in range(1, 300)]))
    yield "deep", crlf(_deep(40))


def texts() -> Iterator[tuple[str, bytes]]:
    """Bodies whose encoding or character set is damaged, and what mailing lists add to them."""
    encoded = HEAD + "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: "
    base64 = encoded + "base64\n\n"
    yield (
        "base64-footer",
        crlf(base64 + "aGVsbG8=\n_______\nlist mailing list\nlist@example.org\n"),
    )
    yield "base64-footer-without-padding", crlf(base64 + "aGVsbG8h\n-- \nlist\n")
    yield "base64-twice", crlf(base64 + "YQ==\nYg==\n")
    yield "base64-words", crlf(base64 + "aGVsbG8=\n\nfooter here\n")
    yield "base64-short", crlf(base64 + "aGVsbG8\n")
    yield "base64-equals", crlf(base64 + "aGVsbG8======\n")
    yield (
        "qp-blanks",
        crlf(encoded + "quoted-printable\n\nhello   \nword =20\nsoft=   \nbreak\n"),
    )
    yield "qp-broken", crlf(encoded + "quoted-printable\n\nhello=zz =4 =\n")
    for label, charset in (("utf-8", "; charset=utf-8"), ("unlabelled", "")):
        yield (
            f"{label}-bad-octet",
            crlf(HEAD + f"Content-Type: text/plain{charset}\n\nGrüße aus Köln \udcff Ende\n"),
        )
        yield (
            f"{label}-latin1",
            crlf(HEAD + f"Content-Type: text/plain{charset}\n\nGr\udcfc\udcdfe\n"),
        )
    yield "base64-words-of-letters", crlf(base64 + "aGVsbG8=\nThis is the list\nlist\n")
    yield "base64-footer-address", crlf(base64 + "aGVsbG8=\nhttps://list.example.org/?a=b\n")
    yield "base64-blanks", crlf(base64 + "aGVs bG8=\n")
    yield "base64-first-foreign", crlf(base64 + "\n\naGVsbG8=\n")
    yield "base64-no-line-end", crlf(base64 + "aGVsbG8=")
    yield "base64-longer-lines", crlf(base64 + "aGVs" * 300 + "\n")
    yield "base64-whole-twice", crlf(base64 + "aGVs\n\nbG8h\n")
    yield "qp-soft-at-end", crlf(encoded + "quoted-printable\n\nhello=\n")
    yield "qp-lower-case", crlf(encoded + "quoted-printable\n\nk=c3=b6ln\n")
    yield "qp-8-bit", crlf(encoded + "quoted-printable\n\nköln =C3=B6\n")
    yield "qp-line-ends", crlf(encoded + "quoted-printable\n\nhello=0D=0Amailing list\n")
    yield "encoding-comment", crlf(encoded + "base64 (really)\n\naGVsbG8=\n")
    yield "encoding-upper", crlf(encoded + "BASE64\n\naGVsbG8=\n")
    yield "encoding-unknown", crlf(encoded + "x-uuencode\n\nstrange\n")
    for label, charset in (
        *(("x-unknown", "; charset=x-unknown"), ("ascii", "; charset=us-ascii")),
        *(("utf8", "; charset=UTF8"), ("quoted", '; charset="utf-8"'), ("none", "")),
    ):
        type_ = f"Content-Type: text/plain{charset}\n\n"
        yield f"{label}-utf-8", crlf(HEAD + type_ + "Grüße aus Köln\n")
        yield f"{label}-one-bad", crlf(HEAD + type_ + "Grüße aus Köln \udcff Ende\n")
        yield f"{label}-surrogate", crlf(HEAD + type_ + "Grüße aus Köln \udced\udca0\udc80 Ende\n")
        yield f"{label}-cut", crlf(HEAD + type_ + "Grüße aus Köln, Ende \udce2\udc82")
    for name, subject in (
        ("good", "Grüße aus Köln, Ende"),
        ("word", "=?utf-8?q?Gr=C3=BC=C3=9Fe_aus_K=C3=B6ln?="),
        ("word-bad", "=?utf-8?q?Gr=C3=BC=C3=9Fe_aus_K=C3=B6ln_=FF?= Ende"),
        ("words", "=?utf-8?q?Gr=C3=BC=C3=9Fe?= =?utf-8?q?_aus_K=C3=B6ln?="),
        ("latin1-word", "=?iso-8859-1?q?Gr=FC=DFe_aus_K=F6ln?="),
        ("word-open", "=?utf-8?q?Gr=C3=BC=C3=9Fe"),
        ("word-padding", "=?utf-8?b?R3LDvMOfZSBhdXMgS8O2bG4?="),
    ):
        yield f"subject-{name}", crlf(f"From: a@b.c\nSubject: {subject}\n\nb\n")
    yield "subject-bad-octet", crlf("From: a@b.c\nSubject: Grüße aus Köln \udcff Ende\n\nb\n")


def structures() -> Iterator[tuple[str, bytes]]:
    """All of them."""
    return chain(bodies(), boundaries(), messages(), fields(), others())


def _deep(levels: int) -> str:
    inner = "\nbottom"
    for level in range(levels):
        inner = multipart(f"L{level}", inner, head="")
    return HEAD + inner


def bare_lf() -> Iterator[tuple[str, bytes]]:
    """Line ends that Cyrus does not take."""
    for name in ("two-parts", "nested", "rfc822", "preamble-epilogue", "empty-part"):
        whole = dict(structures())[name]
        yield name + "-lf", whole.replace(b"\r\n", b"\n")
        lines = whole.split(b"\r\n")
        yield (
            name + "-mixed",
            b"".join(line + (b"\r\n", b"\n")[at % 2] for at, line in enumerate(lines)),
        )


ADDRESSES = (
    "a@b.c", "<a@b.c>", "A B <a@b.c>", '"A. B" <a@b.c>', '"A \\"x\\" B" <a@b.c>', "a@b.c (Comment here)", "A (in) B <a@b.c>",
    "a@b.c, d@e.f", "group: a@b.c, D <d@e.f>;", "empty group:;", "undisclosed-recipients:;", "g: a@b.c;, x@y.z",
    "a@b.c,, d@e.f,", "<@relay.one,@relay.two:a@b.c>", "R <@relay:a@b.c>", "local", "<local>", "Name <local>", "Name <>",
    "<>", "", " ", "@b.c", "a@", "Name", '"q q"@b.c', "a.b.c@d", "a . b @ c . d", "a@[127.0.0.1]",
    "=?utf-8?q?=C3=A4?= <a@b.c>",
    "ä@b.c", "Ä Ö <a@b.c>", "A\n B\n\t<a@b.c>", "a@b.c;", "a@b.c;d@e.f", "a b@c.d", "A <a@b.c> trailing", "<a@b.c> <d@e.f>",
    "(only a comment)", '"unfinished <a@b.c>', "A <a@b.c", "a@b@c", "A, B <a@b.c>", "A.B. C <a@b.c>", '"A" "B" <a@b.c>',
    "nested (a (b) c) <a@b.c>", "a@b.c (one) (two)", "g: h: a@b.c;;", "\\a@b.c", "a@b.c>", "[x] <a@b.c>", "A@B <a@b.c>",
    "a@b.c d@e.f", "a@b.c d@e.f, x@y.z", "a@b.c\td", "a@b.c (c) d@e.f", "A <a@b.c> B <d@e.f>", '"X" <>', '"X" <>, Y <d@e.f>',
    "a(c)@b.c", "a@(c)b.c", "A (c) B <a@b.c>", "A <a@b.c> (comment) B <d@e.f>",
    "A <a@b.c>, , B <d@e.f>", "A <a@b.c>;", ",a@b.c", "a@b.c,\n d@e.f,\n\tg@h.i", "g1: a@b.c; g2: d@e.f;", '"g, x": a@b.c;', "g: a@b.c",
    "g: ;, a@b.c", "g: a@b.c, , d@e.f;", "A B C", "A B, C D", "'a' <a@b.c>", "<a@b.c>,<d@e.f>", "<<a@b.c>>", "A =?utf-8?q?=C3=A4?= B <a@b.c>",
    '"=?utf-8?q?=C3=A4?=" <a@b.c>', "=?utf-8?q?A?=<a@b.c>", "a@b.c (=?utf-8?q?=C3=A4?=)", "a+tag@b.c", "a%x@b.c", "a!b!c", "a@[IPv6:::1]", '""@b.c',
    "a@b.c.", "a.@b.c", ".a@b.c", "a@b_c", "<@x:a@b.c>, <@y:d@e.f>", "A<a@b.c>", '"A"<a@b.c>', "A <a@b.c >", "A < a@b.c>", "A <a\n @b.c>", "a\n @b.c",
    "mailto:a@b.c", "undisclosed recipients", "a@b.c <d@e.f>", "(a) b (c) <d@e.f> (g)", '"a b" c <d@e.f>', "a@b.c; d@e.f; g@h.i", "X <>, <>", "g: <>;",
    '"" <a@b.c>', '"" <>', "X < >", "X <a(c)@b.c>", "a@b.c (x\\) y)", "A <a@b.c> <d@e.f>, <x@y.z>", "a@b.c ,d@e.f", "A@B.C", "(X) a@b.c", "<a@b.c> (x), d@e.f", "(X) <a@b.c>", "(X) Y <a@b.c>", "<a@b.c> (x)", "ä@bücher.ch", "a@xn--bcher-kva.ch",
)  # fmt: skip


def addressed(field: str) -> Iterator[tuple[str, bytes]]:
    """A message for each shape of addresses, in this field."""
    for number, address in enumerate(ADDRESSES):
        sender = "" if field == "From" else "From: x@sender.z\n"
        yield f"{number} {address!r}", crlf(f"{sender}{field}: {address}\nSubject: {number}\n\nb\n")


def headers() -> Iterator[tuple[str, bytes]]:
    """Headers."""
    for number, address in enumerate(ADDRESSES):
        yield f"to-{number}", crlf(f"From: x@y.z\nTo: {address}\nSubject: {number}\n\nb\n")
    yield "no-from", crlf("Subject: x\nDate: Mon, 1 Jan 2024 10:00:00 +0100\n\nb\n")
    yield "sender-empty", crlf("From: a@b.c\nSender:\nReply-To: \nTo:\nCc: ,\n\nb\n")
    yield "sender-set", crlf("From: a@b.c, d@e.f\nSender: s@t.u\nReply-To: r@s.t, q@r.s\n\nb\n")
    yield (
        "twice",
        crlf("From: a@b.c\nFrom: d@e.f\nTo: x@y.z\nTo: q@r.s\nSubject: one\nSubject: two\n\nb\n"),
    )
    yield (
        "ids",
        crlf(
            "From: a@b.c\nMessage-ID: <1@x> (c)\nIn-Reply-To: your message of Monday <0@x>\nReferences: <a@b> <c@d>\n\nb\n"
        ),
    )
    yield "id-empty", crlf("From: a@b.c\nMessage-ID:\nIn-Reply-To: \nSubject:\nDate:\n\nb\n")
    yield (
        "folded",
        crlf(
            "From: a@b.c\nSubject: one\n two\n\tthree\n   four\nDate: Mon,\n 1 Jan 2024\n 10:00:00 +0000\n\nb\n"
        ),
    )
    yield "spaces", crlf("From: a@b.c\nSubject:   lots   of   space   \n\nb\n")
    yield "quotes", crlf('From: a@b.c\nSubject: say "hi" \\ back\n\nb\n')
    yield "8-bit", crlf("From: a@b.c\nSubject: Grüße\n\nb\n")
    yield "latin1", crlf("From: a@b.c\nSubject: Gr\udcfc\udcdfe\n\nb\n")
    yield (
        "encoded",
        crlf("From: a@b.c\nSubject: =?iso-8859-1?q?Gr=FC=DFe?= =?utf-8?b?w6Q=?=\n\nb\n"),
    )
    yield "space-colon", crlf("From : a@b.c\nSubject : x\n\nb\n")
    yield "continuation-first", crlf(" starts folded\nFrom: a@b.c\nSubject: x\n\nb\n")
    yield "colonless-line", crlf("From: a@b.c\nnonsense here\nSubject: x\n\nb\n")
    yield "mbox-line", crlf("From a@b.c Mon Jan  1 10:00:00 2024\nFrom: a@b.c\nSubject: x\n\nb\n")
    yield "case", crlf("FROM: a@b.c\nsUBJECT: x\ncONTENT-tYPE: TEXT/hTML; CharSet=UTF-8\n\nb\n")
    yield "folded-blank", crlf("From: a@b.c\nSubject: x\n \n y\nTo: q@r.s\n\nb\n")
    yield "long-subject", crlf("From: a@b.c\nSubject: " + "long " * 500 + "\n\nb\n")
