"""What the site adds to its users' scripts: `[sieve]` of murder.toml, its files read. Made at the start and at a reload."""

import os
import pwd
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from murder.config import Config
from murder.config.sieve import ImapScriptRule, SieveConfig
from murder.errors import Code, Refusal, unreadable
from murder.model.query.listmatch import compile_pattern
from murder.roles.backend.scripts.check import Compiler
from murder.roles.backend.scripts.lists import Lists
from murder.roles.backend.scripts.programs import Programs
from murder.sieve import CAPABILITIES, PROGRAMS, BadScript, Policy, Scale
from murder.wire import mutf7

SUFFIX: Final = ".sieve"
MAX_SCRIPTS: Final = 1000  # of the site's folder
MAX_SCRIPT_OCTETS: Final = 1024 * 1024  # of one


@dataclass(frozen=True, slots=True)
class SiteScript:
    """`name` is its path, for the log."""

    name: str
    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ImapRule:
    """One of `[sieve.imap]`, with its patterns ready."""

    asks: ImapScriptRule
    script: SiteScript
    mailbox: re.Pattern[bytes]
    origin: re.Pattern[bytes]


@dataclass(frozen=True, slots=True)
class Site:
    """See the module. `named`: the scripts of its folder by name; `compiler` is for all of the site's scripts, `users` for
    those of users, who may have fewer programs."""

    compiler: Compiler
    users: Compiler
    lists: Lists
    programs: Programs
    before: Sequence[SiteScript] = ()
    after: Sequence[SiteScript] = ()
    named: Mapping[str, SiteScript] = field(default_factory=dict)
    imap: Sequence[ImapRule] = ()
    tells_users: bool = False


def load_site(config: Config) -> Site:
    """Raises Refusal where a file cannot be read."""
    sieve, namespace = config.sieve, config.namespace.namespace()
    policy = _policy_of(sieve)
    programs = Programs(config.programs)
    known = CAPABILITIES - PROGRAMS
    own = Compiler(
        config.backend.max_script_bytes,
        known | programs.words(for_users=True),
        namespace,
        policy,
    )
    site = Compiler(MAX_SCRIPT_OCTETS, known | programs.words(for_users=False), namespace, policy)
    try:
        return Site(
            site,
            own,
            Lists(sieve.lists),
            programs,
            [_read(path) for path in sieve.before],
            [_read(path) for path in sieve.after],
            _named_in(sieve.folder) if sieve.folder is not None else {},
            [_rule_of(rule, namespace.separator) for rule in config.imap.values()],
            sieve.errors_to == "inbox",
        )
    except OSError as error:
        path = Path(error.filename or "")
        raise Refusal(Code.CANNOT, f"{path}: the script {unreadable(path, error)}") from error


def flaws_of_site(config: Config) -> Iterator[tuple[str, str]]:
    """What is wrong with the site's scripts and programs, each with the key that names it."""
    for name, program in config.programs.items():
        path = program.command[0] if program.command else ""
        if not path.startswith("/") or not os.access(path, os.X_OK):
            yield (
                f'sieve.programs."{name}".command',
                f"{path or '[]'} is no program by its whole path",
            )
        if program.user and not _is_user(program.user):
            yield f'sieve.programs."{name}".user', f"this system has no user {program.user}"
    try:
        site = load_site(config)
    except Refusal as refusal:
        yield "sieve", str(refusal)
        return
    rules = (rule.script for rule in site.imap)
    for script in dict.fromkeys((*site.before, *site.after, *site.named.values(), *rules)):
        try:
            site.compiler.cache.compile(script.octets)
        except BadScript as bad:
            yield from (("sieve", f"{script.name}: {problem}") for problem in bad.problems)


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _read(path: Path) -> SiteScript:
    with path.open("rb") as file:
        return SiteScript(str(path), file.read(MAX_SCRIPT_OCTETS + 1))


def _rule_of(rule: ImapScriptRule, separator: bytes) -> ImapRule:
    """Raises OSError."""
    mailbox, origin = (
        compile_pattern(mutf7.encode(pattern), separator)
        for pattern in (rule.mailbox, rule.from_mailbox)
    )
    return ImapRule(rule, _read(rule.script), mailbox, origin)


def _named_in(folder: Path) -> Mapping[str, SiteScript]:
    paths = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    return {path.stem: _read(path) for path in paths[:MAX_SCRIPTS]}


def _policy_of(config: SieveConfig) -> Policy:
    spam = Scale(
        config.spam_field,
        config.spam_pattern,
        config.spam_kind,
        config.spam_maximum,
        _verdicts(config.spam_texts),
    )
    virus = Scale(
        config.virus_field,
        config.virus_pattern,
        config.virus_kind,
        config.virus_maximum,
        _verdicts(config.virus_texts),
    )
    return Policy(spam=spam, virus=virus)


def _verdicts(texts: Mapping[str, str]) -> Mapping[int, str]:
    return {int(verdict): text for verdict, text in texts.items() if verdict.isdigit()}
