"""`murder auth test`: what the auth plugins of this node are, whether what they ask works, and what they say to somebody."""

import asyncio
import getpass
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import asyncclick as click

from murder.admin.cli.options import config_option, json_option, print_json
from murder.admin.cli.screen import plain
from murder.api.auth import LoginAttempt
from murder.api.sasl import Mechanism
from murder.auth.chain import Answer, Chain
from murder.auth.mechanisms import faults_of
from murder.config import Config, load_config
from murder.errors import Code, Refusal, UpstreamFailure
from murder.hooks import load_plugins
from murder.model.identity import Identity
from murder.serve.role import chain_of

EXIT_DONE, EXIT_FAILED, EXIT_UNREACHABLE = 0, 1, 3
SAID: Final = {
    "right": "accepts the login",
    "wrong": "knows the user; wrong password",
    "unknown": "does not know the user, or cannot tell; the next plugin is asked",
}
SAID_OF_TOKEN: Final = {**SAID, "wrong": "does not take it", "unknown": "does not take it"}


@click.command("test")
@click.argument("user", required=False, default="")
@click.option(
    "--token", "by_token", is_flag=True, help="Read a token (OAuth), a line, from standard input."
)
@click.option("--lookup", "only_lookup", is_flag=True, help="Ask without a password: who is it?")
@click.option("--protocol", default="imap", show_default=True, help="Come as by this protocol.")
@click.option("--address", default="127.0.0.1", show_default=True, help="Come from this address.")
@config_option()
@json_option("decided (the plugin, or empty), answers (plugin, said, took_ms), identity, faults")
async def try_login(
    user: str,
    by_token: bool,
    only_lookup: bool,
    protocol: str,
    address: str,
    config_file: Path,
    as_json: bool,
) -> int:
    """Ask the auth plugins of this murder.toml as a login would, and say which one decided, how long it took, and who it is;
    without USER: whether what they depend on works. The password is asked for, or read from standard input; nothing is
    counted, remembered or logged. Exit code 1: not let in; 3: something could not be asked.

    \b
    murder auth test
    murder auth test anna
    murder auth test anna --lookup
    murder auth test --token < token
    """
    config = load_config(config_file)
    plugins = load_plugins(config, ())
    chain = chain_of(config, plugins)
    if not user and not by_token:
        with _plugins_heard():
            rows = plugins.mechanisms()  # what is wrong with tickets is said as they are made
        return await _faults(chain, config.auth.timeout_s, rows, as_json)
    if only_lookup:
        return await _lookup(config, chain, user, as_json)
    if by_token:
        password = b""
    elif sys.stdin.isatty():
        password = getpass.getpass(f"Password of {user}: ").encode("utf-8")
    else:
        password = sys.stdin.buffer.readline().rstrip(b"\r\n")
    attempt = LoginAttempt(
        protocol, config.node.name, address, is_tls=True, session="test", mechanism="PLAIN"
    )
    try:
        async with asyncio.timeout(config.auth.timeout_s):
            with _plugins_heard():
                if by_token:
                    answers = await _try_token(chain, attempt, user)
                else:
                    answers = await chain.try_out(attempt, user, password)
    except Refusal as refusal:
        click.echo(f"murder: login refused: {refusal.text}", err=True)
        return EXIT_FAILED
    except (UpstreamFailure, TimeoutError) as failure:
        return await _away(config, chain, failure)
    return _show(user, answers, as_json, by_token=by_token)


@contextmanager
def _plugins_heard() -> Iterator[None]:
    """What they would write into the log: why somebody is not let in."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("murder: %(message)s"))
    plugins = logging.getLogger("murder.plugins")
    plugins.addHandler(handler)
    try:
        yield
    finally:
        plugins.removeHandler(handler)


async def _try_token(chain: Chain, attempt: LoginAttempt, user: str) -> list[Answer]:
    """What each plugin that takes tokens says of the one on standard input. Raises Refusal where none does."""
    if not chain.token_checkers:
        raise Refusal(Code.CANNOT, "No plugin of [auth] takes tokens")
    token = sys.stdin.readline().strip()
    how = replace(attempt, mechanism="OAUTHBEARER")
    answers: list[Answer] = []
    for link, checker in chain.token_checkers:
        began = time.monotonic()
        said = await checker.check_token(how, user, token)
        took_s = time.monotonic() - began
        if isinstance(said, Identity):
            return [*answers, Answer(link.name, "right", took_s, said)]
        answers.append(Answer(link.name, said.value, took_s))
    return answers


def _show(user: str, answers: Sequence[Answer], as_json: bool, *, by_token: bool) -> int:
    last = answers[-1]
    decided = last.plugin if last.said != "unknown" else ""
    if as_json:
        rows = [
            {
                "plugin": answer.plugin,
                "said": answer.said,
                "took_ms": round(answer.took_s * 1000, 1),
            }
            for answer in answers
        ]
        print_json(
            {
                "decided": decided,
                "answers": rows,
                "identity": facts(last.identity) if last.identity else None,
                "faults": [],
            }
        )
        return EXIT_DONE if last.identity else EXIT_FAILED
    for answer in answers:
        said = (SAID_OF_TOKEN if by_token else SAID)[answer.said]
        click.echo(f"{answer.plugin}: {said} ({answer.took_s * 1000:.1f} ms)")
    if last.identity:
        _tell(last.identity)
        return EXIT_DONE
    if by_token:
        click.echo("the token: not taken by any plugin")
    else:
        click.echo(f"{plain(user)}: not let in" + ("" if decided else ": no plugin knows them"))
    return EXIT_FAILED


async def _lookup(config: Config, chain: Chain, user: str, as_json: bool) -> int:
    began = time.monotonic()
    try:
        async with asyncio.timeout(config.auth.timeout_s):
            answer = await chain.find(user)
    except (UpstreamFailure, TimeoutError) as failure:
        return await _away(config, chain, failure)
    took_ms = (time.monotonic() - began) * 1000
    if as_json:
        print_json(
            {
                "decided": answer.plugin if answer else "",
                "answers": [],
                "identity": facts(answer.identity) if answer else None,
                "faults": [],
            }
        )
    elif answer:
        click.echo(f"{answer.plugin}: knows them ({took_ms:.1f} ms)")
        _tell(answer.identity)
    else:
        click.echo(f"{plain(user)}: no plugin knows them ({took_ms:.1f} ms)")
    return EXIT_DONE if answer else EXIT_FAILED


def facts(identity: Identity) -> dict[str, Any]:
    """An identity, for a program."""
    return {
        "user": identity.user,
        "groups": sorted(identity.groups),
        "addresses": list(identity.addresses),
        "name": identity.name,
        "host": identity.host,
        "fields": dict(identity.fields),
        "expires_at": identity.expires_at,
    }


def _tell(identity: Identity) -> None:
    for key, value in facts(identity).items():
        if isinstance(value, list):
            value = ", ".join(value)
        if isinstance(value, dict):
            value = ", ".join(f"{name}={inner}" for name, inner in sorted(value.items()))
        if value not in ("", None):
            click.echo(f"  {key:<10} {plain(str(value))}")


async def _away(config: Config, chain: Chain, failure: Exception) -> int:
    text = (
        str(failure)
        or f"no answer in {config.auth.timeout_s:g} s (auth.timeout_s); look at the load of what it asks"
    )
    click.echo(f"murder: cannot be asked now: {plain(text)}", err=True)
    for name, fault in await chain.faults(config.auth.timeout_s):
        if fault.what in text and fault.cure in text:
            continue
        click.echo(f"murder: {name}: {plain(fault.what)}", err=True)
        click.echo(f"murder:   {plain(fault.cure)}", err=True)
    return EXIT_UNREACHABLE


async def _faults(chain: Chain, most_s: float, rows: Sequence[Mechanism], as_json: bool) -> int:
    faults = await chain.faults(most_s) + await faults_of(rows)
    if as_json:
        listed = [
            {"plugin": name, "what": fault.what, "cure": fault.cure} for name, fault in faults
        ]
        print_json({"decided": "", "answers": [], "identity": None, "faults": listed})
        return EXIT_UNREACHABLE if faults else EXIT_DONE
    looked_at = [row.name for row in rows if row.diagnose is not None]
    for name in [*(link.name for link in chain.links), *looked_at]:
        wrong = [fault for owner, fault in faults if owner == name]
        click.echo(f"{name}: {'well' if not wrong else 'WRONG'}")
        for fault in wrong:
            click.echo(f"  {plain(fault.what)}\n  -> {plain(fault.cure)}")
    return EXIT_UNREACHABLE if faults else EXIT_DONE
