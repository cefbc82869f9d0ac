"""What the commands share that reach a whole murder: the configuration, who the operator is, who can be asked."""

import contextlib
import functools
import getpass
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncclick as click

from murder.admin.cli.options import config_option
from murder.admin.operate.backends import all_backends as all_backends
from murder.admin.operate.backends import find_backend as find_backend
from murder.admin.operate.reach import Reach, is_of_master, reaching
from murder.config import Config, load_config
from murder.errors import Code, Refusal, UpstreamFailure
from murder.node.control.sockets import OPERATOR_ROLE
from murder.pki.authority import AuthorityError, date_flaws, read_certificate, roles_of


def ask_password(user: str, otherwise: str = "[operator] password_file, or a certificate") -> str:
    """From the terminal. Raises Refusal where there is none, with what else there is."""
    if not sys.stdin.isatty():
        text = (
            f"the password of {user} is needed, and there is no terminal to ask at: use {otherwise}"
        )
        raise Refusal(Code.CANNOT, text)
    return getpass.getpass(f"Password of {user}: ")


def operator_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--config` and `--as USER`; the command gets a Reach first."""

    @functools.wraps(command)
    async def run(*args: Any, config_file: Path, as_user: str | None, **more: Any) -> Any:
        config = load_config(config_file)
        if as_user:
            operator = config.operator
            password = operator.password if operator.user == as_user else ""
            operator = replace(
                operator, certificate=None, key=None, user=as_user, password=password
            )
            config = replace(config, operator=operator)
        async with reaching(config, ask_password) as reach:
            _say_what_ended(config)
            if sys.stderr.isatty():
                reach.notice = functools.partial(click.echo, err=True)
            try:
                return await command(reach, *args, **more)
            except UpstreamFailure as failure:
                raise _of_master(reach, failure) from failure
            except Refusal as refusal:
                raise _of_nobody(config, refusal) from refusal

    named = click.option(
        "--as",
        "as_user",
        default=None,
        metavar="USER",
        help="Log in with the password of this administrator in place of [operator].",
    )
    return config_option()(named(run))


def _say_what_ended(config: Config) -> None:
    """Of the operator's own certificate: nodes hang up on it, and cannot say why."""
    path = config.operator.certificate
    if path is not None:
        with contextlib.suppress(AuthorityError):  # whoever uses it says that
            for flaw in date_flaws(path, read_certificate(path), datetime.now(UTC)):
                click.echo(f"murder: {flaw}", err=True)


def _of_nobody(config: Config, refusal: Refusal) -> Refusal:
    """The same; where who is refused is a node, as whom its own file has us log in, with that, and what to do."""
    operator, own = config.operator, config.tls.certificate
    if (
        refusal.code is not Code.NO_PERMISSION
        or operator.user
        or operator.certificate
        or own is None
    ):
        return refusal
    if OPERATOR_ROLE in roles_of(read_certificate(own)):
        return refusal
    text = (
        f"{refusal.text}\n{config.file} has no [operator], so {own.name} was shown, which is no operator's: name an "
        "operator's file with --config, give this one [operator] certificate and key (`murder ca issue NAME --role "
        "operator`), or log in with --as ADMIN"
    )
    return Refusal(refusal.code, text)


def _of_master(reach: Reach, failure: UpstreamFailure) -> UpstreamFailure:
    """The same; where it is the master that cannot be reached, with that, and what to do."""
    if not is_of_master(reach.config, failure):
        return failure
    text = (
        f"{failure.text}\n[mupdate] master of {reach.config.file} names it; just started, it needs some seconds; "
        "`murder ctl doctor` looks at what is in the way"
    )
    return UpstreamFailure(failure.kind, f"the master, {failure.server}", text)


def yes_option(what: str) -> Callable[..., Any]:
    """`--yes`."""
    return click.option(
        "--yes", is_flag=True, help=f"Do it, instead of only showing the plan: {what}."
    )


def keep_rights_option(what: str) -> Callable[..., Any]:
    """`--keep-rights`."""
    return click.option("--keep-rights", is_flag=True, help=f"Leave {what} as it is.")
