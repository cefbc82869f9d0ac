"""`murder ctl doctor`: what is wrong, and what to do about it."""

import asyncio
import os
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options
from murder.admin.cli.options import json_option, print_json
from murder.admin.cli.screen import (
    BAD,
    CAUTION,
    GOOD,
    columns,
    count,
    finding,
    octets,
    paint,
    plain,
)
from murder.admin.operate.backends import backends_of, look
from murder.admin.operate.reach import Reach
from murder.admin.operate.running.health import (
    DAY_S,
    FREE_PART,
    Problem,
    certificate_problem,
    namesakes,
    problems_of,
)
from murder.admin.operate.running.masters import engine_problems, masters_of, members_of
from murder.admin.operate.running.nodes import NodeAnswers, ask_all, learn
from murder.errors import Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import MailboxEntry
from murder.model.protocol import BACKEND, PROTOCOLS, PortKey
from murder.pki.authority import AuthorityError, flaws_of, read_certificate
from murder.wire.nodes.control_answers import parse_probed
from murder.wire.nodes.control_words import AskProbe, AskStatus, is_too_old

TRY_S: Final = 5.0
ISSUE: Final = "`murder ca issue NAME --role ROLE` at the one authority (its ca.pem is on all nodes), copy the files"
DNS: Final = "put it into DNS or /etc/hosts, or name `address` in [servers]"


class Findings:
    """Says each finding as it comes, or keeps all for a program."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._width = columns() if sys.stdout.isatty() else 0
        self.all: list[dict[str, str]] = []

    @property
    def bad(self) -> int:
        return sum(fact["state"] == "wrong" for fact in self.all)

    def _add(self, state: str, what: str, cure: str) -> None:
        self.all.append({"state": state, "what": what, "cure": cure})

    def good(self, what: str) -> None:
        self._add("ok", what, "")
        if not self._as_json:
            click.echo(f"{paint('ok   ', GOOD)} {plain(what)}")

    def note(self, what: str, cure: str) -> None:
        """Neither good nor wrong: what was not looked at."""
        self._add("note", what, cure)
        self._show("note ", CAUTION, what, cure)

    def wrong(self, what: str, cure: str) -> None:
        self._add("wrong", what, cure)
        self._show("WRONG", BAD, what, cure)

    def _show(self, mark: str, colour: str, what: str, cure: str) -> None:
        if not self._as_json:
            for line in finding(mark, colour, what, cure, self._width):
                click.echo(line)


@click.command()
@operator_options
@json_option("ok (true or false), findings (a list of state: ok, note or wrong; what; cure)")
async def doctor(reach: Reach, as_json: bool) -> int:
    """Check everything a murder needs, from this host and from each node itself (a frontend's connections to each
    backend): names, ports, TLS, authentication both ways, clocks, certificates, disks, the lists. Each finding comes
    with its remedy. Exit code 1 if something is wrong.

    \b
    murder ctl doctor
    murder ctl doctor --json | jq '.findings[] | select(.state == "wrong")'
    """
    findings = Findings(as_json)
    ending = _certificates(reach, findings)
    if findings.bad:
        findings.note(
            "the nodes were not asked: they would refuse this certificate",
            "fix this, then run `murder ctl doctor` again",
        )
    else:
        passes_on = reach.config.frontend.mode == "multiplexor"  # to servers that are no backends
        is_alone = passes_on and reach.config.master is None
        rows = [] if is_alone else await _master(reach, findings)
        servers = {row.server for row in rows} if passes_on else backends_of(reach, rows)
        for server in sorted(servers):
            await _backend(reach, server, findings)
        await _nodes(reach, findings)
    for problem in ending:
        findings.wrong(*problem)
    _disk(reach, findings)
    if as_json:
        print_json({"ok": not findings.bad, "findings": findings.all})
    elif findings.bad:
        click.echo(paint(f"{count(findings.bad, 'thing is', 'things are')} wrong.", BAD))
    else:
        click.echo(paint("Everything is well.", GOOD))
    return 1 if findings.bad else 0


def _certificates(reach: Reach, findings: Findings) -> list[Problem]:
    """Says what makes them useless; returns what will."""
    tls = reach.config.tls
    now, flawed = time.time(), ""
    ends: list[Problem] = []
    if tls.certificate and tls.key:
        for flaw in flaws_of(tls.certificate, tls.key, tls.ca, datetime.now(UTC)):
            what, _, cure = flaw.partition("; ")
            findings.wrong(what, cure or ISSUE)
            flawed += what
    for path in dict.fromkeys((tls.ca, tls.certificate, tls.public_certificate)):
        if path is None or str(path) in flawed:
            continue
        try:
            until = read_certificate(path).not_valid_after_utc.timestamp()
        except AuthorityError as problem:
            findings.wrong(str(problem), ISSUE)
            continue
        if ending := certificate_problem(str(path), until, now):
            ends.append(ending)
        else:
            findings.good(f"{path} is valid for {count(round((until - now) / DAY_S), 'day')}")
    return ends


async def _master(reach: Reach, findings: Findings) -> list[MailboxEntry]:
    try:
        target = reach.target
        hosts = dict.fromkeys([target.host, *(host for host, _ in target.others)])
        if not any([await _resolves(host, findings) for host in hosts]):
            return []
        rows = await reach.heads()
    except Refusal as problem:
        findings.wrong(problem.text, "set it in murder.toml")
        return []
    except UpstreamFailure as failure:
        findings.wrong(f"the master {failure.server}: {failure.problem}", cure_of(failure))
        return []
    findings.good(
        f"the master {reach.master.at} accepts our login and has {count(len(rows), 'mailbox', 'mailboxes')}"
    )
    stuck = [row for row in rows if not row.is_active]
    if stuck:
        findings.wrong(
            f"{count(len(stuck), 'name is', 'names are')} reserved at the master",
            "if it stays so: `murder ctl reservations`, then `murder ctl check --fix`",
        )
    return rows


async def _resolves(host: str, findings: Findings) -> bool:
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as problem:
        findings.wrong(f"{host} has no address ({problem.strerror})", DNS)
        return False
    return True


def tried() -> list[PortKey]:
    """The port of each protocol at a backend that is knocked at, by name."""
    served = [spec.keys[0] for spec in PROTOCOLS if BACKEND in spec.served_by]
    return sorted(served, key=lambda key: key.name)


async def _backend(reach: Reach, server: str, findings: Findings) -> None:
    host = reach.config.address_of(server)
    if not await _resolves(host, findings):
        return
    config = reach.config.server(server)
    closed: dict[str, list[str]] = {}
    ports = {key.name: config.port(key) for key in tried()} | dict(config.services)
    for name, port in ports.items():
        if problem := await _closed(host, port):
            closed.setdefault(problem, []).append(f"{name} ({port})")
    answers = sum(map(len, closed.values())) < len(ports)
    cure = "it runs, so has its [backend] those keys? a file of version 0.1 has no `sieve`; or a firewall?"
    for problem, where in closed.items():
        findings.wrong(
            f"{server}: {', '.join(where)} at {host}: {problem}",
            cure
            if answers
            else "does it run (`systemctl status murder`)? are they in its [backend]? a firewall?",
        )
    answer = await look(reach, server)
    if answer.problem:
        failure = UpstreamFailure(answer.kind, server, answer.problem, answer.cure)
        if answer.kind is not UpstreamKind.CONNECT:  # the port has said so
            findings.wrong(f"{server}: {answer.problem}", cure_of(failure))
    else:
        findings.good(
            f"{server} ({answer.software}) accepts our login and answers in {1000 * answer.answer_s:.1f} ms"
        )


async def _closed(host: str, port: int) -> str:
    """Why a port takes no connection; empty if it does."""
    try:
        async with asyncio.timeout(TRY_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except OSError as problem:  # TimeoutError is one
        return os.strerror(problem.errno) if problem.errno else f"no answer in {TRY_S:g} s"
    return ""


_CURES: Final = {
    "resolve": DNS,
    "connect": "is the node up? the port right? a firewall between?",
    "tls": "the certificate must be of the same authority (tls.ca) and carry the server's name, or set tls_name",
    "auth": "`murder ca issue NAME --role operator` for [operator], or an administrator's name and password",
    "lost": "its log tells more; does it know our certificate's authority (tls.ca)?",
    "timeout": "it is up and does not answer: its log, its disk, its load",
    "down": "it has just failed repeatedly: its log",
}


def cure_of(failure: UpstreamFailure) -> str:
    """The mending step."""
    return failure.cure or _CURES.get(failure.kind.value, "its log tells more")


async def _nodes(reach: Reach, findings: Findings) -> None:
    if not await learn(reach):
        findings.note(
            "no node is known: clocks, disks and lists of the nodes are not looked at",
            'control = ["*:3906"] in the [node] of each, and here an [operator] certificate and [mupdate] master; or '
            '[operator] nodes = ["mupdate.example.org", …]',
        )
        return
    now = time.time()
    told_by = await ask_all(reach, AskStatus())
    for node in told_by:
        if node.problem:
            findings.wrong(f"{node.name}: {node.problem}", node.cure)
            continue
        problems: list[Problem] = problems_of(node.by_role, now, node.place)
        for problem in problems:
            findings.wrong(f"{node.name}: {problem.what}", problem.cure)
        if not problems:
            findings.good(f"{node.name} is well")
    for whose, problem in namesakes(told_by):
        findings.wrong(f"{whose}: {problem.what}", problem.cure)
    _engine(told_by, findings)
    await _seats(reach, told_by, findings)


def _engine(told_by: Sequence[NodeAnswers], findings: Findings) -> None:
    """What several masters share."""
    problems = engine_problems(told_by)
    for whose, problem in problems:
        findings.wrong(f"{whose}: {problem.what}", problem.cure)
    masters, members = masters_of(told_by), members_of(told_by)
    if masters and not problems:
        leader = next((member.facts.name for member in members if member.facts.is_leader), "none")
        sharing = count(len(masters), "master shares", "masters share")
        keeping = count(len(members), "member keeps", "members keep")
        findings.good(f"{sharing} one list, {keeping} it; {leader} leads")


async def _seats(reach: Reach, told_by: Sequence[NodeAnswers], findings: Findings) -> None:
    """What each node sees from where it stands: a frontend its list and the backends, each its certificates. Of those that
    did not answer before that has been said."""
    away = {node.place for node in told_by if node.problem}
    for node in await ask_all(reach, AskProbe()):
        if node.problem:
            if is_too_old(node.problem):
                findings.note(f"{node.name} is too old to look for itself", "update it")
            elif node.place not in away:
                cure = "one of those that it asks may be slow: `murder auth test` there, and its log, tell more"
                findings.wrong(f"{node.name} has not looked for itself: {node.problem}", cure)
            continue
        seen = [parse_probed(answer) for answer in node.answers]
        # each worker looks at the certificates
        for seat in {(seat.what, seat.problem): seat for seat in seen}.values():
            if seat.problem:
                cure = ISSUE if seat.kind == "certificate" else ""
                cure = seat.cure or cure or _CURES.get(seat.kind, "its log tells more")
                about = "" if seat.kind in _CURES else f"{seat.what} "
                findings.wrong(f"seen from {node.name}: {about}{seat.problem}", cure)
            elif seat.took_ms is not None:
                findings.good(f"{seat.what} accepts {node.name}'s login, in {seat.took_ms} ms")
            else:
                findings.good(f"{node.name}: {seat.what} is well")


def _disk(reach: Reach, findings: Findings) -> None:
    data = reach.config.node.data
    if not data.is_dir():
        return
    if not os.access(data, os.W_OK):
        findings.wrong(
            f"{data} cannot be written by this user", f"run as node.user, or chown {data}"
        )
    usage = shutil.disk_usage(data)
    if usage.free < FREE_PART * usage.total:
        findings.wrong(f"{data} has {octets(usage.free)} left", "make room, or move users away")
