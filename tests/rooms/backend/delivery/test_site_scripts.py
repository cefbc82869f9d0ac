"""What a site adds to its users' scripts: before and after them, lists, scores, programs, shared mailboxes; who is told."""

import asyncio
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog import get_logger
from structlog.testing import capture_logs

from murder.api.auth import AuthBackend
from murder.config.sieve import ProgramConfig, SieveConfig
from murder.model.annotation import SHARED_SCRIPT
from murder.model.identity import Identity
from murder.model.name import MailboxName
from murder.roles.backend.records.annotations import SHARED
from murder.roles.backend.scripts.programs import AT_ONCE, PATH, Programs
from murder.roles.backend.scripts.site import flaws_of_site
from murder.roles.backend.scripts.srs import RedirectSenders
from tests.kit.dialogue import Player, Streams
from tests.kit.process import ROOT
from tests.kit.waiting import pause, turns, until_soon
from tests.rooms.backend.delivery.test_sieve_delivery import MESSAGE, delivering, sending
from tests.rooms.backend.server import OnePassword, Parts, config_in, running_backend, spool_store


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


async def test_an_administrator_reads_the_sites_scripts_and_nobody_sets_them(
    tmp_path: Path,
) -> None:
    named = tmp_path / "named"
    named.mkdir()
    written(named, "Sort.sieve", "keep;")
    before = written(tmp_path, "before.sieve", "discard;")
    sieve = SieveConfig(before=(before,), folder=named)
    entry = "/shared/vendor/murder/sieve"
    config = replace(config_in(tmp_path), sieve=sieve)
    async with running_backend(tmp_path, config=config) as running:

        async def connect(_: str) -> Streams:
            return await asyncio.open_connection(*running.address)

        await Player(connect).play(f"""
C1= LOGIN admin secret
C1: a1 GETMETADATA (DEPTH infinity) "" {entry}/before
S1: * METADATA "" ({entry}/before/0000/name "{before}" {entry}/before/0000/script "discard;")
S1: a1 OK Completed
C1: a2 GETMETADATA "" {entry}/named/536f7274
S1: * METADATA "" ({entry}/named/536f7274 "keep;")
S1: a2 OK Completed
C1: a3 SETMETADATA "" ({entry}/before/0000/script "keep;")
S1: a3 NO [CANNOT] {entry}/before/0000/script cannot be set
C1: a4 GETMETADATA (DEPTH infinity) "" /shared
S1: a4 OK Completed
C2= LOGIN ana secret
C2: b1 GETMETADATA (DEPTH infinity) "" {entry}
S2: b1 OK Completed
""")


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
    limit_s = 0.5 if "0.5 s" in problem else 30.0
    one = ProgramConfig(
        program(tmp_path, text), by="users", timeout_s=limit_s, max_output_bytes=1000
    )
    script = b"""require ["vnd.dovecot.pipe", "copy"];
    if header "subject" "safe" { pipe :copy "one"; } else { pipe "one"; }"""
    async with delivering(tmp_path, script, programs={"one": one}) as client:
        with capture_logs() as logged:
            assert (await client.deliver("lost"))[0].startswith(b"451")
            assert (await client.deliver("safe"))[0].startswith(b"250")
        assert await client.subjects() == [("safe", [])]
    failed = [event for event in logged if event["event"] == "program.failed"]
    assert [event["problem"] for event in failed] == [problem] * 2


async def test_one_users_programs_leave_another_his_turn(tmp_path: Path) -> None:
    """A dozen wait, and hold all room that there is; whoever comes then is not behind all of them."""
    begun, go = tmp_path / "begun", tmp_path / "go"
    begun.touch()
    slow = f"echo $USER >> {begun}; while [ ! -e {go} ]; do sleep 0.02; done"
    one = ProgramConfig(("/bin/sh", "-c", slow), ("execute",), "users", timeout_s=60.0)
    programs = Programs({"one": one})

    async def run(user: str) -> None:
        known = {"USER": user}
        await programs.run("execute", "one", (), (), known, get_logger(), for_user=True)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(3 * AT_ONCE):
            tasks.create_task(run("mallory"))
        await until_soon(lambda: begun.read_text() == "mallory\n" * AT_ONCE)
        tasks.create_task(run("ana"))
        await turns()
        go.touch()
    order = begun.read_text().split()
    assert order.index("ana") < 2 * AT_ONCE and len(order) == 3 * AT_ONCE + 1


WHOSE = """
import os, pathlib, sys
sys.stdin.buffer.read()
groups = ",".join(map(str, sorted(os.getgroups())))
print(os.getuid(), os.geteuid(), os.getgid(), groups, os.environ["HOME"], end="")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be another user without sudo")
async def test_a_program_runs_as_another_user(tmp_path: Path) -> None:
    program = ProgramConfig(
        ("/usr/bin/python3", "-I", "-c", WHOSE), ("execute",), "users", "nobody"
    )
    nobody = pwd.getpwnam("nobody")
    groups = ",".join(map(str, sorted(os.getgrouplist("nobody", nobody.pw_gid))))
    said = await Programs({"whose": program}).run(
        "execute", "whose", (), (), {}, get_logger(), for_user=True
    )
    uid = nobody.pw_uid
    assert said is not None and bytes(said) == f"{uid} {uid} {nobody.pw_gid} {groups} /".encode()

    sleeping = replace(program, command=("/bin/sleep", "60"), timeout_s=0.2)
    with capture_logs() as logged:
        said = await Programs({"one": sleeping}).run(
            "execute", "one", (), (), {}, get_logger(), for_user=True
        )
    assert said is None and logged[-1]["problem"] == "it takes longer than 0.2 s"


async def test_who_a_program_is_to_run_as_must_be_there(tmp_path: Path) -> None:
    one = ProgramConfig(("/bin/cat",), ("execute",), "users", "no-such-user")
    flaws = dict(flaws_of_site(replace(config_in(tmp_path), programs={"one": one})))
    assert flaws == {'sieve.programs."one".user': "this system has no user no-such-user"}
    with capture_logs() as logged:
        programs = Programs({"one": one})
        said = await programs.run("execute", "one", (), (b"x",), {}, get_logger(), for_user=True)
    assert said is None
    assert "no-such-user" in logged[-1]["problem"] or "sudo" in logged[-1]["problem"]


BY_SUDO = """
import asyncio, os, sys
from structlog import get_logger
from structlog.testing import capture_logs
from murder.config.sieve import ProgramConfig
from murder.roles.backend.scripts.programs import Programs

os.setgroups([])
os.setgid(65534)
os.setuid(65534)

async def said(*command: str, timeout_s: float = 30.0) -> None:
    one = ProgramConfig(command, ("execute",), "users", "daemon", timeout_s=timeout_s)
    known = {"SENDER": "a@x.example", "USER": "ana"}
    with capture_logs() as logged:
        octets = await Programs({"one": one}).run(
            "execute", "one", (), (b"in",), known, get_logger(), for_user=True
        )
    print(octets and bytes(octets), [line["problem"] for line in logged])

async def main() -> None:
    await said("/bin/sh", "-c", 'cat; echo " $(id -u) $SENDER $USER $HOME"')
    await said("/bin/sleep", "60", timeout_s=0.5)
    await said("/bin/sh", "-c", "echo oh >&2; exit 3")

asyncio.run(main())
"""


def test_a_node_that_is_not_root_runs_a_program_as_another_user_by_sudo(tmp_path: Path) -> None:
    """In a file system of its own: what sudoers allows there, it allows nowhere else."""
    if os.geteuid() or shutil.which("sudo") is None or not Path("/etc/sudoers").is_file():
        pytest.skip("wants root and sudo")
    rules = tmp_path / "sudoers"
    rules.write_text("nobody ALL=(daemon) NOPASSWD: /usr/bin/timeout\n")
    rules.chmod(0o440)
    apart = ["unshare", "--mount", "sh", "-ec", 'mount --bind "$1" /etc/sudoers; shift; exec "$@"']
    asked = subprocess.run([*apart, "sh", rules, "true"], capture_output=True, check=False)
    if asked.returncode:
        pytest.skip(f"may not mount here: {asked.stderr.decode().strip()}")
    done = subprocess.run(
        [*apart, "sh", rules, sys.executable, "-c", BY_SUDO],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.stdout.splitlines() == [
        "b'in 1 a@x.example ana /\\n' []",
        "None ['it takes longer than 0.5 s']",
        "None ['exit code 3: oh']",
    ], done.stderr


async def test_a_program_that_sudo_has_ended_by_its_time_is_said_to_take_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others have the processor, that one has begun before it is looked at here, and ends before."""
    sudo = written(
        tmp_path, "sudo", '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n'
    )
    sudo.chmod(0o700)
    begun = asyncio.subprocess.Process

    def begun_late(*of_it: Any) -> asyncio.subprocess.Process:
        pause(0.5, "the processor is somebody else's")
        return begun(*of_it)

    monkeypatch.setattr(asyncio.subprocess, "Process", begun_late)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr("murder.roles.backend.scripts.programs.PATH", f"{tmp_path}:{PATH}")
    one = ProgramConfig(("/bin/sleep", "60"), ("execute",), "users", "daemon", timeout_s=0.2)
    with capture_logs() as logged:
        programs = Programs({"one": one})
        assert not await programs.run("execute", "one", (), (), {}, get_logger(), for_user=True)
    assert logged[-1]["problem"] == "it takes longer than 0.2 s"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else")
def test_who_is_not_root_is_told_what_a_program_of_another_user_lacks() -> None:
    one = ProgramConfig(("/bin/cat",), ("execute",), "users", "daemon")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # a node that is nobody
        os.setgid(65534)
        os.setuid(65534)
        with capture_logs() as logged:
            asyncio.run(
                Programs({"one": one}).run(
                    "execute", "one", (), (), {}, get_logger(), for_user=True
                )
            )
        os.write(writing, logged[-1]["problem"].encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        problem = file.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    has_sudo = shutil.which("sudo", path=PATH) is not None
    told = (
        "exit code 1: sudo: " if has_sudo else "there is no sudo, by which it would run as daemon"
    )
    assert problem.startswith(told)


class Known(OnePassword):
    """As OnePassword, and ana gets mail at two addresses."""

    async def lookup(self, user: str) -> Identity | None:
        return Identity(user, addresses=("ana@example.net", "a.smith@example.net"))


class KnownParts(Parts):
    def auth_backends(self) -> Sequence[tuple[str, AuthBackend]]:
        return [("one", Known())]


async def test_vacation_knows_the_addresses_of_its_user(tmp_path: Path) -> None:
    parts = KnownParts(lambda: spool_store(tmp_path))
    script = b'require "vacation"; vacation "I am away";'
    async with sending(tmp_path, script, sections={"parts": parts}) as (client, sink):
        for number, to in enumerate(("list@example.org", "A.Smith@example.net")):
            head = f"To: {to}\r\n".encode()
            message = head + MESSAGE % (b"hi", b"id%d" % number)
            sender = f"sender{number}@example.org"
            assert (await client.deliver("hi", message=message, sender=sender))[0][:3] == b"250"
        await until_soon(lambda: len(sink.taken) == 1, "who wrote to the user is answered")
        ((_, told, octets),) = sink.taken
        assert told == [b"sender1@example.org"]
        (by,) = [line for line in octets.splitlines() if line.startswith(b"From:")]
        assert by == b"From: <a.smith@example.net>"  # of theirs, the one written to
        assert len(client.outgoing()) == 1


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
        'if header :contains "subject" "own" { fileinto "list/closed"; }'
        'if header :contains "subject" "away" { fileinto "list/away"; }',
    )
    written(scripts, "spam.sieve", 'if header :contains "subject" "spam" { discard; stop; }')
    async with delivering(tmp_path, sieve=SieveConfig(folder=scripts)) as client:
        backend = client.one.backend
        for name, rights in ((b"list", b"lrsp"), (b"list.bugs", b"lrsp"), (b"list.closed", b"lrs")):
            await backend.announcer.create(MailboxName(name), b"anyone\t" + rights + b"\t")
        value = {SHARED: {SHARED_SCRIPT: b"sort"}}
        await backend.annotations.change(MailboxName(b"list"), value)
        with capture_logs() as logged:
            for subject in ("a bug", "spam", "own", "away", "plain"):
                assert (await client.deliver(subject, "+list"))[0].startswith(b"250"), subject
        told = {
            one["wanted"]: one["problem"] for one in logged if one["event"] == "message.not_filed"
        }
        assert told == {
            "list/closed": "Nobody may post to this mailbox",
            "list/away": "No such mailbox",
        }

        async def subjects(name: bytes) -> list[str]:
            mailbox = await backend.store.open(MailboxName(name), "")
            try:
                octets = [bytes(await mailbox.octets(uid)) for uid in await mailbox.uids()]
                return [one.partition(b"Subject: ")[2].split(b"\r\n")[0].decode() for one in octets]
            finally:
                mailbox.close()

        assert await subjects(b"list.bugs") == ["a bug"]
        assert await subjects(b"list") == ["own", "away", "plain"]


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
