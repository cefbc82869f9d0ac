"""What a site adds to its users' scripts: before and after them, lists, scores, programs, shared mailboxes; who is told."""

import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from murder.config.sieve import ProgramConfig, SieveConfig
from murder.model.name import MailboxName
from murder.roles.backend.records.annotations import SHARED
from murder.roles.backend.scripts.run import SHARED_SCRIPT
from murder.roles.backend.scripts.srs import RedirectSenders
from tests.backend.test_sieve_delivery import MESSAGE, delivering, sending
from tests.kit.waiting import until_soon


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def program(folder: Path, text: str) -> tuple[str, ...]:
    """One that is this Python."""
    return (sys.executable, "-I", str(written(folder, "program.py", text)))


@pytest.mark.parametrize("own", [b"", b'require "imap4flags"; addflag "$own";'])
async def test_the_sites_scripts_run_before_and_behind_the_users(
    own: bytes, tmp_path: Path
) -> None:
    sieve = SieveConfig(
        before=(
            written(
                tmp_path,
                "before.sieve",
                'require "fileinto"; if header :contains "subject" "spam" {fileinto "INBOX/Junk";}',
            ),
        ),
        after=(written(tmp_path, "after.sieve", 'require "imap4flags"; addflag "$after";'),),
    )
    async with delivering(tmp_path, own, sieve=sieve) as client:
        await client.create("Junk")
        for subject in ("spam", "plain"):
            assert (await client.deliver(subject))[0].startswith(b"250")
        assert await client.subjects("Junk") == [("spam", [])]
        flags = ["$after", "$own"] if own else ["$after"]
        assert await client.subjects() == [("plain", flags)]


async def test_where_the_users_script_fails_the_sites_decide_and_the_user_is_told_once(
    tmp_path: Path,
) -> None:
    before = written(tmp_path, "before.sieve", 'require "fileinto"; fileinto "INBOX/Box";')
    before.write_text('require ["fileinto", "copy"]; fileinto :copy "INBOX/Box";')
    sieve = SieveConfig(before=(before,), errors_to="inbox")
    own = b'require "ihave";\r\n\r\nerror "it is broken";'
    async with delivering(tmp_path, own, sieve=sieve) as client:
        await client.create("Box")
        for subject in ("one", "two"):
            assert (await client.deliver(subject))[0].startswith(b"250")
        assert await client.subjects("Box") == [("one", []), ("two", [])]
        told: tuple[str, list[str]] = ("Your mail filter has an error", [])
        assert await client.subjects() == [("one", []), told, ("two", [])]
        mailbox = await client.one.backend.store.open(MailboxName(b"user.ana"), "ana")
        try:
            octets = bytes(await mailbox.octets((await mailbox.uids())[1]))
        finally:
            mailbox.close()
        assert b'"main"' in octets and b"line 3, column 1: it is broken" in octets


async def test_lists_of_the_site_are_asked_and_redirected_to(tmp_path: Path) -> None:
    path = written(tmp_path, "partners", "# who\n\nSender@Example.org\nelse@example.net\n")
    sieve = SieveConfig(lists={":addrbook:partners": path})
    script = b"""require ["extlists", "imap4flags", "copy"];
    if not valid_ext_list ":addrbook:partners" { discard; stop; }
    if valid_ext_list ":addrbook:none" { discard; stop; }
    if address :list "from" "urn:ietf:params:sieve:addrbook:partners" {
        addflag "$partner"; redirect :copy :list ":addrbook:partners";
    }"""
    async with sending(tmp_path, script, sections={"sieve": sieve}) as (client, sink):
        await client.deliver("one")
        await until_soon(lambda: len(sink.taken) == 2, "all in the list have it")
        assert [to for _, to, _ in sorted(sink.taken, key=lambda one: one[1])] == [
            [b"Sender@Example.org"],
            [b"else@example.net"],
        ]
        path.write_text("nobody@example.org\n")
        await client.deliver("two")
        assert await client.subjects() == [("one", ["$partner"]), ("two", [])]


async def test_scores_stand_where_the_site_says(tmp_path: Path) -> None:
    sieve = SieveConfig(
        spam_field="X-Spam",
        spam_pattern="score=(-?[0-9.]+)",
        spam_maximum="10",
        virus_field="X-Virus",
        virus_texts={"1": "clean", "5": "found"},
    )
    script = b"""require ["spamtest", "spamtestplus", "virustest", "relational", "imap4flags",
        "comparator-i;ascii-numeric"];
    if spamtest :value "ge" :comparator "i;ascii-numeric" "6" { addflag "$spam"; }
    if spamtest :percent :value "eq" :comparator "i;ascii-numeric" "80" { addflag "$eighty"; }
    if virustest :value "eq" :comparator "i;ascii-numeric" "5" { addflag "$virus"; }"""
    async with delivering(tmp_path, script, sieve=sieve) as client:
        for number, head in enumerate((b"X-Spam: Yes, score=8\r\n", b"X-Virus: found\r\n", b"")):
            message = head + MESSAGE % (b"%d" % number, b"%d" % number)
            await client.deliver("", message=message)
        assert await client.subjects() == [
            ("0", ["$eighty", "$spam"]),
            ("1", ["$virus"]),
            ("2", []),
        ]


async def test_what_a_script_sends_is_filed_where_it_says_if_it_is_sent(tmp_path: Path) -> None:
    script = b"""require ["vacation", "fcc", "imap4flags", "mailbox"];
    vacation :addresses "ana@example.net" :subject "Away" :fcc "INBOX/Sent" :create
        :flags "\\\\Seen" "I am away";"""
    async with sending(tmp_path, script) as (client, sink):
        for number in range(2):
            message = b"To: ana@example.net\r\n" + MESSAGE % (b"hi", b"id%d" % number)
            assert (await client.deliver("hi", message=message))[0].startswith(b"250")
        await until_soon(lambda: len(sink.taken) == 1, "the reply is sent")
        assert await client.subjects("Sent") == [("Away", ["\\Seen"])]
        assert len(await client.subjects()) == 2


COUNTING = """
import os, sys
octets = sys.stdin.buffer.read()
with open(sys.argv[1], "a") as file:
    print(os.environ["USER"], *sys.argv[2:], len(octets), file=file)
"""


@pytest.mark.parametrize("by", ["site", "users"])
async def test_a_message_is_piped_to_a_program_of_the_site_once(by: str, tmp_path: Path) -> None:
    told = tmp_path / "told"
    command = (*program(tmp_path, COUNTING), str(told))
    programs = {"count": ProgramConfig(command, by=by)}  # type: ignore[arg-type] # one of both
    script = 'require ["vnd.dovecot.pipe", "copy"]; pipe :copy "count" ["word"];'
    own = script.encode() if by == "users" else b""
    sieve = SieveConfig()
    if by == "site":
        sieve = SieveConfig(before=(written(tmp_path, "before.sieve", script),))
    async with delivering(tmp_path, own, sieve=sieve, programs=programs) as client:
        for _ in range(2):  # the sender comes again
            assert (await client.deliver("one"))[0].startswith(b"250")
        (line,) = told.read_text().splitlines()
        assert line.startswith("ana word ")
        assert await client.subjects() == [("one", [])] * 2
        has_words = "vnd.dovecot.pipe" in client.one.backend.site.users.extensions
        assert has_words is (by == "users")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import sys; sys.exit('no such thing')", "exit code 1: no such thing"),
        ("import time; time.sleep(60)", "it takes longer than 0.5 s"),
        ("print('x' * 100_000)", "it says more than 1000 octets"),
    ],
)
async def test_a_program_that_fails_has_the_message_come_again_unless_it_is_safe(
    text: str, problem: str, tmp_path: Path
) -> None:
    one = ProgramConfig(program(tmp_path, text), by="users", timeout_s=0.5, max_output_bytes=1000)
    script = b"""require ["vnd.dovecot.pipe", "copy"];
    if header "subject" "safe" { pipe :copy "one"; } else { pipe "one"; }"""
    async with delivering(tmp_path, script, programs={"one": one}) as client:
        with capture_logs() as logged:
            assert (await client.deliver("lost"))[0].startswith(b"451")
            assert (await client.deliver("safe"))[0].startswith(b"250")
        assert await client.subjects() == [("safe", [])]
    failed = [event for event in logged if event["event"] == "program.failed"]
    assert [event["problem"] for event in failed] == [problem] * 2


async def test_a_program_makes_another_message_or_says_a_text(tmp_path: Path) -> None:
    text = """
import sys
octets = sys.stdin.buffer.read()
if len(sys.argv) > 1: print("found", end="")
else: sys.stdout.buffer.write(b"X-Seen: yes\\r\\n" + octets)
"""
    programs = {"mark": ProgramConfig(program(tmp_path, text), ("filter", "execute"), "users")}
    script = b"""require ["vnd.dovecot.filter", "vnd.dovecot.execute", "variables", "imap4flags"];
    filter "mark";
    if header "x-seen" "yes" { addflag "$filtered"; }
    execute :pipe :output "word" "mark" ["say"];
    addflag "$${word}";
    if not execute "none" { addflag "$no-such"; }"""
    async with delivering(tmp_path, script, programs=programs) as client:
        await client.deliver("one")
        assert await client.subjects() == [("one", ["$filtered", "$found", "$no-such"])]


async def test_a_shared_mailboxes_script_is_one_of_the_sites(tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    written(
        scripts,
        "sort.sieve",
        'require ["fileinto", "include"]; include :global "spam";'
        'if header :contains "subject" "bug" { fileinto "list/bugs"; }'
        'if header :contains "subject" "own" { fileinto "list/closed"; }',
    )
    written(scripts, "spam.sieve", 'if header :contains "subject" "spam" { discard; stop; }')
    async with delivering(tmp_path, sieve=SieveConfig(folder=scripts)) as client:
        backend = client.one.backend
        for name, rights in ((b"list", b"lrsp"), (b"list.bugs", b"lrsp"), (b"list.closed", b"lrs")):
            await backend.announcer.create(MailboxName(name), b"anyone\t" + rights + b"\t")
        value = {SHARED: {SHARED_SCRIPT: b"sort"}}
        await backend.annotations.change(MailboxName(b"list"), value)
        for subject in ("a bug", "spam", "own", "plain"):
            assert (await client.deliver(subject, "+list"))[0].startswith(b"250"), subject

        async def subjects(name: bytes) -> list[str]:
            mailbox = await backend.store.open(MailboxName(name), "")
            try:
                octets = [bytes(await mailbox.octets(uid)) for uid in await mailbox.uids()]
                return [one.partition(b"Subject: ")[2].split(b"\r\n")[0].decode() for one in octets]
            finally:
                mailbox.close()

        assert await subjects(b"list.bugs") == ["a bug"]
        assert await subjects(b"list") == ["own", "plain"]


async def test_every_outcome_is_in_the_log_with_script_line_and_action(tmp_path: Path) -> None:
    script = b"""require ["fileinto", "reject", "copy"];
if header "subject" "file" {
    fileinto :copy "INBOX/Box";
}
if header "subject" "no" { reject "no"; }"""
    async with delivering(tmp_path, script) as client:
        await client.create("Box")
        with capture_logs() as logged:
            for subject in ("file", "no", "plain"):
                await client.deliver(subject)
    filtered = [one["actions"] for one in logged if one["event"] == "message.filtered"]
    assert filtered == [["main:3 fileinto INBOX/Box", "keep"], ["main:5 reject"], ["keep"]]


def test_a_redirected_senders_address_is_rewritten_so_that_bounces_find_back() -> None:
    senders = RedirectSenders("srs", "here.example", "secret", lambda: 1_600_000_000.0)
    first = senders.of("ana@example.org", "bob@here.example")
    assert first == "SRS0=TpZV=CW=example.org=ana@here.example"
    there = RedirectSenders("srs", "there.example", "other")
    second = there.of(first, "x@there.example")
    assert second.startswith("SRS1=") and second.endswith(
        "=here.example==TpZV=CW=example.org=ana@there.example"
    )
    third = senders.of(second, "x@here.example")
    assert third.endswith("=here.example==TpZV=CW=example.org=ana@here.example")
    assert senders.of("", "bob@here.example") == ""
    assert senders.of("me@Here.Example", "bob@here.example") == "me@Here.Example"
    assert RedirectSenders("recipient").of("a@b", "c@d") == "c@d"
