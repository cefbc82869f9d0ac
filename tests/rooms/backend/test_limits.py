"""What one user may make, and what is said where that is all (the keys `max_…` of [backend]); partitions."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.kit.dialogue import Player, Streams
from tests.rooms.backend.server import config_in, running_backend


async def play(folder: Path, text: str, **limits: Any) -> None:
    """A dialogue with a backend that has these limits."""
    async with running_backend(folder, config=config_in(folder, **limits)) as running:

        async def connect(_: str) -> Streams:
            return await asyncio.open_connection(*running.address)

        await Player(connect).play(text)


async def test_identifiers_of_an_access_list(tmp_path: Path) -> None:
    await play(
        tmp_path,
        f"""
C1= LOGIN ana secret
C2= LOGIN admin secret
C1= SETACL INBOX bob lr
C1: a1 SETACL INBOX cid lr
S1: a1 NO [LIMIT] An access list may have at most 2 identifiers$_
C1: a2 SETACL INBOX bob lrs
S1: a2 OK $_
C2= SETACL user/ana cid lr
C1: a3 SETACL INBOX bob l
S1: a3 OK $_
C1= DELETEACL INBOX cid
C1: a4 GETACL INBOX
S1: * ACL INBOX ana lrswipkxtecdan bob l
S1: a4 OK $_
C1: a5 SETACL INBOX {"x" * 401} lr
S1: a5 BAD $_
""",
        max_acl_identifiers=2,
    )


async def test_keywords_of_a_message(tmp_path: Path) -> None:
    few, more = (" ".join(f"{word}{number}" for number in range(64)) for word in "ab")
    long = " ".join(f"{number:03}{'x' * 80}" for number in range(40))
    await play(
        tmp_path,
        f"""
C1= LOGIN ana secret
C1: a0 APPEND INBOX {{3+}}
C1: abc
S1: a0 OK $_
C1= SELECT INBOX
C1= STORE 1 +FLAGS.SILENT ({few})
C1= STORE 1 +FLAGS.SILENT ({more} \\Seen)
C1: a1 STORE 1 +FLAGS.SILENT (c1)
S1: a1 NO [LIMIT] A message has at most 128 keywords, of 4096 octets together$_
C1: a2 STORE 1 +FLAGS.SILENT (a1 b2 \\Flagged)
S1: a2 OK $_
C1= STORE 1 FLAGS.SILENT ({long})
C1: a3 STORE 1 +FLAGS.SILENT ({long.replace("x", "y")})
S1: a3 NO [LIMIT] $_
C1: a4 STORE 1 +FLAGS.SILENT ({long} {long.replace("x", "y")})
S1: a4 BAD $_
""",
    )


async def test_mailboxes_and_levels(tmp_path: Path) -> None:
    await play(
        tmp_path,
        """
C1= LOGIN ana secret
C2= LOGIN admin secret
C1= CREATE INBOX/a
C1= CREATE INBOX/b
C1: a1 CREATE INBOX/c
S1: a1 NO [LIMIT] A mailbox may have at most 2 mailboxes below it$_
C1= RENAME INBOX/a INBOX/d
C1: a2 RENAME INBOX INBOX/e
S1: a2 NO [LIMIT] $_
C1: a3 RENAME INBOX/d INBOX/1/2/3
S1: a3 NO [LIMIT] A mailbox name may have 4 levels, not 5
C2= CREATE user/ana/c
C1= DELETE INBOX/c
C1= DELETE INBOX/b
C1: a4 CREATE INBOX/1/2/3
S1: a4 NO [LIMIT] A mailbox name may have 4 levels, not 5
C1= CREATE INBOX/b
""",
        max_mailboxes_per_user=2,
        max_mailbox_depth=4,
    )


async def test_what_is_deleted_later_is_bounded_too(tmp_path: Path) -> None:
    await play(
        tmp_path,
        """
C1= LOGIN ana secret
C2= LOGIN admin secret
C1= CREATE INBOX/a
C1= DELETE INBOX/a
C1= CREATE INBOX/b
C1= DELETE INBOX/b
C1= CREATE INBOX/c
C1= DELETE INBOX/c
C2: b1 SELECT DELETED/user/ana/c
S2~ b1 NO $_
C2: b2 GETACL DELETED/user/ana/c
S2: b2 NO [NONEXISTENT] $_
C2= CREATE shared
""",
        max_mailboxes_per_user=2,
        delete="delayed",
    )


async def test_subscriptions(tmp_path: Path) -> None:
    await play(
        tmp_path,
        f"""
C1= LOGIN ana secret
C1= SUBSCRIBE one
C1= SUBSCRIBE two
C1= SUBSCRIBE two
C1: a1 SUBSCRIBE three
S1: a1 NO [LIMIT] A user may subscribe to at most 2 mailboxes$_
C1= UNSUBSCRIBE one
C1= SUBSCRIBE three
C1: a2 SUBSCRIBE {"x" * 500}
S1: a2 NO [LIMIT] A mailbox name may have 490 octets$_
""",
        max_subscriptions_per_user=2,
    )


async def test_keys_of_a_search_and_wildcards_of_a_pattern(tmp_path: Path) -> None:
    await play(
        tmp_path,
        """
C1= LOGIN ana secret
C1= SELECT INBOX
C1: a1 SEARCH SEEN UNSEEN SEEN UNSEEN TEXT x UID 1 UID 2 UID 3
S1: * SEARCH
S1: a1 OK $_
C1: a2 SEARCH SEEN UNSEEN SEEN UNSEEN SEEN UNSEEN
S1: a2 BAD [CLIENTBUG] expected at most 5 search keys$_
C1: a3 SORT (ARRIVAL) UTF-8 TEXT x TEXT y
S1: a3 BAD [CLIENTBUG] at most 1 texts$_
C1: a4 LIST "" INB%%X%
S1: * LIST $_ INBOX
S1: a4 OK $_
C1: a5 LIST "" I%N%X%
S1: a5 NO [LIMIT] A pattern may have 2 wildcards, all of a command 20$_
""",
        max_search_keys=5,
        max_list_wildcards=2,
    )


async def test_annotations(tmp_path: Path) -> None:
    await play(
        tmp_path,
        f"""
C1= LOGIN ana secret
C2= LOGIN bob secret
C1= SETACL INBOX bob lrw
C2= SETMETADATA user/ana (/private/a "1" /private/b "2")
C2: b1 SETMETADATA user/ana (/private/c "3")
S2: b1 NO [METADATA TOOMANY] $_
C2= SETMETADATA user/ana (/private/a "2")
C1= SETMETADATA INBOX (/private/a "1" /private/b "2" /shared/a "1")
C1: a1 SETMETADATA INBOX (/private/a "{"x" * 257}")
S1: a1 NO [METADATA MAXSIZE 256] $_
C1= CREATE INBOX/m
C1: a2 SETMETADATA INBOX/m (/private/a "{"x" * 250}" /private/b "{"x" * 250}")
S1: a2 OK $_
C1= CREATE INBOX/n
C1: a3 SETMETADATA INBOX/n (/private/a "{"x" * 250}" /private/b "{"x" * 250}")
S1: a3 NO [METADATA TOOMANY] $_
C1= SETMETADATA INBOX/m (/private/a NIL)
C1= SETMETADATA INBOX/n (/private/a "{"x" * 100}")
""",
        max_metadata_entries=2,
        max_metadata_value_bytes=256,
        max_metadata_bytes_per_user=1024,
    )


async def test_keys_of_urls(tmp_path: Path) -> None:
    url = "imap://{}@be1.test/{};UID=1;URLAUTH=anonymous"
    await play(
        tmp_path,
        f"""
C1= LOGIN ana secret
C2= LOGIN bob secret
C1= SETACL INBOX bob lr
C1= GENURLAUTH "{url.format("ana", "INBOX")}" INTERNAL
C1= GENURLAUTH "{url.format("ana", "INBOX")}" INTERNAL
C2: b1 GENURLAUTH "{url.format("bob", "user/ana")}" INTERNAL
S2: b1 NO [LIMIT] URLs of one mailbox may be made by 1 users
C1= RESETKEY INBOX
""",
        max_url_keys_per_mailbox=1,
    )


async def test_new_shared_mailboxes_have_the_configured_rights(tmp_path: Path) -> None:
    await play(
        tmp_path,
        """
C1= LOGIN admin secret
C1= CREATE news
C1: a1 GETACL news
S1: * ACL news anyone lrs group:staff lrsip
S1: a1 OK $_
C1= CREATE news/local
C1= DELETEACL news group:staff
C1= CREATE user/cid
C1: a2 GETACL user/cid
S1: * ACL user/cid cid lrswipkxtecdan
S1: a2 OK $_
C1: a3 GETACL news/local
S1: * ACL news/local anyone lrs group:staff lrsip
S1: a3 OK $_
""",
        default_acl="anyone lrs group:staff lrsip",
    )


async def test_a_partition_that_is_not_there_is_refused(tmp_path: Path) -> None:
    await play(
        tmp_path,
        """
C1= LOGIN admin secret
C1: a1 CREATE news be1.test!nosuch
S1: a1 NO [CANNOT] be1.test has no partition nosuch; it has default
C1: a2 CREATE news nosuch
S1: a2 NO [CANNOT] be1.test has no partition nosuch; it has default
C1: a3 LIST "" *
S1: * LIST $_ user/ana
S1: * LIST $_ user/bob
S1: a3 OK $_
C1= CREATE news default
""",
    )


def test_the_example_says_what_applies() -> None:
    config = config_in(Path("."))
    assert replace(config.backend).default_acl == "anyone lrs"
