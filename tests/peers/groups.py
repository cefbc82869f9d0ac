"""What is asked of every server. A group yields `(key, value)`; values are compared between servers."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.peers import corpus, questions
from tests.peers.client import Answer, Client, pairs, parse

MISSING: Final = object()  # this server did not take the question

Found = Iterator[tuple[str, Any]]


def fill(client: Client, mailbox: str, messages: Iterator[tuple[str, bytes]]) -> dict[str, int]:
    """A new mailbox with these messages; their names with sequence numbers, of those that the server took."""
    client.must(b"CREATE %s" % mailbox.encode())
    numbers: dict[str, int] = {}
    for name, message in messages:
        if client.append(mailbox, message).word == "OK":
            numbers[name] = len(numbers) + 1
    client.must(b"SELECT %s" % mailbox.encode())
    return numbers


def fetch(client: Client, number: int, items: bytes) -> dict[str, Any]:
    answer = client.command(b"FETCH %d %s" % (number, items))
    if answer.word != "OK":
        return {"": answer.word}
    found: dict[str, Any] = {}
    for line in answer.values("FETCH"):
        found.update(pairs(line[2]))
    return found


def structure(client: Client) -> Found:
    numbers = fill(client, "INBOX/structure", corpus.structures())
    yield from _structures(client, numbers)


def line_ends(client: Client) -> Found:
    numbers = fill(client, "INBOX/ends", corpus.bare_lf())
    yield from _structures(client, numbers)


def _structures(client: Client, numbers: dict[str, int]) -> Found:
    for name, number in numbers.items():
        found = fetch(client, number, b"(BODY BODYSTRUCTURE RFC822.SIZE)")
        for item in ("BODY", "BODYSTRUCTURE", "RFC822.SIZE"):
            yield f"{name} {item}", normal(found.get(item))


def normal(value: Any) -> Any:
    """Words of media types and the like in upper case, whatever the server likes."""
    if isinstance(value, list):
        return [normal(one) for one in value]
    if isinstance(value, bytes):
        return value.upper()
    return value


SECTIONS: Final = (
    *(
        b"",
        b"HEADER",
        b"TEXT",
        b"1",
        b"1.MIME",
        b"1.HEADER",
        b"1.TEXT",
        b"2",
        b"2.MIME",
        b"3",
        b"1.1",
        b"1.1.MIME",
        b"1.2",
    ),
    *(
        b"1.1.1",
        b"1.1.2",
        b"2.1",
        b"1.HEADER.FIELDS (Subject)",
        b"HEADER.FIELDS (Subject From)",
        b"2.MIME",
        b"4",
        b"5",
        b"6",
    ),
    *(
        b"HEADER.FIELDS (Nonexistent)",
        b"HEADER.FIELDS.NOT (Subject From)",
        b"1.HEADER.FIELDS.NOT (From)",
        b"1.1.TEXT",
        b"9",
    ),
)


def sections(client: Client) -> Found:
    numbers = fill(client, "INBOX/sections", corpus.structures())
    for name, number in numbers.items():
        for section in SECTIONS:
            found = fetch(client, number, b"BODY.PEEK[%s]" % section)
            values = [value for key, value in found.items() if key.startswith("BODY[") or key == ""]
            yield f"{name} [{section.decode()}]", values[0] if values else MISSING


def line_end_sections(client: Client) -> Found:
    numbers = fill(client, "INBOX/lines", corpus.bare_lf())
    for name, number in numbers.items():
        for section in SECTIONS:
            found = fetch(client, number, b"BODY.PEEK[%s]" % section)
            values = [value for key, value in found.items() if key.startswith("BODY[") or key == ""]
            yield f"{name} [{section.decode()}]", values[0] if values else MISSING


def envelope(client: Client) -> Found:
    numbers = fill(client, "INBOX/envelope", corpus.headers())
    names = "DATE SUBJECT FROM SENDER REPLY-TO TO CC BCC IN-REPLY-TO MESSAGE-ID".split()
    for name, number in numbers.items():
        found = fetch(client, number, b"ENVELOPE").get("ENVELOPE") or []
        for field, value in zip(names, found, strict=False):
            yield f"{name} {field}", value


def people(client: Client) -> Found:
    """SEARCH TO, FROM, CC and BCC in addresses of every shape: in the envelope's, and in the names as people read them."""
    for field in ("To", "From", "Cc", "Bcc"):
        shapes = corpus.addressed(field)
        numbers = fill(client, f"INBOX/people{field}", shapes)
        names = {number: name for name, number in numbers.items()}
        for text in questions.PEOPLE:
            octets = text.encode()
            query = b"SEARCH CHARSET UTF-8 %s {%d+}\r\n%s" % (
                field.upper().encode(),
                len(octets),
                octets,
            )
            found = numbers_of(client.command(query))
            for number in numbers.values() if isinstance(found, list) else ():
                yield f"{field} {text!r} in {names[number]}", number in found


def texts(client: Client) -> Found:
    numbers = fill(client, "INBOX/texts", corpus.texts())
    names = {number: name for name, number in numbers.items()}
    for name, number in numbers.items():
        found = fetch(client, number, b"BINARY.PEEK[1]")
        yield f"{name} decoded", found.get("BINARY[1]", found)
    for query in questions.TEXTS:
        octets = query.encode()
        answer = client.command(b"SEARCH CHARSET UTF-8 TEXT {%d+}\r\n%s" % (len(octets), octets))
        matching = numbers_of(answer)
        yield query, [names[n] for n in matching] if isinstance(matching, list) else matching


def search(client: Client) -> Found:
    fill(client, "INBOX/search", iter(()))
    for arguments, message in questions.searched():
        assert client.append("INBOX/search", message, arguments).word == "OK"
    client.must(b"SELECT INBOX/search")
    everything = [one.encode() for one in questions.SEARCHES] + list(questions.LITERAL_SEARCHES)
    for number, query in enumerate(everything):
        yield f"{number} {query.decode()!r}", numbers_of(client.command(b"SEARCH " + query))


def numbers_of(answer: Answer) -> Any:
    """What SEARCH, SORT or ESEARCH told, or the word (and code) of a refusal."""
    if answer.word != "OK":
        return answer.word, answer.code if answer.code in ("BADCHARSET", "NOTSAVED") else ""
    for line in answer.values("SEARCH") + answer.values("SORT"):
        return [int(one) for one in line[1:] if isinstance(one, str) and one.isdigit()]
    for line in answer.values("ESEARCH"):
        return [one for one in line if not isinstance(one, list)]
    return MISSING


def sort(client: Client) -> Found:
    fill(client, "INBOX/sort", iter(()))
    for number, subject in enumerate(questions.SUBJECTS):
        day = 1 + number * 7 % 28
        people = f"From: f{number * 5 % 11}@x\nTo: t{number * 3 % 7}@y\n"
        message = f"{people}Subject: {subject}\nDate: {day} Jan 2024 10:00:00 +0000\n\n"
        assert (
            client.append("INBOX/sort", corpus.crlf(message + "x" * (number * 13 % 40))).word
            == "OK"
        )
    for more in (
        "",
        "Date: nonsense\n",
        "Date: 3 Jan 2024 23:00:00 -0500\nCc: Z <z@z>\n",
        'From: "Q" <a@a>\nCc: c@c\n',
    ):
        client.append("INBOX/sort", corpus.crlf(more + "\nx"), b' "04-Jan-2024 02:00:00 +0000"')
    client.must(b"SELECT INBOX/sort")
    for keys in questions.SORTS:
        yield keys, numbers_of(client.command(b"SORT (%s) UTF-8 ALL" % keys.encode()))
    # which subjects are the same: the groups that THREAD makes of them
    yield "threads", threads_of(client.command(b"THREAD ORDEREDSUBJECT UTF-8 ALL"))


def threads_of(answer: Answer) -> Any:
    if answer.word != "OK":
        return answer.word
    return [line[1:] for line in answer.values("THREAD")]


def thread(client: Client) -> Found:
    for index, (name, messages) in enumerate(questions.THREADS.items()):
        mailbox = f"INBOX/thread{index}"
        fill(client, mailbox, iter(()))
        for number, header in enumerate(messages):
            if "Date:" not in header:
                header += f"Date: {number + 1} Jan 2024 10:00:00 +0000\n"
            assert (
                client.append(mailbox, corpus.crlf("From: a@b\n" + header + "\nx\n")).word == "OK"
            )
        client.must(b"SELECT %s" % mailbox.encode())
        for algorithm in (b"REFERENCES", b"ORDEREDSUBJECT"):
            yield (
                f"{name} {algorithm.decode()}",
                threads_of(client.command(b"THREAD %s UTF-8 ALL" % algorithm)),
            )


TOLD: Final = frozenset(
    r"\NOSELECT \NONEXISTENT \HASCHILDREN \HASNOCHILDREN \NOINFERIORS \SUBSCRIBED".split()
)


def listing(client: Client) -> Found:
    for name in (
        "a",
        "a/b",
        "a/b/c",
        "sp ace",
        "&AOQ-",
        "x.y",
        "gone/child",
        "ab",
        "nosub",
        "nosub/sub",
    ):
        client.command(b'CREATE "INBOX/%s"' % name.encode())
    for name in ("INBOX/a/b", "INBOX/missing/one", "INBOX/nosub/sub", "INBOX/ab", "INBOX/sp ace"):
        client.command(b'SUBSCRIBE "%s"' % name.encode())
    mine = {b"INBOX", *(b"INBOX/" + one for one in questions.MAILBOXES)}
    for word in (b"LIST", b"LSUB"):
        for reference, pattern in questions.PATTERNS:
            query = b"%s %s %s" % (word, reference.encode(), pattern.encode())
            yield query.decode(), rows_of(client.command(query), mine)
    for text in questions.EXTENDED:
        yield "LIST " + text, rows_of(client.command(b"LIST " + text.encode()), mine)


def rows_of(answer: Answer, among: set[bytes]) -> Any:
    if answer.word != "OK":
        return answer.word
    rows = []
    for line in answer.values("LIST") + answer.values("LSUB"):
        name = line[3] if isinstance(line[3], bytes) else str(line[3]).encode()
        shown = {one.upper(): one for one in among}.get(name.upper(), name)
        if shown in among:
            rows.append((shown, sorted(TOLD & set(line[1])), line[4:]))
    return sorted(rows, key=repr)


def bad_commands(client: Client) -> Found:
    fill(
        client, "INBOX/bad", iter([("one", corpus.crlf("From: a@b\nSubject: x\n\nhello world\n"))])
    )
    client.command(b"CREATE INBOX/ra")
    for number, command in enumerate(questions.BAD_COMMANDS):
        answer = client.command(command)
        yield (
            f"{number} {command.decode()!r}",
            (answer.word, answer.code if answer.code in CODES else ""),
        )
        if answer.word == "BYE" or command.startswith(
            (b"SELECT", b"EXAMINE", b"CLOSE", b"UNSELECT")
        ):
            client.command(b"SELECT INBOX/bad")


CODES: Final = frozenset(
    {"TRYCREATE", "BADCHARSET", "ALREADYEXISTS", "NONEXISTENT", "UNKNOWN-CTE", "HASCHILDREN"}
)


def scripts(client: Client) -> Found:
    for index, (name, commands) in enumerate(questions.SCRIPTS.items()):
        mailbox = f"INBOX/script{index}"
        fill(client, mailbox, ((str(n), one) for n, one in enumerate(questions.SCRIPTED)))
        for number, command in enumerate(commands):
            answer = client.command(command.replace("{me}", mailbox).encode())
            yield f"{name} {number} {command[:60]!r}", (answer.word, told(answer))
        client.must(b"SELECT %s" % mailbox.encode())


def told(answer: Answer) -> list[Any]:
    """What was said of messages, without what servers may choose (RECENT, MODSEQ, UIDVALIDITY, when flags are told)."""
    rows: list[Any] = []
    for line in map(parse, answer.untagged):
        if "FETCH" in line[1:2]:
            items = pairs(line[2])
            items.pop("MODSEQ", None)
            if "FLAGS" in items:
                items["FLAGS"] = sorted(set(items["FLAGS"]) - {r"\RECENT"})
            rows.append((line[0], sorted(items.items(), key=repr)))
        elif line[0] in ("STATUS", "SEARCH", "ESEARCH") or line[1:2] == ["EXPUNGE"]:
            rows.append(line if line[0] != "STATUS" else line[2:])
    return rows


GROUPS: Final[dict[str, Callable[[Client], Found]]] = {
    "structure": structure,
    "sections": sections,
    "line_ends": line_ends,
    "line_end_sections": line_end_sections,
    "envelope": envelope,
    "people": people,
    "texts": texts,
    "search": search,
    "sort": sort,
    "thread": thread,
    "list": listing,
    "scripts": scripts,
    "bad_commands": bad_commands,
}
