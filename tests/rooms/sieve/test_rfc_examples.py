"""Scripts as the RFCs show them, shortened where they only repeat: each compiles, and does what its RFC says of it."""

import pytest

from murder.sieve import Circumstances, Notify, Policy, Reply, Scale
from tests.rooms.sieve.running import MESSAGE, NOW, Books, actions_of, problems_of, run

TO_TSS = b"""From: coyote@desert.example.org\r
To: roadrunner@acme.example.com\r
Subject: I have a present for you\r
\r
Look, I'm sorry.\r
"""
EARLY = TO_TSS.replace(b"I have a present for you", b"$$$ Make money fast")


def message(*fields: str, body: str = "text") -> bytes:
    return ("\r\n".join(fields) + f"\r\n\r\n{body}\r\n").encode()


PARTS = (
    b'From: a@example.org\r\nTo: b@example.com\r\nSubject: parts\r\nContent-Type: multipart/mixed; boundary="x"\r\n\r\n'
    b"--x\r\nContent-Type: text/plain\r\n\r\nhello there\r\n"
    b'--x\r\nContent-Type: application/exe; name="a.exe"\r\n'
    b'Content-Disposition: attachment; filename="virus.exe"\r\n\r\nMZ\r\n'
    b"--x\r\nContent-Type: text/html\r\n\r\n<b>bold</b> words\r\n--x--\r\n"
)

EXAMPLES = [
    (
        "RFC 5228 §3.1",
        'require "fileinto"; if header :contains "from" "coyote" { discard; }'
        ' elsif header :contains ["subject"] ["$$$"] { discard; } else { fileinto "INBOX"; }',
        TO_TSS,
        ["discard"],
    ),
    (
        "RFC 5228 §3.1, second",
        'require "fileinto"; if header :contains ["From"] ["me"] { redirect "postmaster@example.com"; }'
        ' elsif header :contains "Subject" "$$$" { fileinto "INBOX.spam"; } else { keep; }',
        EARLY,
        ["fileinto INBOX.spam"],
    ),
    (
        "RFC 5228 §4.1",
        'require "fileinto"; if header :contains ["from"] "coyote" { fileinto "INBOX.harassment"; }',
        TO_TSS,
        ["fileinto INBOX.harassment"],
    ),
    ("RFC 5228 §4.2", 'redirect "bart@example.com";', TO_TSS, ["redirect bart@example.com"]),
    (
        "RFC 5228 §4.4",
        'if header :contains ["from"] ["idiot@example.com"] { discard; }',
        TO_TSS,
        ["implicit keep"],
    ),
    (
        "RFC 5228 §5.1",
        'if address :is :all "from" "tim@example.com" { discard; }',
        message("From: Tim <tim@example.com>"),
        ["discard"],
    ),
    (
        "RFC 5228 §5.4",
        'require "envelope"; if envelope :all :is "from" "coyote@desert.example.org" { discard; }',
        TO_TSS,
        ["discard"],
    ),
    ("RFC 5228 §5.5", 'if not exists ["From","Date"] { discard; }', TO_TSS, ["discard"]),
    (
        "RFC 5228 §5.7",
        'if header :is ["X-Caffeine", "X-Decaf"] [""] { discard; }',
        message("From: a@b.org", "X-Caffeine: C8H10N4O2"),
        ["implicit keep"],
    ),
    ("RFC 5228 §5.9", "if size :over 100K { discard; }", TO_TSS, ["implicit keep"]),
    (
        "RFC 5228 §2.4.2.4",
        'require ["variables", "encoded-character", "fileinto"];'
        ' if string "$${hex:40}" "$@" { fileinto "${unicode:40}x${hex: 40 }"; }',
        TO_TSS,
        ["fileinto @x@"],
    ),
    (
        "RFC 5228 §9",
        'require ["fileinto"]; if header :is "Sender" "owner-ietf-mta-filters@imc.org" { fileinto "filter"; }'
        ' elsif address :DOMAIN :is ["From", "To"] "example.com" { keep; }'
        ' elsif anyof (NOT address :all :contains ["To", "Cc", "Bcc"] "me@example.com",'
        ' header :matches "subject" ["*make*money*fast*", "*university*dipl*mas*"]) { fileinto "spam"; }'
        ' else { fileinto "personal"; }',
        message("From: x@y.org", "To: me@example.org", "Subject: make MONEY fast"),
        ["fileinto spam"],
    ),
    (
        "RFC 5229 §3.1",
        'require ["fileinto", "variables"]; if header :matches "List-ID" "*<*@*" '
        '{ fileinto "INBOX.lists.${2}"; stop; }',
        message("From: a@b.org", "List-ID: My list <dev@lists.example.org>"),
        ["fileinto INBOX.lists.dev"],
    ),
    (
        "RFC 5229 §3.2",
        'require ["fileinto", "variables"]; if address :matches ["To", "Cc"] ["coyote@**.com",'
        ' "wile@**.com"] { fileinto "INBOX.business.${2}"; stop; } else { stop; }',
        message("To: coyote@ACME.Example.COM"),
        ["fileinto INBOX.business.ACME.Example"],
    ),
    (
        "RFC 5229 §4.1.1",
        'require ["fileinto", "variables"]; set "a" "juMBlE lETteRS"; set :upperfirst :lower "b" "${a}";'
        ' fileinto "${b}";',
        TO_TSS,
        ["fileinto Jumble letters"],
    ),
    (
        "RFC 5230 §4.6",
        'require "vacation"; vacation :addresses ["roadrunner@acme.example.com", "x@y.example"] "away";',
        TO_TSS,
        ["reply coyote@desert.example.org", "implicit keep"],
    ),
    (
        "RFC 5230 §4.6, list",
        'require "vacation"; vacation "away";',
        message("From: a@b.org", "To: roadrunner@acme.example.com", "List-Id: <x.y>"),
        ["implicit keep"],
    ),
    (
        "RFC 5231 §7.1",
        'require ["relational", "comparator-i;ascii-numeric"]; if header :value "lt" :comparator'
        ' "i;ascii-numeric" ["x-priority"] ["3"] { discard; }',
        message("x-priority: 2"),
        ["discard"],
    ),
    (
        "RFC 5231 §7.2",
        'require ["relational", "comparator-i;ascii-numeric", "fileinto"]; if address :count "gt"'
        ' :comparator "i;ascii-numeric" ["to"] ["5"] { fileinto "SPAM"; }',
        message("To: " + ", ".join(f"a{n}@b.org" for n in range(6))),
        ["fileinto SPAM"],
    ),
    (
        "RFC 5232 §3.2",
        'require ["fileinto", "imap4flags", "relational"]; addflag "\\\\Deleted"; addflag ["$Fwd", "\\\\Answered"];'
        ' removeflag "\\\\Deleted"; fileinto "log"; setflag "\\\\Seen"; keep;',
        TO_TSS,
        ["fileinto log [$Fwd \\Answered]", "keep [\\Seen]"],
    ),
    (
        "RFC 5232 §6",
        'require ["fileinto", "imap4flags", "variables"]; if size :over 1M { addflag "MyFlags" "Big"; }'
        ' addflag "MyFlags" "b"; fileinto :flags "${MyFlags}" "Big messages";',
        TO_TSS,
        ["fileinto Big messages [b]"],
    ),
    (
        "RFC 5233 §5",
        'require ["envelope", "subaddress", "fileinto"]; if anyof(envelope :detail "to" "x", address :detail'
        ' "to" "mta-filters", envelope :user "to" "roadrunner") { fileinto "sub"; }',
        TO_TSS,
        ["fileinto sub"],
    ),
    (
        "RFC 5173 §6",
        'require ["body", "fileinto"]; if body :raw :contains "MAKE MONEY FAST" { discard; }'
        ' if body :content "text" :contains ["sorry"] { fileinto "project"; }',
        TO_TSS,
        ["fileinto project"],
    ),
    (
        "RFC 5260 §4.3",
        'require ["date", "relational"]; if allof(header :is "from" "boss@example.com", date :value "ge"'
        ' :originalzone "date" "hour" "09", date :value "lt" :originalzone "date" "hour" "17") { discard; }',
        message("From: boss@example.com", "Date: Tue, 3 Mar 2026 16:59:00 -0500"),
        ["discard"],
    ),
    (
        "RFC 5260 §5",
        'require ["date", "relational", "fileinto"]; if allof(currentdate :value "ge" "date" "2026-03-01",'
        ' currentdate :value "le" "date" "2026-03-01") { fileinto "now"; }'
        ' if currentdate :is "weekday" "0" { fileinto "sunday"; }',
        TO_TSS,
        ["fileinto now", "fileinto sunday"],
    ),
    (
        "RFC 5260 §7",
        'require ["date", "relational", "index"]; if date :value "gt" :index 2 :zone "-0500" "received"'
        ' "iso8601" "2007-02-26T09:00:00-05:00" { redirect "aftercutoff@example.org"; }',
        message(
            "Received: x; Mon, 26 Feb 2007 00:00:00 +0000",
            "Received: y; Mon, 26 Feb 2007 15:00:01 +0000",
        ),
        ["redirect aftercutoff@example.org"],
    ),
    (
        "RFC 5293 §4",
        'require ["editheader", "fileinto"]; addheader "X-Sieve-Filtered" "<kim@job.example.com>";'
        ' if header :contains "x-sieve-filtered" "kim@job" { fileinto "seen"; }',
        TO_TSS,
        ["fileinto seen"],
    ),
    (
        "RFC 5429 §2.1",
        'require "reject"; if header :contains "from" "coyote@desert.example.org" { reject "not welcome"; }',
        TO_TSS,
        ["reject not welcome"],
    ),
    (
        "RFC 5429 §2.2",
        'require "ereject"; if address "from" "coyote@desert.example.org" { ereject "no"; }',
        TO_TSS,
        ["reject no"],
    ),
    (
        "RFC 5435 §3.8",
        'require ["enotify", "fileinto", "variables"]; if header :contains "from" "coyote" '
        '{ notify :importance "3" "mailto:alm@example.com?subject=Cam"; }'
        ' if header :matches "subject" "*" { set "subject" "${1}"; }',
        TO_TSS,
        ["notify alm@example.com", "implicit keep"],
    ),
    (
        "RFC 5435 §4",
        'require "enotify"; if valid_notify_method ["mailto:x@example.com", "xmpp:y"] { stop; } discard;',
        TO_TSS,
        ["discard"],
    ),
    (
        "RFC 5463 §4",
        'require ["ihave", "fileinto"]; if ihave "editheader" { discard; } if ihave "x-unknown" '
        '{ unknown "a"; } else { fileinto "without"; }',
        TO_TSS,
        ["fileinto without"],
    ),
    (
        "RFC 5490 §3.1",
        'require ["fileinto", "reject", "mailbox"]; if mailboxexists "Partners" { fileinto "Partners"; }'
        ' else { fileinto :create "New"; }',
        TO_TSS,
        ["fileinto New"],
    ),
    (
        "RFC 3894 §3",
        'require ["copy", "fileinto"]; if header :contains "Subject" "present" { redirect :copy'
        ' "me@example.com"; } fileinto :copy "incoming";',
        TO_TSS,
        ["redirect me@example.com", "fileinto incoming", "implicit keep"],
    ),
    (
        "RFC 5183 §4.2",
        'require "environment"; if environment :is "location" "MDA" { discard; }',
        TO_TSS,
        ["discard"],
    ),
    (
        "RFC 6134 §2.7",
        'require ["envelope", "extlists", "fileinto"]; if envelope :list "from" ":addrbook:default" '
        '{ fileinto "known"; } if valid_ext_list "none" { discard; }',
        TO_TSS,
        ["fileinto known"],
    ),
    (
        "RFC 6134 §2.3",
        'require "extlists"; redirect :list "tag:example.com,2009-05-28:mylist";',
        TO_TSS,
        ["redirect a@list.example", "redirect b@list.example"],
    ),
    (
        "RFC 6609 §3.1",
        'require "include"; include :personal "always_allow"; include :global "spam_tests"; keep;',
        TO_TSS,
        ["fileinto global spam", "keep"],
    ),
    (
        "RFC 6609 §3.4",
        'require ["fileinto", "include", "variables", "relational"]; global ["test", "test-mailbox"];'.replace(
            ', "test-mailbox"', ""
        )
        + ' set "test" "$$"; include "subject_tests"; if string "${test}" "found" { fileinto "found"; }',
        TO_TSS,
        ["fileinto found"],
    ),
    (
        "RFC 7352 §3.1",
        'require ["duplicate", "fileinto", "mailbox"]; if duplicate { fileinto :create "Trash/Duplicate"; }',
        MESSAGE,
        ["remember", "implicit keep"],
    ),
    (
        "RFC 8579 §4",
        'require ["fileinto", "special-use", "mailbox"]; if specialuse_exists "\\\\Junk" '
        '{ fileinto :specialuse "\\\\Junk" :create "Spam"; }',
        TO_TSS,
        ["fileinto Spam"],
    ),
    (
        "RFC 9042 §3",
        'require ["fileinto", "mailboxid", "mailbox"]; if mailboxidexists "F6352ae03" '
        '{ fileinto :mailboxid "F6352ae03" :create "INBOX.harassment"; }',
        TO_TSS,
        ["fileinto INBOX.harassment"],
    ),
    (
        "RFC 5703 §4.1",
        'require ["mime", "fileinto"]; if header :mime :anychild :param "filename" :contains'
        ' "Content-Disposition" [".exe", ".com"] { fileinto "INBOX.attachments"; }'
        ' if header :mime :anychild :subtype "Content-Type" "html" { fileinto "html"; }'
        ' if header :mime :contenttype "Content-Type" "multipart/mixed" { fileinto "mixed"; }',
        PARTS,
        ["fileinto INBOX.attachments", "fileinto html", "fileinto mixed"],
    ),
    (
        "RFC 5703 §7",
        'require ["mime", "variables", "extracttext", "foreverypart", "fileinto"]; foreverypart { if header'
        ' :mime :contenttype "Content-Type" "text/html" { extracttext :first 100 "msgcontent"; break; } }'
        ' fileinto "${msgcontent}";',
        PARTS,
        ["fileinto bold words"],
    ),
    (
        "RFC 5235 §2.3",
        'require ["spamtest", "relational", "comparator-i;ascii-numeric", "fileinto"]; if spamtest :value'
        ' "eq" :comparator "i;ascii-numeric" "0" { fileinto "unclassified"; } elsif spamtest :value "ge"'
        ' :comparator "i;ascii-numeric" "3" { fileinto "spam"; }',
        message("X-Spam-Score: 8.5"),
        ["fileinto spam"],
    ),
    (
        "RFC 5235 §2.3, percent",
        'require ["spamtestplus", "relational", "comparator-i;ascii-numeric", "fileinto"]; if spamtest :percent'
        ' :value "gt" :comparator "i;ascii-numeric" "37" { fileinto "spam"; }',
        message("X-Spam-Score: 8.5"),
        ["fileinto spam"],
    ),
    (
        "RFC 5235 §3.1",
        'require ["virustest", "relational", "comparator-i;ascii-numeric"]; if virustest :value "eq"'
        ' :comparator "i;ascii-numeric" "5" { discard; }',
        message("X-Virus: infected"),
        ["discard"],
    ),
    (
        "RFC 5490 §3.3",
        'require ["mboxmetadata", "fileinto"]; if metadata :is "INBOX" "/private/vendor/x/auto" "on" '
        '{ fileinto "auto"; }',
        TO_TSS,
        ["fileinto auto"],
    ),
    (
        "RFC 5490 §4.1",
        'require ["servermetadata", "fileinto"]; if servermetadataexists "/private/no" { discard; }'
        ' if servermetadata :contains "/shared/comment" "maintenance" { fileinto "late"; }',
        TO_TSS,
        ["fileinto late"],
    ),
]


def books() -> Books:
    return Books(
        mailbox_ids={"F6352ae03"},
        uses={"\\Junk": "Spam"},
        metadata={
            ("INBOX", "/private/vendor/x/auto"): "on",
            (None, "/shared/comment"): "maintenance at noon",
        },
        lists={
            ":addrbook:default": {"coyote@desert.example.org"},
            "tag:example.com,2009-05-28:mylist": {"a@list.example", "b@list.example"},
        },
        scripts={
            ("always_allow", False): b'if header "from" "nobody" { keep; stop; }',
            (
                "spam_tests",
                True,
            ): b'require "fileinto"; if exists "subject" { fileinto "global spam"; }',
            ("subject_tests", False): b'require ["include", "variables"]; global "test";'
            b' if string "${test}" "$$" { set "test" "found"; }',
        },
    )


POLICY = Policy(
    spam=Scale("X-Spam-Score", maximum="10"),
    virus=Scale("X-Virus", kind="text", texts={1: "clean", 5: "infected"}),
)


@pytest.mark.parametrize(("where", "script", "octets", "expected"), EXAMPLES)
def test_an_example_does_what_it_is_an_example_of(
    where: str, script: str, octets: bytes, expected: list[str]
) -> None:
    assert problems_of(script) == []
    assert actions_of(run(script, message=octets, books=books(), policy=POLICY)) == expected


def test_a_reply_is_a_whole_message_and_has_the_same_key_again() -> None:
    script = 'require ["vacation", "vacation-seconds"]; vacation :seconds 100000 :subject "Weg" "Bin fort: é";'
    outcome = run(script, message=MESSAGE)
    reply = outcome.actions[0]
    assert isinstance(reply, Reply)
    assert reply.once.period_s == 100_000
    header, _, body = reply.octets.partition(b"\r\n\r\n")
    assert body == "Bin fort: é\r\n".encode()
    lines = header.split(b"\r\n")
    assert b"From: <roadrunner@acme.example.com>" in lines
    assert b'To: "Coyote" <coyote@desert.example.org>' in lines
    assert b"Subject: Weg" in lines
    assert b"In-Reply-To: <one@desert.example.org>" in lines
    assert b"Auto-Submitted: auto-replied (vacation)" in lines
    assert b"Date: Sun, 01 Mar 2026 12:30:05 +0000" in lines
    assert run(script, message=MESSAGE).actions[0] == reply


def test_nobody_is_answered_who_would_be_annoyed() -> None:
    script = 'require "vacation"; vacation "away";'
    for sender, field in (
        ("", b""),
        ("mailer-daemon@example.org", b""),
        ("owner-list@example.org", b""),
        ("roadrunner@acme.example.com", b""),
        ("a@b.org", b"Precedence: bulk\r\n"),
        ("a@b.org", b"Auto-Submitted: auto-generated\r\n"),
        ("a@b.org", b"X-Auto-Response-Suppress: OOF\r\n"),
    ):
        outcome = run(script, message=field + MESSAGE, sender=sender)
        assert actions_of(outcome) == ["implicit keep"], (sender, field)
        assert outcome.notes


def test_a_copy_of_a_reply_is_filed() -> None:
    script = (
        'require ["vacation", "fcc", "mailbox", "imap4flags"];'
        ' vacation :fcc "Sent" :create :flags "\\\\seen" "away";'
    )
    reply = run(script).actions[0]
    assert isinstance(reply, Reply)
    assert reply.copy is not None
    assert (reply.copy.mailbox, reply.copy.create, reply.copy.flags) == ("Sent", True, ("\\Seen",))


def test_a_notification_tells_each_recipient_once() -> None:
    script = (
        'require "enotify"; notify :message "One" "mailto:a@b.org,c@d.org?cc=a@b.org";'
        ' notify :importance "1" "mailto:c@d.org,e@f.org";'
    )
    one, other = run(script).actions[:2]
    assert isinstance(one, Notify)
    assert isinstance(other, Notify)
    assert one.recipients == ("a@b.org", "c@d.org")
    assert other.recipients == ("e@f.org",)
    assert b"Subject: One\r\n" in one.octets
    assert b"Importance: high\r\n" in other.octets


def test_drafts_that_scripts_still_have_are_understood() -> None:
    script = (
        'require "notify"; notify :id "a" :message "$from$: $text[4]$" :options "a@b.org";'
        ' notify :id "b" :high :options "c@d.org"; denotify :is "b";'
    )
    outcome = run(script)
    assert actions_of(outcome) == ["notify a@b.org", "implicit keep"]
    told = outcome.actions[0]
    assert isinstance(told, Notify)
    assert told.octets.endswith(b"\r\n\r\nCoyote <coyote@desert.example.org>: Look\r\n")
    assert problems_of('require ["notify", "enotify"];') == [
        "1:1 require command: 'enotify' and 'notify' cannot be used in one script"
    ]
    assert actions_of(run('require "imapflags"; addflag "x"; mark;')) == [
        "implicit keep [x \\Flagged]"
    ]


def test_a_message_is_edited_for_what_comes_behind() -> None:
    script = (
        'require ["editheader", "fileinto"]; fileinto "before"; addheader "X-One" "1";'
        ' deleteheader :index 1 :last "received"; deleteheader "received"; deleteheader "subject"; fileinto "after";'
    )
    outcome = run(script, message=b"Received: x\r\n" + MESSAGE)
    before, after = outcome.actions
    octets = [bytes(outcome.messages[action.version]) for action in (before, after)]  # type: ignore[union-attr] # they have
    assert octets[0] == b"Received: x\r\n" + MESSAGE
    assert octets[1] == b"X-One: 1\r\nReceived: x\r\n" + MESSAGE.replace(
        b"Subject: I have a present for you\r\n", b""
    )


def test_a_part_is_replaced_and_the_others_stay() -> None:
    script = (
        'require ["foreverypart", "mime", "replace"]; foreverypart {'
        ' if header :mime :type "Content-Type" "application" { replace "gone"; }'
        ' if header :mime :contenttype "Content-Type" "text/html" { replace :mime text:\n'
        "Content-Type: text/plain\n\nplain words\n.\n; } }"
    )
    outcome = run(script, message=PARTS)
    assert actions_of(outcome) == ["implicit keep"]
    octets = bytes(outcome.messages[1])
    assert b"hello there" in octets
    assert b"MZ" not in octets
    assert b"gone\r\n--x\r\n" in octets
    assert octets.endswith(b"plain words\r\n--x--\r\n")


def test_a_loop_goes_on_over_its_parts_when_the_header_is_edited() -> None:
    script = (
        'require ["foreverypart", "mime", "extracttext", "variables", "editheader", "replace", "fileinto"];'
        ' foreverypart { addheader "X-Long" "a field that moves all of the body"; extracttext "t";'
        ' if string :contains "${t}" "hello" { fileinto "${t}"; replace "other"; }'
        ' if string :contains "${t}" "bold" { fileinto "${t}"; } }'
    )
    outcome = run(script, message=PARTS)
    assert actions_of(outcome) == ["fileinto hello there", "fileinto bold words"]
    assert b"\r\n\r\nother\r\n--x\r\n" in bytes(outcome.messages[-1])


def test_a_message_is_enclosed() -> None:
    script = (
        'require ["enclose", "mime", "body", "fileinto"]; enclose :subject "Warning" :headers ["X-A: b"] "Careful.";'
        ' if allof(body :content "message/rfc822" :contains "I have a present", header "subject" "Warning",'
        ' header "x-a" "b", body :text :contains "Careful") { fileinto "enclosed"; }'
    )
    outcome = run(script, message=MESSAGE)
    assert actions_of(outcome) == ["fileinto enclosed"]
    assert MESSAGE in bytes(outcome.messages[1])


def test_all_of_a_message_is_replaced() -> None:
    script = 'require "replace"; replace :subject "New" "Other text";'
    octets = bytes(run(script, message=MESSAGE).messages[1])
    assert b"Original-Subject: I have a present for you\r\n" in octets
    assert b"\r\nSubject: New\r\n" in octets
    assert octets.endswith(b"\r\n\r\nOther text\r\n")


def test_what_is_rejected_goes_nowhere_else() -> None:
    for other in ("keep;", 'redirect "a@b.org";'):
        outcome = run(f'require "reject"; {other} reject "no";')
        assert outcome.failure is not None
        assert [type(action).__name__ for action in outcome.actions] == ["Keep"]


def test_an_event_of_imap_has_its_items_and_no_replies() -> None:
    known = Circumstances(
        NOW, "ana", environment={"imap.cause": "COPY"}, flags=("\\Seen",), may_reply=False
    )
    script = (
        'require ["imapsieve", "environment", "imap4flags"]; if allof(environment "imap.cause" "COPY",'
        ' hasflag "\\\\seen") { addflag "$Learnt"; }'
    )
    assert actions_of(run(script, circumstances=known)) == ["implicit keep [\\Seen $Learnt]"]
    outcome = run('require "vacation"; vacation "x";', circumstances=known)
    assert outcome.failure is not None


def test_includes_are_bounded_and_do_not_go_round() -> None:
    script = b'require "include"; include "me";'
    outcome = run(script.decode(), books=Books(scripts={("me", False): script}))
    assert actions_of(outcome) == ["failure circular include of script 'me'"]
    assert outcome.failure is not None
    assert outcome.failure.include == "me"
    assert actions_of(run('require "include"; include :optional "none";')) == ["implicit keep"]
    assert "does not exist" in actions_of(run('require "include"; include "none";'))[0]
    bad = Books(scripts={("bad", False): b"nonsense;"})
    assert "line 1, column 1" in actions_of(run('require "include"; include "bad";', books=bad))[0]


def test_one_include_ends_with_return_and_all_with_stop() -> None:
    scripts = {("r", False): b'require "include"; return; discard;', ("s", False): b"stop;"}
    script = 'require "include"; include "r"; redirect "a@b.org"; include "s"; redirect "c@d.org";'
    assert actions_of(run(script, books=Books(scripts=scripts))) == ["redirect a@b.org"]


def test_programs_are_run_only_where_a_site_has_some() -> None:
    assert problems_of('require "vnd.dovecot.filter";')
    asked: list[tuple[str, str, tuple[str, ...]]] = []

    def run_program(kind: str, name: str, arguments: object, octets: bytes) -> bytes | None:
        asked.append((kind, name, tuple(arguments)))  # type: ignore[arg-type] # they are texts
        return b"X-Filtered: yes\r\n" + octets if name == "mark" else None

    script = (
        'require ["vnd.dovecot.filter", "vnd.dovecot.execute", "vnd.dovecot.pipe", "copy", "variables", "fileinto"];'
        ' if filter "none" { stop; } filter "mark" ["a"]; execute :input "b" :output "o" "mark";'
        ' if header "x-filtered" "yes" { fileinto "${o}"; } pipe :copy "learn" "spam";'
    )
    outcome = run(script.replace("${o}", "done"), books=Books(run_program=run_program))
    assert actions_of(outcome) == ["fileinto done", "pipe learn"]
    assert bytes(outcome.messages[1]) == b"X-Filtered: yes\r\n" + MESSAGE
    assert asked == [("filter", "none", ()), ("filter", "mark", ("a",)), ("execute", "mark", ())]
    assert actions_of(run('require "vnd.dovecot.filter"; filter "none";')) == [
        "failure filter command: the program 'none' failed"
    ]
    for name in ("../x", "-x", "a/b", ""):
        assert problems_of(
            f'require "vnd.dovecot.pipe"; pipe "{name}";', capabilities={"vnd.dovecot.pipe"}
        )
