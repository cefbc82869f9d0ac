"""Examples of RFCs 5435, 5436, 8580, 7352, 5703, 6009, 6131, 6558, 6609 and 9042 that ask for what is not everywhere, or
that show what is an error.
"""

import pytest

from tests.rooms.sieve.running import MESSAGE, actions_of, problems_of, run

KNITTING = (
    b"From: Knitting Mailing List <knitting@example.com>\r\nTo: knitting@example.com\r\n"
    b"List-Id: <knitting.example.com>\r\nSubject: [knitting] A new sweater\r\nMessage-ID: <1@example.com>\r\n\r\nHi\r\n"
)
TO_TJS = b"From: ann@example.org\r\nTo: tjs@example.edu\r\nSubject: x\r\nMessage-ID: <2@example.org>\r\n\r\nHi\r\n"
EXAMPLES = [
    (  # by XMPP and telephone nobody is told here, and the script goes on
        "RFC 5435 §5",
        'require ["enotify", "fileinto"]; if notify_method_capability'
        ' "xmpp:tim@example.com?message;subject=SIEVE" "Online" "yes" { notify :importance "1"'
        ' :message "You got mail" "xmpp:tim@example.com?message;subject=SIEVE"; }'
        ' else { notify :message "You got mail" "tel:+14085551212"; } fileinto "behind";',
        MESSAGE,
        ["fileinto behind"],
    ),
    (
        "RFC 5435 §7, by a variable",
        'require ["enotify", "variables"]; set "notif_method" "xmpp:tim@example.com?message;subject=SIEVE;'
        'body=You%20got%20mail"; if header :contains "subject" "Your dog" { set "notif_method" "tel:+14085551212"; }'
        ' if not string :is "${notif_method}" "" { notify "${notif_method}"; }',
        MESSAGE,
        ["implicit keep"],
    ),
    (
        "RFC 5435 §4",
        'require "enotify"; if not valid_notify_method ["mailto:", "http://gw.example.net/notify?test"] { stop; } discard;',
        MESSAGE,
        ["implicit keep"],
    ),
    (
        "RFC 8580 §3.2",
        'require ["enotify", "fcc"]; if notify_method_capability "xmpp:" "fcc" "yes" { notify :fcc "INBOX.Sent"'
        ' :message "You got mail" "xmpp:ken@example.com?message;subject=SIEVE"; } else { notify :fcc "INBOX.Sent"'
        ' :message "You got mail!" "mailto:ken@example.com"; }',
        MESSAGE,
        ["notify ken@example.com", "implicit keep"],
    ),
    (
        "RFC 5703 §4.2",
        'require ["mime", "fileinto"]; if address :mime :is :all "content-from" "tim@example.com"'
        ' { fileinto "INBOX.part-from-tim"; }',
        b"Content-From: Tim <tim@example.com>\r\n" + MESSAGE,
        ["fileinto INBOX.part-from-tim"],
    ),
    (
        "RFC 7352 §5.2",
        'require ["duplicate", "envelope", "variables", "enotify"];'
        ' if envelope :matches "from" "*" { set "sender" "${1}"; }'
        ' if header :matches "subject" "*" { set "subject" "${1}"; }'
        ' if not duplicate :seconds 1800 :uniqueid "${sender}"'
        ' { notify :message "[SIEVE] ${sender}: ${subject}" "xmpp:user@im.example.com"; }',
        MESSAGE,
        ["remember", "implicit keep"],
    ),
    (
        "RFC 6609 §3.4.2",
        'require ["include", "variables", "fileinto"]; set "global.i_am_on_vacation" "1";'
        ' global "i_am_on_vacation"; if string :is "${i_am_on_vacation}" "1" { fileinto "away"; }',
        MESSAGE,
        ["fileinto away"],
    ),
    (
        "RFC 5293 §5",
        'require "editheader"; deleteheader :index 1 :matches "X-Hello" ["hello*world", "hi?there"];'
        ' deleteheader :index 1 :is "X-By" "abc"; deleteheader :index 1 :contains "Delivered-To" "bob@example.com";',
        MESSAGE,
        ["implicit keep"],
    ),
    (
        "RFC 5436 §3",
        'require ["enotify", "variables"]; if header :contains "list-id" "knitting.example.com" {'
        ' if header :matches "Subject" "[*] *" { notify :message "From ${1} list: ${2}" :importance "3"'
        ' "mailto:0123456789@sms.example.net?to=backup@example.com"; } }',
        KNITTING,
        ["notify 0123456789@sms.example.net backup@example.com", "implicit keep"],
    ),
    (  # which means `vacation`, too
        "RFC 6131 §4",
        'require ["vacation-seconds"]; vacation :addresses ["tjs@example.edu", "ts4z@landru.example.edu"] :seconds 1800'
        ' "I am in a meeting, and do not have access to email.";',
        TO_TJS,
        ["reply coyote@desert.example.org", "implicit keep"],
    ),
    (  # at each message
        "RFC 6131 §2",
        'require ["vacation-seconds"]; vacation :seconds 0 :addresses "tjs@example.edu" "away";',
        TO_TJS,
        ["reply coyote@desert.example.org", "implicit keep"],
    ),
    (  # what is not there here: asked for, it does no harm
        "RFC 6009 §4, RFC 6558 §3",
        'require ["ihave", "fileinto"]; if ihave ["envelope-dsn", "redirect-dsn"] { redirect "a@example.com"; stop; }'
        ' if ihave "convert" { discard; stop; } fileinto "plain";',
        MESSAGE,
        ["fileinto plain"],
    ),
]
ERRORS = [
    ("RFC 6009 §1", 'require "redirect-deliverby"; keep;', "'redirect-deliverby'"),
    ("RFC 6558 §2", 'require "convert"; keep;', "'convert'"),
    ("RFC 8580 §3", 'require ["reject", "fcc"]; reject :fcc "foo" "Too big.";', "':fcc'"),
    (
        "RFC 9042 §5",
        'require ["fileinto", "special-use", "mailboxid"]; fileinto :mailboxid "blah" :specialuse "\\\\Junk" "Spam";',
        ":mailboxid or :specialuse",
    ),
]


@pytest.mark.parametrize(("where", "script", "octets", "expected"), EXAMPLES)
def test_an_example_does_what_it_is_an_example_of(
    where: str, script: str, octets: bytes, expected: list[str]
) -> None:
    assert problems_of(script) == []
    assert actions_of(run(script, message=octets)) == expected


@pytest.mark.parametrize(("where", "script", "why"), ERRORS)
def test_what_is_an_error_is_told(where: str, script: str, why: str) -> None:
    (problem,) = problems_of(script)
    assert why in problem
