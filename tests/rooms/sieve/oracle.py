"""The same scripts and messages through `sieve-test` of Debian's dovecot-sieve, and what it says is to be done.

    python -m tests.rooms.sieve.oracle COUNT [FIRST]

compares so many generated scripts, from a seed on, and tells each that comes out otherwise. Where the two differ, and why:

- `:index` with `:count` of a field that is there once: sieve-test counts none. Not generated.
- `:count` of a part of addresses: sieve-test counts addresses that have no such part, too. Not generated.
- A second `fileinto` or `redirect`, without the first one's `:copy`: ours takes the implicit keep back (RFC 3894 §3).
- A keep and a `fileinto "INBOX"`: sieve-test sets the flags that came last, who stores for us sets those of both.
- A mailbox with a line end in its name: an error at run time here, as no IMAP server can have it.
- `date :index 2 :zone` of a field that is there once: sieve-test takes that one; without `:zone` it takes none, as ours.
- `date` of a field that is there more than once: sieve-test takes any of them, ours the first (RFC 5260 §4). Not generated.
- `date "iso8601"` in UTC: `+00:00` there, `Z` here (RFC 5260 §4.2).
- A second reject: sieve-test says nothing of it where both have the same words; an error here (RFC 5429 §2.4).
- `\\f` in a regular expression, as in `hasflag :regex "\\\\flagged"`: a form feed here, as for PCRE; the letter there.
- `body :raw` behind a `deleteheader`: sieve-test finds no body any more.
- `string` without a comparator: i;octet there, i;ascii-casemap here (RFC 5228 §2.7.3); both are asked with i;octet.

Not generated, and found by scripts written for it (3,110 pairs):

- `?` in `:matches`: one octet there, one character here (RFC 5228 §2.7.1).
- `${32}` and above: empty there, or another one behind 2^32; an error here (RFC 5229 §3.2).
- `\\<`, and a backslash within brackets of an expression: as GNU's there, as Perl's here, and as in a Cyrus with PCRE.
- `header :mime :anychild`: there it ends with the first message within the message.
- `foreverypart` within another, in a message with a message: corrupt binary there.
- `currentdate "nothing"`, `addheader ""`, `deleteheader :index 0`, `:last` without `:index`: errors here.
- ereject: not known there.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from murder.sieve import BadScript, FileInto, Keep, Notify, Policy, Redirect, Reject, Reply
from tests.rooms.sieve.generate import generate
from tests.rooms.sieve.running import run

PROGRAM = "sieve-test"
LIBRARIES = "/usr/lib/dovecot"
SENDER, RECIPIENT = "ann@example.org", "carl+lists@example.org"
EXTENSIONS = "+editheader"
POLICY = Policy(string_comparator="i;octet")
# Where ours is stricter: no IMAP server has a mailbox with a line end in its name
EXPLAINED = ("it has control characters",)
# What sieve-test is known to have otherwise, by the script, where the actions differ
KNOWN = (
    re.compile(r"date :index \d+ (?::last )?:zone"),
    re.compile(r'hasflag :regex [^{]*"\\\\f'),
    re.compile(r"(?s)deleteheader.*body :raw"),
)
FAILED = ["failure"]
INBOX = ["store", "INBOX"]

_ACTION = re.compile(r"^ \* (.*)$")
_STORE = re.compile(r"store message in folder: (.*)")
_REDIRECT = re.compile(r"redirect message to: <(.*)>")


def their_actions(folder: Path, script: str, message: bytes) -> list[str]:
    """What sieve-test would do, in order of words; `failure` where the script is not run to its end."""
    (folder / "s.sieve").write_text(script)
    (folder / "m.eml").write_bytes(message)
    home = folder / "home"
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "LD_LIBRARY_PATH": LIBRARIES,
        "DOVECONF_ENV": "1",
        "MAIL_LOCATION": f"maildir:{home}/Maildir",
        "MAIL_HOME": str(home),
        "MAIL_UID": "65534",
        "MAIL_GID": "65534",
        "FIRST_VALID_UID": "0",
        "USER": "root",
        "HOME": str(home),
    }
    words = [
        PROGRAM,
        "-a",
        RECIPIENT,
        "-r",
        RECIPIENT,
        "-f",
        SENDER,
        "-x",
        EXTENSIONS,
        "s.sieve",
        "m.eml",
    ]
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, timeout=60, check=False
    )
    said = done.stdout.decode("utf-8", "replace")
    if "final result: success" not in done.stderr.decode("utf-8", "replace"):
        return [*FAILED, done.stderr.decode("utf-8", "replace")[-400:]]
    return _gathered(parse_actions(said))


def _without_inbox(actions: list[str]) -> list[str]:
    return [one for one in actions if one.split()[:2] != INBOX]


def _without_inbox_flags(actions: list[str]) -> list[str]:
    """Of a keep and a `fileinto "INBOX"` Pigeonhole sets the flags that came last; who stores for us sets all."""
    return [" ".join(one.split()[:2]) if one.split()[:2] == INBOX else one for one in actions]


def _gathered(actions: list[str]) -> list[str]:
    """In order of words; all copies for the INBOX are one, and a discard beside others says nothing."""
    flags = {word for one in actions if one.split()[:2] == INBOX for word in one.split()[2:]}
    others = {one for one in actions if one.split()[:2] != INBOX and one != "discard"}
    if any(one.split()[:2] == INBOX for one in actions):
        others.add(" ".join([*INBOX, *sorted(flags)]))
    return sorted(others) or ["discard"]


def parse_actions(said: str) -> list[str]:
    found: list[str] = []
    for line in said.splitlines():
        action = _ACTION.match(line)
        if action is None:
            flags = line.partition("+ add IMAP flags: ")[2]
            if flags:
                found[-1] += " " + " ".join(sorted({flag.lower() for flag in flags.split()}))
            continue
        words = action[1]
        if (store := _STORE.match(words)) is not None:
            found.append(f"store {store[1]}")
        elif (redirect := _REDIRECT.match(words)) is not None:
            found.append(f"redirect {redirect[1].lower()}")
        else:
            found.append(words.split()[0] if words.startswith("discard") else words)
    return found


def our_actions(script: str, message: bytes) -> list[str]:
    try:
        outcome = run(script, message=message, sender=SENDER, recipient=RECIPIENT, policy=POLICY)
    except BadScript as bad:
        return [*FAILED, str(bad)]
    if outcome.failure is not None:
        return [*FAILED, str(outcome.failure)]
    found: dict[str, str] = {}
    for action in outcome.actions:
        match action:
            case Keep(flags=flags):
                _store(found, "INBOX", flags)
            case FileInto(target=target, flags=flags):
                _store(found, target.mailbox, flags)
            case Redirect(address=address):
                found[f"redirect {address.lower()}"] = ""
            case Reject() | Reply() | Notify():
                found[type(action).__name__.lower()] = ""
            case _:
                found["discard"] = ""
    return _gathered([f"{name} {flags}".strip() for name, flags in found.items()])


def _store(found: dict[str, str], name: str, flags: tuple[str, ...] | None) -> None:
    before = found.get("store INBOX", "").split() if name == "INBOX" else []
    found[f"store {name}"] = " ".join(sorted({*before, *(flag.lower() for flag in flags or ())}))


def differences(count: int, first: int = 0) -> list[str]:
    """Seeds that come out otherwise, with what either says."""
    told = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "home" / "Maildir").mkdir(parents=True)
        for path in (folder, folder / "home", folder / "home" / "Maildir"):
            path.chmod(0o777)  # it runs as nobody
        for seed in range(first, first + count):
            script, message = generate(seed)
            theirs, ours = their_actions(folder, script, message), our_actions(script, message)
            if theirs[:1] == FAILED and ours[:1] == FAILED:
                continue
            if ":copy" in script and _without_inbox(theirs) == _without_inbox(ours):
                continue  # a second action without `:copy` takes the keep back (RFC 3894 §3); not theirs
            if any(why in " ".join(ours) for why in EXPLAINED):
                continue
            if theirs != ours and any(one.search(script) for one in KNOWN):
                continue
            if theirs != ours and _without_inbox_flags(theirs) != _without_inbox_flags(ours):
                told.append(f"seed {seed}: sieve-test {theirs}, ours {ours}")
    return told


if __name__ == "__main__":
    found = differences(*map(int, sys.argv[1:3]))
    print("\n".join(found))
    print(f"{len(found)} come out otherwise")
    raise SystemExit(1 if found else 0)
