"""`murder ctl sieve` on a running murder: a user's scripts put, activated, tried and removed, as an operator does it."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.demo import Demo, message, reconfigure, running_demo
from tests.kit.process import ROOT, murder_command
from tests.rooms.cli.ctl.test_ctl_mailboxes import Ctl

RULES = """require ["fileinto", "mailbox", "include", "vacation"];
if mailboxexists "INBOX/Lists" {
    if header :contains "subject" "[list]" {
        fileinto "INBOX/Lists"; stop;
    }
}
include :personal "rest";
"""
REST = 'require "envelope"; if not envelope "to" "user1@example.org" { discard; }\n'


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", "2", "--no-tls-required") as running:
        yield running


@pytest.fixture
def eml(tmp_path: Path) -> Path:
    file = tmp_path / "message.eml"
    file.write_bytes(message("[list] news"))
    return file


def delivered(demo: Demo, user: str, octets: bytes) -> None:
    """Through the frontend; a server that says otherwise is named here, not by what is missed later."""
    answer = demo.deliver(demo.frontend, user, octets)
    assert answer.startswith("250 "), f"{user}: {answer or 'no answer in time'}"


def test_a_script_is_kept_filters_and_is_removed(ctl: Ctl, demo: Demo, tmp_path: Path) -> None:
    script = 'require "imap4flags";\nsetflag "\\\\Answered";\n# \u00fc\n'
    file = tmp_path / "flags.sieve"
    file.write_text(script, encoding="utf-8")
    kept = ctl.json("sieve", "put", "user2", "flags", str(file))
    assert kept["octets"] == len(script.encode()) and kept["warnings"] == []
    assert ctl("sieve", "list", "user2") == "flags\n"
    assert ctl("sieve", "get", "user2", "flags") == script
    delivered(demo, "user2", message("before"))
    ctl("sieve", "activate", "user2", "flags")
    assert ctl.json("sieve", "list", "user2")["scripts"] == [{"name": "flags", "active": True}]
    delivered(demo, "user2", message("after"))
    client = demo.imap(demo.frontend, "user2")
    client.select("INBOX")
    assert client.search(None, "ANSWERED")[1] == [b"2"]
    client.logout()

    assert "active" in ctl("sieve", "delete", "user2", "flags", "--yes", code=1)
    ctl("sieve", "deactivate", "user2")
    assert "Re-run with --yes" in ctl("sieve", "delete", "user2", "flags", code=2)
    assert ctl("sieve", "list", "user2") == "flags\n"
    ctl("sieve", "delete", "user2", "flags", "--yes")
    assert ctl.json("sieve", "list", "user2")["scripts"] == []
    assert "no script flags" in ctl("sieve", "get", "user2", "flags", code=1)
    acts = json.loads(ctl("audit", "--user", "user2", "--operator", "operator", "--json"))
    done = [
        one["event"] for one in acts if one.get("protocol") == "sieve" and one["result"] == "OK"
    ]
    assert done == ["PUTSCRIPT", "SETACTIVE", "SETACTIVE", "DELETESCRIPT"]


def test_a_wrong_script_is_not_taken_and_its_errors_have_their_places(
    ctl: Ctl, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.sieve"
    file.write_text('require "fileinto";\n  fileinto 3;\nnonsense;\n')
    told = ctl.json("sieve", "put", "user1", "wrong", str(file), code=1)
    places = [(one["line"], one["column"]) for one in told["errors"]]
    assert places == [(2, 12), (3, 1)]
    assert "line 2, column 12: " in ctl("sieve", "put", "user1", "wrong", str(file), code=1)
    assert "no script wrong" in ctl("sieve", "get", "user1", "wrong", code=1)
    assert "knows no mailbox" in ctl("sieve", "put", "nobody", "x", str(file), code=1)


def test_what_a_script_would_do_is_told_by_line_and_nothing_is_delivered(
    ctl: Ctl, demo: Demo, eml: Path
) -> None:
    nothing = ctl.json("sieve", "trace", "user1", str(eml))
    assert (nothing["script"], [one["action"] for one in nothing["actions"]]) == (None, ["keep"])
    assert "names nobody" in ctl("sieve", "trace", "", str(eml), code=1)
    ctl("sieve", "put", "user1", "rules", given=RULES)
    ctl("sieve", "put", "user1", "rest", given=REST)
    ctl("sieve", "activate", "user1", "rules")

    told = ctl.json("sieve", "trace", "user1@example.org", str(eml))
    assert told["actions"] == [
        {
            "action": "keep",
            "script": "",
            "line": 0,
            "include": "",
            "flags": [],
            "implicit": True,
        }
    ]
    asked = [(one["question"], one["answer"], one["assumed"]) for one in told["asked"]]
    assert ("is there a mailbox INBOX/Lists", "no", False) in asked
    said = ctl("sieve", "trace", "user1", str(eml))
    assert "script rules at " in said
    assert "  rest: line 1: envelope: false\n" in said and said.endswith("discard (rest line 1)\n")

    ctl("mailbox", "create", "user/user1/Lists")
    filed = ctl.json("sieve", "trace", "user1@example.org", str(eml))
    (action,) = filed["actions"]
    assert (action["action"], action["mailbox"], action["line"]) == ("fileinto", "INBOX/Lists", 4)
    steps = [(one["line"], one["word"], one["outcome"]) for one in filed["steps"]]
    assert steps[:2] == [(2, "mailboxexists", "true"), (3, "header", "true")]
    client = demo.imap(demo.frontend, "user1")
    for name in ("INBOX", "INBOX/Lists"):
        assert client.select(name)[1] == [b"0"], name
    client.logout()


def test_files_are_checked_and_tried_without_a_server(eml: Path, tmp_path: Path) -> None:
    def run(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [*murder_command(), "ctl", "sieve", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    file = tmp_path / "rules.sieve"
    file.write_text(RULES)
    assert "is right" in run("check", str(file))
    assert "fileinto mailbox INBOX/Lists (line 4)\n" in run("test", str(file), str(eml))
    file.write_text('require "envelope";\nif envelope :is "from" "a@b.c" { discard; }\n')
    tried = ("test", str(file), str(eml), "--envelope-from", "a@b.c", "--json")
    assert [one["action"] for one in json.loads(run(*tried))["actions"]] == ["discard"]
    file.write_text("keep")
    assert "rules.sieve: line 1, column " in run("check", str(file), code=1)


SITE = {
    "before": 'require ["fileinto", "include"];\n'
    'if header :contains "subject" "spam" { fileinto "INBOX/Lists"; stop; }\ninclude :global "word";\n',
    "after": 'require ["imap4flags", "spamtest"];\naddflag "$after";\nif spamtest "10" { addflag "$ten"; }\n',
    "named/word": 'require "imap4flags";\naddflag "$word";\n',
    "named/shared": 'if header "subject" "[list] news" { discard; }\n',
}


@pytest.fixture
def site(tmp_path: Path) -> str:
    """[sieve] of a node's murder.toml, its files there."""
    (tmp_path / "named").mkdir()
    for name, text in SITE.items():
        (tmp_path / f"{name}.sieve").write_text(text)
    return (
        f'[sieve]\nbefore = ["{tmp_path}/before.sieve"]\nafter = ["{tmp_path}/after.sieve"]\n'
        f'folder = "{tmp_path}/named"\nspam_field = "X-Score"\nspam_maximum = "5"\n'
    )


def test_the_sites_scripts_are_shown_where_they_decide_in_their_order(
    ctl: Ctl, demo: Demo, site: str, tmp_path: Path
) -> None:
    eml = tmp_path / "message.eml"
    eml.write_bytes(b"X-Score: 9\r\n" + message("[list] news"))
    spam = tmp_path / "spam.eml"
    spam.write_bytes(message("spam"))
    ctl("sieve", "put", "user2", "own", given='require "imap4flags"; addflag "$own";')
    ctl("sieve", "activate", "user2", "own")
    home = demo.home(2)
    reconfigure(demo, home["node"], "[node]\n", f"{site}\n[node]\n")
    admin = demo.imap(home, demo.info["admin"]["user"], demo.info["admin"]["password"])
    assert admin.create("list")[0] == admin.setacl("list", "anyone", "lrsp")[0] == "OK"
    entry = "/shared/vendor/cmu/cyrus-imapd/sieve"
    assert admin.xatom("SETMETADATA", "list", f'({entry} "shared")')[0] == "OK"
    admin.logout()

    told = ctl.json("sieve", "trace", "user2@example.org", str(eml))
    before, after = f"{tmp_path}/before.sieve", f"{tmp_path}/after.sieve"
    assert told["scripts"] == [
        {"name": before, "owner": ""},
        {"name": "own", "owner": "user2"},
        {"name": after, "owner": ""},
    ]
    steps = [(one["script"], one["include"], one["word"]) for one in told["steps"]]
    assert steps == [
        (before, "", "header"),
        (before, "", "include"),
        (before, "word", "addflag"),
        ("own", "", "addflag"),
        (after, "", "addflag"),
        (after, "", "spamtest"),
        (after, "", "addflag"),
    ]
    (kept,) = told["actions"]
    assert kept["flags"] == ["$word", "$own", "$after", "$ten"]
    delivered(demo, "user2", eml.read_bytes())  # and so it comes to be
    client = demo.imap(demo.frontend, "user2")
    client.select("INBOX")
    for flag in kept["flags"]:
        assert client.search(None, "KEYWORD", flag)[1][0].split(), flag
    client.logout()

    said = ctl("sieve", "trace", "user2@example.org", str(spam)).splitlines()
    assert said[0].startswith("user2@example.org -> user/user2: 3 scripts at ")
    assert [line for line in said if ", of " in line] == [
        f" 1. {before}, of the site",
        " 2. own, of user2 (no step)",
        f" 3. {after}, of the site (no step)",
    ]
    kept_instead = "(which takes none of it: the message is kept)"
    assert said[-1] == f"fileinto mailbox INBOX/Lists ({before} line 2) {kept_instead}"

    shared = ctl.json("sieve", "trace", "+list@example.org", str(eml))
    assert [one["name"] for one in shared["scripts"]] == [before, "shared", after]
    assert [(one["action"], one["script"]) for one in shared["actions"]] == [("discard", "shared")]
    ctl("sieve", "deactivate", "user2")
    without = ctl("sieve", "trace", "user2", str(eml))
    assert without.startswith("user2 has no active script; the site's scripts decide\n")
    assert "2 scripts at " in without
    reconfigure(demo, home["node"], f"{site}\n", "")  # others have no such site


FAR = """require ["fileinto", "imap4flags"];
fileinto "near"; fileinto :flags ["\\\\Flagged", "$Sorted"] "far"; fileinto "closed";"""


def test_what_a_shared_mailboxs_script_cannot_file_is_told_as_it_comes_to_be(
    ctl: Ctl, demo: Demo, eml: Path, tmp_path: Path
) -> None:
    """A script of nobody files where anybody may post, at whatever backend."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "news.sieve").write_text(FAR)
    here, there = demo.backends[:2]
    named = f'[sieve]\nfolder = "{tmp_path}/folder"\n'
    reconfigure(demo, here["node"], "[node]\n", f"{named}\n[node]\n")
    password = demo.info["admin"]["user"], demo.info["admin"]["password"]
    for backend, names in ((here, ("news", "near")), (there, ("far", "closed"))):
        admin = demo.imap(backend, *password)
        for name in names:
            rights = "lrsi" if name == "closed" else "lrsp"
            assert admin.create(name)[0] == admin.setacl(name, "anyone", rights)[0] == "OK"
        admin.logout()
    admin = demo.imap(here, *password)
    entry = "/shared/vendor/cmu/cyrus-imapd/sieve"
    assert admin.xatom("SETMETADATA", "news", f'({entry} "news")')[0] == "OK"

    told = ctl.json("sieve", "trace", "+news@example.org", str(eml))["actions"]
    assert [(one["mailbox"], one["kept"]) for one in told] == [
        *(("near", False), ("far", False), ("closed", True))
    ]
    delivered(demo, "+news", eml.read_bytes())
    for name in ("news", "near"):
        assert admin.select(name)[1] == [b"1"], name
    admin.logout()
    admin = demo.imap(there, *password)
    assert admin.select("far")[1] == [b"1"] and admin.select("closed")[1] == [b"0"]
    admin.select("far")
    assert admin.search(None, "FLAGGED", "KEYWORD", "$Sorted")[1] == [b"1"]
    admin.logout()
    reconfigure(demo, here["node"], f"{named}\n", "")


def test_a_script_is_tried_between_those_of_a_site(site: str, eml: Path, tmp_path: Path) -> None:
    config, file = tmp_path / "node.toml", tmp_path / "own.sieve"
    config.write_text(f'{site}[node]\nname = "be1.example.org"\ndata = "{tmp_path}/data"\n')
    file.write_text('require "ihave";\nerror "broken";\n')

    def run(*words: str, code: int) -> str:
        done = subprocess.run(
            [*murder_command(), "ctl", "sieve", "test", str(file), str(eml), *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    told = json.loads(run("--site", str(config), "--json", code=1))
    assert told["actions"][0]["flags"] == ["$word", "$after"]  # one that fails is left out
    assert told["faults"] == [{"script": str(file), "problem": "line 2, column 1: broken"}]
    alone = json.loads(run("--json", code=1))
    assert alone["failure"] == "line 2, column 1: broken" and alone["actions"][0]["flags"] == []


def test_a_password_acts_for_users_where_the_backend_lets_it(
    demo: Demo, eml: Path, tmp_path: Path
) -> None:
    text = Path(demo.info["operator"]).read_text(encoding="utf-8")
    secret = tmp_path / "secret"
    secret.write_text(demo.info["admin"]["password"])
    secret.chmod(0o600)
    user = f'user = "{demo.info["admin"]["user"]}"'
    text, changed = re.subn(r'certificate = "operator.pem"', user, text)
    text, also = re.subn(r'key = "operator.key"', f'password_file = "{secret}"', text)
    assert changed == also == 1
    config = tmp_path / "murder.toml"
    config.write_text(text)
    ctl = Ctl(demo, config)
    assert "[auth] masters" in ctl("sieve", "list", "user2", code=1)
    reconfigure(demo, demo.home(2)["node"], "[node]\n", '[auth]\nmasters = ["admin"]\n\n[node]\n')
    script = 'require ["mailbox", "fileinto"]; if mailboxexists "INBOX" { fileinto "INBOX"; }'
    ctl("sieve", "put", "user2", "mine", given=script)
    ctl("sieve", "activate", "user2", "mine")
    told = ctl.json("sieve", "trace", "user2", str(eml))
    assert [one["action"] for one in told["actions"]] == ["fileinto"]
    assert [one["assumed"] for one in told["asked"]] == [False]
