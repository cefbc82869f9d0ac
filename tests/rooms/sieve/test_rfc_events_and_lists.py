"""What RFC 6134 (external lists), RFC 6785 (events of IMAP) and RFC 8580 (copies of what is sent) have as examples, each
with messages for which it does something, and for which it does not."""

from collections.abc import Mapping

import pytest

from murder.sieve import Circumstances, Notify, Policy, Reply, Scale
from tests.rooms.sieve.running import MESSAGE, NOW, Books, actions_of, problems_of, run

POLICY = Policy(spam=Scale("X-Spam", maximum="10"))
LIST = "tag:example.com,2010-05-28:mylist"
BOOKS = Books(
    lists={
        ":addrbook:default": {"coyote@desert.example.org"},
        ":addrbook:personal?label=Family": {"coyote@desert.example.org"},
        "tag:example.com,2011-01-01:localHolidays": {"2026-03-01"},
        LIST: {"coyote@desert.example.org", "roadrunner@acme.example.com"},
        "tag:example.com,2011-04-10:DisallowedIPs": {"192.0.2.7"},
        "tag:example.com,2011-04-10:BadFileNameExts": {"evil.exe"},
    }
)
TOLERANT = """require ["envelope", "extlists", "fileinto", "spamtest", "relational", "comparator-i;ascii-numeric"];
if envelope :list "from" ":addrbook:default" {
    if spamtest :value "ge" :comparator "i;ascii-numeric" "8" { fileinto "spam"; }
} elsif spamtest :value "ge" :comparator "i;ascii-numeric" "3" { fileinto "spam"; }"""
LIMIT = """require ["envelope", "extlists", "fileinto", "spamtest", "relational", "variables",
    "comparator-i;ascii-numeric"];
if envelope :list "from" ":addrbook:default" { set "lim" "8"; } else { set "lim" "3"; }
if spamtest :value "ge" :comparator "i;ascii-numeric" "${lim}" { fileinto "spam"; }"""
HOLIDAYS = """require ["extlists", "date", "enotify"];
if currentdate :list "date" "tag:example.com,2011-01-01:localHolidays" { notify "mailto:romeo@im.example.com"; }"""
MEMBERS = f"""require ["extlists", "envelope", "subaddress"];
if allof (envelope :detail "to" "mylist", header :list "from" "{LIST}") {{ redirect :list "{LIST}"; }}"""
WITHOUT = """require ["variables", "extlists", "index", "reject"];
if header :index 1 :matches "received" "*(* [*.*.*.*])*" {
    set "ip" "${3}.${4}.${5}.${6}";
    if string :list "${ip}" "tag:example.com,2011-04-10:DisallowedIPs" { reject "not from there"; }
}"""
PARTS = """require ["extlists", "foreverypart", "mime", "fileinto"];
foreverypart {
    if header :mime :param "filename" :list ["Content-Type", "Content-Disposition"]
        "tag:example.com,2011-04-10:BadFileNameExts" { fileinto "Warnings"; break; }
}"""
FAMILY = f"""require ["extlists", "copy"];
if address :list "from" ":addrbook:personal?label=Family" {{ redirect :copy :list "{LIST}"; }}"""


def with_head(head: str) -> bytes:
    return head.encode().replace(b"\n", b"\r\n") + MESSAGE


def with_part(name: str) -> bytes:
    text = f"""From: a@b.org
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=x

--x

text
--x
Content-Disposition: attachment; filename={name}

octets
--x--
"""
    return text.encode().replace(b"\n", b"\r\n")


KNOWN, STRANGER = "coyote@desert.example.org", "else@example.net"
KEPT, SPAM = ["implicit keep"], ["fileinto spam"]
LIST_ADDRESS = "roadrunner+mylist@acme.example.com"
BARE = MESSAGE.replace(b"Coyote <coyote@desert.example.org>", b"coyote@desert.example.org")


@pytest.mark.parametrize(
    ("script", "octets", "sender", "recipient", "expected"),
    [
        (TOLERANT, with_head("X-Spam: 5\n"), KNOWN, "", KEPT),
        (TOLERANT, with_head("X-Spam: 9\n"), KNOWN, "", SPAM),
        (TOLERANT, with_head("X-Spam: 5\n"), STRANGER, "", SPAM),
        (LIMIT, with_head("X-Spam: 5\n"), KNOWN, "", KEPT),
        (LIMIT, with_head("X-Spam: 5\n"), STRANGER, "", SPAM),
        (HOLIDAYS, MESSAGE, KNOWN, "", ["notify romeo@im.example.com", *KEPT]),
        (
            MEMBERS,
            BARE,
            KNOWN,
            LIST_ADDRESS,
            [f"redirect {KNOWN}", "redirect roadrunner@acme.example.com"],
        ),
        (MEMBERS, BARE, KNOWN, "roadrunner@acme.example.com", KEPT),
        (MEMBERS, MESSAGE.replace(b"coyote", b"else"), KNOWN, LIST_ADDRESS, KEPT),
        (
            WITHOUT,
            with_head("Received: from x (x [192.0.2.7]) by y\n"),
            KNOWN,
            "",
            ["reject not from there"],
        ),
        (WITHOUT, with_head("Received: from x (x [192.0.2.8]) by y\n"), KNOWN, "", KEPT),
        (PARTS, with_part("evil.exe"), KNOWN, "", ["fileinto Warnings"]),
        (PARTS, with_part("good.txt"), KNOWN, "", KEPT),
        (
            FAMILY,
            MESSAGE,
            KNOWN,
            "",
            [f"redirect {KNOWN}", "redirect roadrunner@acme.example.com", *KEPT],
        ),
        (FAMILY, MESSAGE.replace(b"coyote", b"else"), KNOWN, "", KEPT),
    ],
)
def test_lists_that_are_kept_elsewhere(
    script: str, octets: bytes, sender: str, recipient: str, expected: list[str]
) -> None:
    assert problems_of(script) == []
    to = recipient or "roadrunner@acme.example.com"
    outcome = run(script, message=octets, sender=sender, recipient=to, books=BOOKS, policy=POLICY)
    assert actions_of(outcome) == expected


ITEMS = """require ["copy", "environment", "imapsieve"];
if anyof (environment :is "imap.cause" "APPEND", environment :is "imap.cause" "COPY") {
    if environment :is "imap.mailbox" "ActionItems" { redirect :copy "actionitems@example.com"; }
}"""
FLAGGED = """require ["enotify", "imap4flags", "variables", "environment", "imapsieve"];
if environment :matches "imap.mailbox" "*" { set "mailbox" "${1}"; }
if allof (hasflag "\\\\Flagged", environment :contains "imap.changedflags" "\\\\Flagged") {
    notify :message "Important message in ${mailbox}" "mailto:tim@example.com";
}"""


@pytest.mark.parametrize(
    ("script", "event", "flags", "expected"),
    [
        (
            ITEMS,
            {"cause": "APPEND", "mailbox": "ActionItems"},
            (),
            ["redirect actionitems@example.com"],
        ),
        (
            ITEMS,
            {"cause": "COPY", "mailbox": "ActionItems"},
            (),
            ["redirect actionitems@example.com"],
        ),
        (ITEMS, {"cause": "FLAG", "mailbox": "ActionItems"}, (), []),
        (ITEMS, {"cause": "APPEND", "mailbox": "Other"}, (), []),
        (
            FLAGGED,
            {"cause": "FLAG", "mailbox": "Work", "changedflags": "\\Flagged"},
            ("\\Flagged",),
            ["notify tim@example.com"],
        ),
        (
            FLAGGED,
            {"cause": "FLAG", "mailbox": "Work", "changedflags": "\\Flagged"},
            ("\\Seen",),
            [],
        ),
        (
            FLAGGED,
            {"cause": "FLAG", "mailbox": "Work", "changedflags": "\\Seen"},
            ("\\Flagged",),
            [],
        ),
    ],
)
def test_what_clients_do_by_imap(
    script: str, event: Mapping[str, str], flags: tuple[str, ...], expected: list[str]
) -> None:
    assert problems_of(script) == []
    items = {f"imap.{item}": value for item, value in event.items()}
    known = Circumstances(NOW, "tim", environment=items, flags=flags, may_reply=False)
    outcome = run(script, circumstances=known)
    kept = f"implicit keep [{' '.join(flags)}]"
    assert [one for one in actions_of(outcome) if not one.startswith("implicit keep")] == expected
    assert actions_of(outcome)[-1] in (kept, *KEPT)
    for action in outcome.actions:
        if isinstance(action, Notify):
            assert b"Subject: Important message in Work\r\n" in action.octets


AWAY = 'vacation :days 7 :from "hemingway@example.com" %s "Gone fishing";'


@pytest.mark.parametrize(
    ("words", "script", "target"),
    [
        ((), AWAY % ':fcc "INBOX.Sent"', ("INBOX.Sent", False, "", "", ())),
        (("mailbox",), AWAY % ':fcc "INBOX.Sent" :create', ("INBOX.Sent", True, "", "", ())),
        (
            ("imap4flags",),
            AWAY % ':fcc "INBOX.Sent" :flags ["\\\\Seen"]',
            ("INBOX.Sent", False, "", "", ("\\Seen",)),
        ),
        (
            ("special-use", "mailbox"),
            AWAY % ':fcc "INBOX.Sent" :specialuse "\\\\Sent" :create',
            ("INBOX.Sent", True, "", "\\Sent", ()),
        ),
        (
            ("mailboxid",),
            AWAY % ':fcc "INBOX.Sent" :mailboxid "F1"',
            ("INBOX.Sent", False, "F1", "", ()),
        ),
        (
            ("enotify",),
            'notify :fcc "INBOX.Sent" :message "Call me" "mailto:ernest@example.com";',
            ("INBOX.Sent", False, "", "", ()),
        ),
    ],
)
def test_copies_of_what_is_sent(
    words: tuple[str, ...], script: str, target: tuple[object, ...]
) -> None:
    word = "enotify" if "enotify" in words else "vacation"
    whole = f'require ["fcc", "{word}"{"".join(f", {chr(34)}{one}{chr(34)}" for one in words if one != word)}]; {script}'
    assert problems_of(whole) == []
    sent = run(whole).actions[0]
    assert isinstance(sent, Reply | Notify) and sent.copy is not None
    copy = sent.copy
    assert (copy.mailbox, copy.create, copy.mailbox_id, copy.special_use, copy.flags) == target
    for needed in words:  # and each word of it wants its extension
        assert problems_of(whole.replace(f', "{needed}"', "")) != []
    assert problems_of(whole.replace('"fcc", ', "")) != []
