"""Every key of `[sieve]` and of the sections in it: what a site adds to its users' filters. As `config.sections`."""

# ruff: noqa: RUF009 (`option` is dataclasses.field with a doc, not a shared value)

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from murder.config.value import option, required


@dataclass(frozen=True, slots=True)
class SieveConfig:
    """Backends: what the site adds to its users' Sieve scripts. Files are read at the start and at a reload (SIGHUP)."""

    before: tuple[Path, ...] = option(
        (),
        "Scripts that run before each user's own, also for those who have none; the next one runs if the message would be "
        "kept.",
        example='["/etc/murder/before.sieve"]',
        must_exist=True,
    )
    after: tuple[Path, ...] = option(
        (),
        "Scripts that run behind each user's own, if the message would be kept.",
        example='["/etc/murder/after.sieve"]',
        must_exist=True,
    )
    folder: Path | None = option(
        None,
        "Scripts of the site, NAME.sieve each: what `include :global` names, and what runs for a shared mailbox whose "
        "annotation /shared/vendor/cmu/cyrus-imapd/sieve names one.",
        example='"/etc/murder/sieve"',
        must_exist=True,
    )
    lists: Mapping[str, Path] = option(
        {},
        "External lists (`:list`, RFC 6134), by name: files with a value a line, read anew when they have changed.",
        example='{"partners" = "/etc/murder/partners"}',
        by_name=True,
        must_exist=True,
    )
    errors_to: Literal["log", "inbox"] = option(
        "log",
        "Who is told that a user's script fails: the log alone, or also the user, by a mail in their INBOX, once a week at "
        "most for the same error.",
    )
    spam_field: str = option(
        "",
        "The header field in which a spam filter before us writes its score, for `spamtest`; empty: not tested.",
        example='"X-Spam-Score"',
    )
    spam_pattern: str = option(
        "",
        "What in it is the score: a regular expression with one group; empty: all of it.",
        example='"score=(-?[0-9.]+)"',
    )
    spam_kind: Literal["score", "strlen", "text"] = option(
        "score", "How it is read: a number, its length in characters, or one of `spam_texts`."
    )
    spam_maximum: str = option(
        "",
        "The score that is certainly spam: a number, or `FIELD: PATTERN` of where it stands.",
        example='"15"',
    )
    spam_texts: Mapping[str, str] = option(
        {}, "By verdict, 0 to 10, its text.", example='{"1" = "No", "10" = "Yes"}', by_name=True
    )
    virus_field: str = option(
        "",
        "The same for `virustest`: the header field.",
        example='"X-Virus-Scan"',
    )
    virus_pattern: str = option("", "As spam_pattern.", example='"Found to be (.+)"')
    virus_kind: Literal["score", "strlen", "text"] = option("text", "As spam_kind.")
    virus_maximum: str = option("", "As spam_maximum.", example='"5"')
    virus_texts: Mapping[str, str] = option(
        {},
        "By verdict, 0 to 5, its text.",
        example='{"1" = "clean", "5" = "infected"}',
        by_name=True,
    )


@dataclass(frozen=True, slots=True)
class ProgramConfig:
    """A program that scripts may run by its NAME (`pipe`, `filter`, `execute`: Pigeonhole's vnd.dovecot.pipe and the like).
    It gets the message at its standard input, and USER, SENDER, RECIPIENT, HOME=/ and PATH in its environment."""

    command: tuple[str, ...] = required(
        "The program, by its whole path, and its first arguments; the script's come behind them.",
        example='["/usr/bin/rspamc", "learn_spam"]',
    )
    uses: tuple[Literal["pipe", "filter", "execute"], ...] = option(
        ("pipe",), "What scripts may do with it.", example='["pipe", "filter"]'
    )
    by: Literal["site", "users"] = option(
        "site", "Whose scripts may run it: those of the site alone, or its users', too."
    )
    user: str = option(
        "",
        "The system's user it runs as: at once where the server is root, else by `sudo -n -u USER` (which sudoers must "
        "allow to the server's own user); empty: the server's own.",
        example='"learner"',
    )
    timeout_s: float = option(10.0, "Then it is ended, and has failed.", least=0.01, most=60)
    max_output_bytes: int = option(
        4 * 1024 * 1024, "Octets that it may say; more, and it has failed.", least=1
    )


@dataclass(frozen=True, slots=True)
class ImapScriptRule:
    """A script of the site that runs behind what clients do by IMAP (imapsieve, RFC 6785): so a spam filter learns of what
    is moved into Junk, and out of it. Any NAME, as many as are wanted; they run in the order of the file, and before the one
    of the user's own scripts that the annotation /shared/imapsieve/script of the mailbox (or of the server) names."""

    script: Path = required("The script.", example='"/etc/murder/learn-spam.sieve"')
    mailbox: str = option(
        "*",
        "Where the message is, with * and %, as its user calls it.",
        example='"INBOX/Junk"',
    )
    special_use: str = option("", "Only where that is this to the user.", example='"\\\\Junk"')
    from_mailbox: str = option(
        "*", "Where it was copied or moved from, as `mailbox`; an APPEND is from nowhere."
    )
    causes: tuple[Literal["APPEND", "COPY", "FLAG"], ...] = option(
        ("APPEND", "COPY"), "What has been done; a MOVE is a COPY, FLAG a change of flags."
    )
