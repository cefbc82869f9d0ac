"""Whatever a peer sends, a parser of `murder.wire` reads it or says BadSyntax or Refusal: no other error leaves one.

The parsers are found, not listed: each public `parse_*` and `announced_by` of the room, by the type of its first argument.
"""

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import murder.wire
from murder.errors import BadSyntax, Refusal
from murder.wire import dlist, haproxy, mupdate
from murder.wire.imap.mail.append import AppendForm
from murder.wire.imap.mail.copy import parse_removed
from murder.wire.imap.mail.fetched import Fetched, parse_fetch_response
from murder.wire.nodes import carry
from murder.wire.token import Scanner

WORDS: Final = [
    *b'( ) [ ] < > { } " \\ % * . , : ; = & + - ! @ ~ / # $ | 0 1 9'.split(b" "),
    *(
        b" ",
        b"\r\n",
        b"\n",
        b"\x00",
        b"\xff",
        b"\xc3\xa9",
        b"NIL",
        b"()",
        b'""',
        b'"a b"',
        b"{3}\r\nabc",
    ),
    *(
        b"4294967295",
        b"4294967296",
        b"18446744073709551616",
        b"9" * 30,
        b"9" * 5000,
        b"\xb2",
        b"1:*",
        b"$",
    ),
    *(
        b"FLAGS",
        b"UID",
        b"MODSEQ",
        b"BODY[",
        b"HEADER.FIELDS (From)",
        b"\\Seen",
        b"RETURN",
        b"CHARSET",
        b"INBOX",
    ),
    *(
        b"17-Jul-1996",
        b'"31-Feb-2024 25:61:61 +9999"',
        b"imap://a@b:1/c;UIDVALIDITY=1/;UID=2",
        b";SECTION=",
    ),
    *(
        b"%2",
        b"%00",
        b"mupdate://",
        b"PROXY TCP4 1.2.3.4 ",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"<a@b>",
        b"FROM:",
        b"SIZE=",
        b"ADDR=",
    ),
    *(
        b"%(",
        b"%{",
        b"K",
        b"[COPYUID 1 2 3]",
        b"t OK ",
        b"* OK ",
        b"MAILBOX ",
        b"AUTH ",
        b"SET",
        b"STATUS",
        b"(SELECTED",
    ),
]
OCTETS = st.lists(st.sampled_from(WORDS) | st.binary(max_size=6), max_size=14).map(b"".join)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, -1, 2**31, 2**32, 2**60, -(2**60), 2**63, 2**64, 10**30])
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["ana", "user.ana", "x" * 300, "\ud800", "9" * 5000])
)
KEYS: Final = (
    "do id root partition name rows notes subscriptions what upto after seen expunged mailbox_id uid_validity uid_next "
    "highest_modseq recent_from uids"
).split()
VERBS: Final = (
    "begin hold rows complete sum prepare commit abort fate compare look page fetch count user"
).split()
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=9)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=12,
)
PORTRAIT: Final = {
    "mailbox_id": LEAVES,
    "uid_validity": LEAVES,
    "uid_next": LEAVES,
    "highest_modseq": LEAVES,
    "recent_from": LEAVES,
    "expunged": st.lists(st.tuples(LEAVES, JSON), max_size=2) | JSON,
    "seen": st.dictionaries(st.text(max_size=3), JSON, max_size=2) | JSON,
}
ROW = st.tuples(LEAVES, JSON, *[LEAVES] * 6)
REQUESTS = st.fixed_dictionaries(
    {"do": st.sampled_from(VERBS)}
    | {key: JSON for key in KEYS if key not in {"do", *PORTRAIT}}
    | PORTRAIT
)

ANSWERS: Final = st.dictionaries(
    st.sampled_from(
        "ok modseq uids digest messages unseen deleted octets uid_next uid_validity highest_modseq state has tree notes "
        "subscriptions shown_seq names left_to numbers mailbox_id gone gone_before seen rows expunged acl uid size "
        "problem".split()
    ),
    JSON,
)

# What needs more than octets
SPECIAL: Final[dict[str, Callable[[Any, bytes], object]]] = {
    "parse_envelope": lambda parse, octets: [parse(octets, word) for word in (b"FROM", b"TO")],
    "parse_numbers": lambda parse, octets: parse(octets, 0, 2),
    "parse_banner_line": lambda parse, octets: parse(mupdate.Banner(), octets),
    "parse_fetched": lambda parse, octets: parse(Scanner(octets), Fetched()),
    "parse_append_end": lambda parse, octets: [parse(Scanner(octets), form) for form in AppendForm],
    "parse_values": lambda parse, octets: parse([octets, dlist.Held(octets), octets]),
    "parse_faults": lambda parse, octets: parse(octets.decode("latin-1")),
    "parse_header": lambda parse, octets: None if haproxy.octets_wanted(octets) else parse(octets),
}
FROM_JSON: Final = {
    "parse_uid_ranges": JSON,
    "parse_uids": JSON,
    "parse_message": ROW | JSON,
    "parse_portrait": st.fixed_dictionaries(PORTRAIT)
    | st.dictionaries(st.sampled_from(KEYS), JSON),
    "parse_request": REQUESTS,
    "parse_move_id": JSON,
    "parse_subscriptions": JSON,
    "parse_acl_octets": JSON,
    **dict.fromkeys(
        (
            *("parse_done", "parse_held", "parse_stored", "parse_sum", "parse_known"),
            *("parse_moved_tree", "parse_facts", "parse_rows"),
            *("parse_looked", "parse_page", "parse_octets", "parse_counted", "parse_subscribed"),
        ),
        ANSWERS,
    ),
    **dict.fromkeys(
        (
            *("parse_node_status", "parse_probed", "parse_conflict", "parse_session"),
            *("parse_traced", "parse_trail_line", "parse_chain_checked", "parse_log_line"),
            *("parse_copying", "parse_reloaded", "parse_own_ports"),
        ),
        st.dictionaries(
            st.sampled_from(
                "node role cid protocol user idle_s at who octets what problem took_ms name command claimant kept_as "
                "version now mailboxes down list synchronised lag_s servers replaced is_master "
                "line files breaks chain backends "
                "stage number of copied_engine copied_rows copied_seq copied_waited_s".split()
            ),
            JSON,
        ),
    ),
    "parse_placement": st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("server", "refused", "reason", "candidates", "node"), JSON)
    ),
}
ELSEWHERE: Final = {"parse_name"}  # of carry: raises ValueError, as its docstring says


def parsers() -> Iterator[tuple[str, Callable[..., object]]]:
    for module in pkgutil.walk_packages(murder.wire.__path__, "murder.wire."):
        found = importlib.import_module(module.name)
        for name, function in inspect.getmembers(found, inspect.isfunction):
            is_one = name.startswith("parse_") or name == "announced_by"
            if is_one and function.__module__ == module.name and name not in ELSEWHERE:
                yield f"{module.name.removeprefix('murder.wire.')}.{name}", function


PARSERS: Final = dict(parsers())
OF_OCTETS: Final = {where for where in PARSERS if where.rpartition(".")[2] not in FROM_JSON}


def read(where: str, octets: bytes) -> None:
    parse, name = PARSERS[where], where.rpartition(".")[2]
    if name in SPECIAL and (name != "parse_envelope" or where.startswith("lmtp")):
        SPECIAL[name](parse, octets)
        return
    (first, *_) = inspect.signature(parse).parameters.values()
    parse(Scanner(octets) if first.annotation is Scanner else octets)


@pytest.mark.parametrize("where", sorted(OF_OCTETS))
@settings(max_examples=60, deadline=None)
@given(octets=OCTETS)
def test_octets_are_read_or_refused(where: str, octets: bytes) -> None:
    for spelt in (octets, b" " + octets + b"\r\n"):
        with suppress(BadSyntax, Refusal):
            read(where, spelt)


@pytest.mark.parametrize("where", sorted(PARSERS.keys() - OF_OCTETS))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_values_of_json_are_read_or_refused(where: str, data: st.DataObject) -> None:
    told = data.draw(FROM_JSON[where.rpartition(".")[2]])
    as_sent = json.dumps(told)
    (first, *_) = inspect.signature(PARSERS[where]).parameters.values()
    with suppress(BadSyntax, Refusal):
        PARSERS[where](as_sent.encode() if first.annotation is bytes else json.loads(as_sent))


@settings(max_examples=300, deadline=None)
@given(octets=OCTETS, kind=st.sampled_from([b"J", b"O", b"x"]))
def test_frames_are_read_or_refused(octets: bytes, kind: bytes) -> None:
    for text in (octets, b"[" * len(octets) * 1000, b'{"a":' + octets + b"}"):
        cutter = carry.FrameCutter()
        cutter.feed(carry.HEAD.pack(kind, len(text)) + text + octets)
        with suppress(BadSyntax):
            while (frame := cutter.next()) is not None:
                frame.words()


def test_numbers_that_no_clock_has_are_refused() -> None:
    """`datetime.fromtimestamp` has an error of its own for each size."""
    for date in (2**40, 2**60, -(2**60), 2**70, float("inf"), float("nan")):
        for row in ([1, [], date, 0, 0, 1, 1, "x"], [1, [], 0, 0, date, 1, 1, "x"]):
            with pytest.raises(BadSyntax):
                carry.parse_message(row)
    portrait = {"mailbox_id": "x", "uid_validity": float("inf"), "uid_next": 1, "highest_modseq": 1}
    with pytest.raises(BadSyntax):
        carry.parse_portrait({**portrait, "expunged": [], "seen": {}})


def test_of_thousands_of_digits_nobody_makes_a_number() -> None:
    """Python refuses to, with an error that is none of ours."""
    digits = b"9" * 5000
    assert parse_fetch_response(b"* %b FETCH (UID 1)\r\n" % digits) is None
    with pytest.raises(BadSyntax):
        parse_removed(b"X-REMOVED %b 1" % digits)
