"""Scripts and messages by chance, from words that often meet: for comparing with another interpreter.

A number is the seed: the same number gives the same script and message.
"""

import base64
import quopri
from random import Random

REQUIRES = (
    "fileinto", "envelope", "copy", "body", "variables", "relational", "imap4flags", "subaddress",
    "date", "index", "editheader", "regex", "mime", "foreverypart", "extracttext", "mailbox",
    "encoded-character", "comparator-i;ascii-numeric",
)  # fmt: skip
WORDS = (
    "alpha",
    "Beta",
    "gamma ray",
    "42",
    "007",
    "100",
    "x",
    "",
    "ALPHA",
    "bet",
    "a*b",
    "été",
    "list",
)
ADDRESSES = (
    "ann@example.org", "Bob.B@Example.COM", "carl+lists@example.org", '"d e"@example.net', "eve",
    "frank@sub.example.org", "postmaster@[192.0.2.1]",
)  # fmt: skip
SHOWN = (
    "{0}", "<{0}>", '"Quoted, Name" <{0}>', "Plain Name <{0}>", "{0} (comment)", "=?utf-8?q?J=C3=BC?= <{0}>",
    "group: {0}, ann@example.org;",
)  # fmt: skip
HEADERS = ("Subject", "X-Number", "X-List", "Keywords", "X-Empty", "x-mixed")
FOLDERS = ("INBOX", "A", "A.B", "Lists.x", "Été")
FLAGS = ("\\\\Seen", "\\\\flagged", "$Label1", "work", "Work")
PATTERNS = (
    "*",
    "?*",
    "*a*",
    "*[0-9]*",
    "a?pha",
    "*b*t*",
    "",
    "\\\\*",
    "*@example.*",
    "??",
    "*lph*",
)
REGEXES = ("^a", "[0-9]+", "(a)(l|b)*", "b.t", "^$", "ra[yx]?$", "[[:upper:]]")
DATES = (
    "Fri, 09 Jan 2026 23:59:59 +0100", "1 Mar 2026 00:00 -0800", "Sun, 29 Feb 2032 12:00:00 GMT", "nonsense",
)  # fmt: skip


class Writer:
    """Writes one script. `depth` bounds what is within what."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.in_loop = False

    def one(self, words: tuple[str, ...]) -> str:
        return self.random.choice(words)

    def text(self, word: str) -> str:
        return f'"{word}"'

    def texts(self, words: tuple[str, ...]) -> str:
        if self.random.random() < 0.6:
            return self.text(self.one(words))
        count = self.random.randint(1, 3)
        return "[" + ", ".join(self.text(self.one(words)) for _ in range(count)) + "]"

    def matching(self) -> tuple[str, tuple[str, ...]]:
        """A match type with a comparator, and what its keys are made of."""
        kind = self.random.randrange(8)
        comparator = self.one(("", "", ' :comparator "i;octet"', ' :comparator "i;ascii-casemap"'))
        operator = self.text(self.one(("gt", "ge", "lt", "le", "eq", "ne")))
        match kind:
            case 0 | 1:
                return f":is{comparator}", WORDS
            case 2:
                return f":contains{comparator}", (*WORDS, "a", "e", "@", "example")
            case 3 | 4:
                return f":matches{comparator}", PATTERNS
            case 5:
                return f":regex{comparator}", REGEXES
            case 6:
                return f':value {operator} :comparator "i;ascii-numeric"', WORDS
            case _:
                return f':count {operator} :comparator "i;ascii-numeric"', ("0", "1", "2", "3")

    def test(self, depth: int) -> str:
        if depth > 0 and self.random.random() < 0.3:
            kind = self.one(("not", "allof", "anyof"))
            if kind == "not":
                return f"not {self.test(depth - 1)}"
            tests = ", ".join(self.test(depth - 1) for _ in range(self.random.randint(1, 3)))
            return f"{kind}({tests})"
        matching, keys = self.matching()
        part = self.one(("", ":localpart ", ":domain ", ":all ", ":user ", ":detail "))
        addresses = (*ADDRESSES, "example.org", "ann", "carl", "lists", "Bob.B", *PATTERNS[:3])
        address_keys = addresses if matching.startswith((":is", ":contains")) else keys
        index = self.one(("", "", "", ":index 1 ", ":index 2 ", ":index 1 :last "))
        if matching.startswith(":count"):
            index = ""  # sieve-test counts none, for a field that is there once
            part = ""  # and addresses that have no such part, too
        match self.random.randrange(12):
            case 0 | 1 | 2:
                return f"header {index}{matching} {self.texts(HEADERS)} {self.texts(keys)}"
            case 3 | 4:
                fields = self.texts(("From", "To", "Cc", "Resent-To"))
                return f"address {index}{part}{matching} {fields} {self.texts(address_keys)}"
            case 5:
                return f"envelope {part}{matching} {self.texts(('from', 'to'))} {self.texts(address_keys)}"
            case 6:
                return f"exists {self.texts((*HEADERS, 'From', 'Cc'))}"
            case 7:
                size = self.one(("0", "100", "300", "1K", "2k", "1M"))
                return f"size {self.one((':over', ':under'))} {size}"
            case 8:
                how = self.one(
                    (
                        ":raw",
                        ":text",
                        ':content "text"',
                        ':content "text/plain"',
                        ':content "image"',
                    )
                )
                return f"body {how} {matching} {self.texts((*keys, 'hello', 'Hello world'))}"
            case 9:
                source = self.texts((*WORDS, "${v}", "${w}x", "${1}", "${0}", "${hex:41 62}"))
                return f"string {matching} {source} {self.texts(keys)}"
            case 10:
                zone = self.one(("", ":originalzone ", ':zone "+0200" ', ':zone "-1130" '))
                piece = self.one(
                    (
                        "year",
                        "month",
                        "day",
                        "date",
                        "hour",
                        "minute",
                        "weekday",
                        "julian",
                        "zone",
                        "time",
                        "iso8601",
                        "std11",
                    )
                )
                wanted = (
                    "2026",
                    "01",
                    "09",
                    "2026-01-09",
                    "23",
                    "10",
                    "5",
                    "0",
                    "61049",
                    "+0100",
                    "*:59:*",
                    "2026*",
                )
                how, _ = (":matches", 0) if self.random.random() < 0.5 else (":is", 0)
                return f'date {index}{zone}{how} "date" "{piece}" {self.texts(wanted)}'
            case _:
                return f"hasflag {matching} {self.texts((*FLAGS, 'seen', '1'))}"

    def action(self) -> str:
        flags = f":flags {self.texts(FLAGS)} " if self.random.random() < 0.3 else ""
        copy = ":copy " if self.random.random() < 0.3 else ""
        match self.random.randrange(14):
            case 0 | 1:
                return f"fileinto {copy}{flags}{self.text(self.one(FOLDERS))};"
            case 2:
                return f"keep {flags};"
            case 3:
                return f"redirect {copy}{self.text(self.one(('ann@example.org', 'Zed <zed@example.net>')))};"
            case 4:
                return "discard;"
            case 5 | 6:
                modifier = self.one(
                    ("", ":lower ", ":upper ", ":length ", ":upperfirst :lower ", ":quotewildcard ")
                )
                value = self.text(self.one((*WORDS, "${1}", "${2}", "${v}${w}", "a${0}")))
                return f"set {modifier}{self.text(self.one(('v', 'w')))} {value};"
            case 7 | 8:
                return f"{self.one(('addflag', 'setflag', 'removeflag'))} {self.texts(FLAGS)};"
            case 9:
                last = self.one(("", ":last "))
                return (
                    f"addheader {last}{self.text(self.one(HEADERS))} {self.text(self.one(WORDS))};"
                )
            case 10:
                index = self.one(("", ":index 1 ", ":index 1 :last "))
                patterns = self.one(("", ' :contains "a"'))
                if patterns:
                    return f"deleteheader {index}{patterns} {self.text(self.one(HEADERS))} {self.texts(WORDS)};"
                return f"deleteheader {index}{self.text(self.one(HEADERS))};"
            case 11 if self.in_loop:
                return 'extracttext :first 20 "v";'
            case 12:
                return 'fileinto "${v}F";'
            case _:
                return "stop;" if self.random.random() < 0.3 else "keep;"

    def block(self, depth: int) -> list[str]:
        lines: list[str] = []
        for _ in range(self.random.randint(1, 3)):
            chance = self.random.random()
            if depth > 0 and chance < 0.6:
                lines += [f"if {self.test(2)} {{", *self.block(depth - 1), "}"]
                if self.random.random() < 0.3:
                    lines += [f"elsif {self.test(1)} {{", *self.block(depth - 1), "}"]
                if self.random.random() < 0.3:
                    lines += ["else {", *self.block(depth - 1), "}"]
            elif depth > 0 and chance < 0.66 and not self.in_loop:
                self.in_loop = True
                tag = self.one((":type", ":subtype", ":contenttype"))
                test = f'header :mime {tag} :is "Content-Type" {self.texts(("text", "plain", "html", "text/plain"))}'
                lines += ["foreverypart {", f"if {test} {{", *self.block(0), "}", "}"]
                self.in_loop = False
            else:
                lines.append(self.action())
        return lines

    def script(self) -> str:
        required = ", ".join(self.text(name) for name in REQUIRES)
        return "\n".join([f"require [{required}];", *self.block(3), *self.block(2)]) + "\n"

    def message(self) -> bytes:
        fields = [f"From: {self.address()}", f"To: {self.address()}, {self.address()}"]
        if self.random.random() < 0.5:
            fields.append(f"Cc: {self.address()}")
        for _ in range(self.random.randint(1, 5)):
            word = self.one(WORDS)
            if not word.isascii():
                word = f"=?utf-8?b?{base64.b64encode(word.encode()).decode()}?="
            fields.append(f"{self.one(HEADERS)}: {word}" + self.one(("", "", "\r\n\tfolded", "  ")))
        if self.random.random() < 0.8:
            fields.append(f"Date: {self.one(DATES)}")
        self.random.shuffle(fields)
        return self.body(fields)

    def address(self) -> str:
        return self.one(SHOWN).format(self.one(ADDRESSES))

    def body(self, fields: list[str]) -> bytes:
        text = self.one(("Hello world", "alpha\r\nBeta", "42", "été"))
        if self.random.random() < 0.5:
            fields.append("Content-Type: text/plain; charset=utf-8")
            return ("\r\n".join(fields) + f"\r\n\r\n{text}\r\n").encode()
        fields += ["MIME-Version: 1.0", 'Content-Type: multipart/mixed; boundary="b1"']
        parts = []
        for _ in range(self.random.randint(1, 3)):
            kind = self.one(
                ("text/plain; charset=utf-8", "text/html", "application/pdf", "image/png")
            )
            how = self.random.randrange(3)
            octets = text.encode()
            encoding = "8bit"
            if how == 1:
                octets, encoding = base64.encodebytes(octets).replace(b"\n", b"\r\n"), "base64"
            elif how == 2:
                octets, encoding = quopri.encodestring(octets), "quoted-printable"
            header = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
            parts.append(b"--b1\r\n" + header.encode() + octets + b"\r\n")
        head = ("\r\n".join(fields) + "\r\n\r\npreamble\r\n").encode()
        return head + b"".join(parts) + b"--b1--\r\nepilogue\r\n"


def generate(seed: int) -> tuple[str, bytes]:
    """A script, and a message with lines that end with CRLF."""
    writer = Writer(seed)
    return writer.script(), writer.message()
