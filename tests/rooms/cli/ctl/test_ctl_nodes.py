"""`murder ctl status|sessions|kick|trace|check|doctor|conflicts`: a running murder looked into, here and over TLS."""

import base64
import imaplib
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from murder.pki.authority import init_authority, issue
from tests.kit.demo import Demo, reconfigure
from tests.kit.managesieve import ManageSieve
from tests.kit.ports import free_port, free_port_base
from tests.kit.process import ROOT, murder_command, run_murder, serving
from tests.kit.programs.collector import Collector, Span, collecting
from tests.kit.waiting import LIMIT_S, until
from tests.rooms.cli.ctl.test_ctl_mailboxes import Ctl


def test_status_shows_every_node_and_that_all_is_well(ctl: Ctl, demo: Demo) -> None:
    told = json.loads(ctl("status", "--json"))
    assert {answer["node"].split(".")[0] for answer in told["nodes"]} == {
        "mupdate",
        "fe1",
        "be1",
        "be2",
    }
    assert told["problems"] == {} and told["unreachable"] == {}
    assert "Everything is well." in ctl("status")
    assert ctl("top", "--count", "2", "--every", "0.2").count("fe1.murder.test") == 2


def test_sessions_are_found_by_user_traced_without_secrets_and_ended(ctl: Ctl, demo: Demo) -> None:
    client = demo.imap(demo.frontend, "user1")
    client.select("INBOX")
    found = json.loads(ctl("sessions", "--user", "user1", "--json"))
    assert {(one["role"], one["mailbox"]) for one in found} == {
        ("frontend", "user.user1"),
        ("backend", "user.user1"),
    }
    traced: list[str] = []
    watching = threading.Thread(
        target=lambda: traced.append(ctl("trace", "user1", "--seconds", "3"))
    )
    watching.start()
    end = time.monotonic() + LIMIT_S
    while watching.is_alive() and time.monotonic() < end:
        client.noop()  # until the trace has begun; nothing tells this client
        client.send(b"X LOGIN user1 secret\r\n")
        assert client.readline().startswith(b"X BAD")
    watching.join()
    assert "C: " in traced[0] and "NOOP" in traced[0]
    assert "secret" not in traced[0] and "LOGIN ***" in traced[0]
    planned = ctl("kick", "--user", "user1", code=2)
    assert planned.startswith("1 session. Re-run with --yes"), planned  # not the frontend's own
    assert ctl("kick", "--user", "user1", "--yes").startswith("1 session ended")
    with pytest.raises(imaplib.IMAP4.error):
        client.noop()
    assert "which sessions?" in ctl("kick", "--yes", code=2)
    assert ctl("kick", "--user", "nobody") == "No session is like that\n"


def test_a_trace_shows_a_quick_session_from_its_first_octet_without_secrets(
    ctl: Ctl, demo: Demo
) -> None:
    command = [*murder_command(), "ctl", "trace", "user4", "--json"]
    with subprocess.Popen(
        [*command, "--config", str(demo.info["operator"])],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as tracing:
        assert tracing.stdout is not None
        patience = threading.Timer(LIMIT_S, tracing.kill)  # a line that never comes ends the test
        patience.start()
        for _ in range(4):  # every node says that it has begun
            assert "trace" in json.loads(tracing.stdout.readline())
        demo.imap(demo.frontend, "user1").logout()  # another's
        host, port = demo.frontend["host"], demo.frontend["imap"]
        with socket.create_connection((host, port), 10) as sock, sock.makefile("rb") as stream:
            sock.sendall(b"a CAPABILITY\r\nb AUTHENTICATE PLAIN\r\n")
            while not stream.readline().startswith(b"+"):
                pass
            secret = base64.b64encode(b"\0user4\0" + demo.password.encode())
            sock.sendall(secret + b"\r\nc NOOP\r\nd LOGOUT\r\n")
            assert b"d OK" in stream.read()
        with demo.peer(demo.frontend) as peer:
            assert "t NO" in peer.command("LOGIN user4 another-secret")[-1]
        said = ""
        while "AUTHENTICATIONFAILED" not in said:
            line = json.loads(tracing.stdout.readline())
            if line["node"].startswith("fe1"):
                said += f"{line['who']}: {line['octets']}\n"
        patience.cancel()
        tracing.send_signal(signal.SIGINT)
        tracing.stdout.read()
    assert said.startswith("S: * OK") and "C: a CAPABILITY\nb AUTHENTICATE ***\n" in said
    assert said.count("the connection has ended") == 1 and "C: t LOGIN ***\n" in said
    assert "another-secret" not in said
    assert "NOOP" in said or "C: ***\n***\n***" in said
    assert secret.decode() not in said and demo.password not in said and "user1" not in said


def test_who_is_ended_in_idle_hears_bye_and_nothing_else(ctl: Ctl, demo: Demo) -> None:
    client = demo.imap(demo.frontend, "user3")
    client.select("INBOX")
    client.send(b"I IDLE\r\n")
    assert client.readline().startswith(b"+")
    ctl("kick", "--user", "user3", "--yes")
    said = client.readline()
    assert said.startswith(b"* BYE ") and said.endswith(b"administrator has ended this session\r\n")
    assert client.readline() == b""


def test_protocols_are_spoken_by_hand(ctl: Ctl, demo: Demo) -> None:
    """Logged in where the protocol lets an operator; what a pipe gives is answered to its end."""
    said = ctl("raw", "mupdate", given='a FIND "user.user1"\nb LOGOUT\n')
    assert re.search(r'^a MAILBOX "user.user1" "be[12]\.', said, re.MULTILINE), said
    server = str(demo.backends[0]["name"])
    said = ctl("raw", "imap", server, given='a LIST "" "user/*"\nb LOGOUT\n')
    assert "* LIST " in said and "b OK" in said
    said = ctl("raw", "lmtp", server, given="LHLO me\nQUIT\n")
    assert said.startswith("220 ") and "250" in said and "221" in said
    assert "+OK" in ctl("raw", "pop3", server, given="QUIT\n")


def test_a_node_that_is_down_is_named_with_its_cure(ctl: Ctl, demo: Demo) -> None:
    said = ctl("doctor")
    assert "Everything is well." in said
    assert "be2.murder.test accepts fe1.murder.test's login" in said
    assert "0 differences" in ctl("check")
    demo.node("kill", "be2")
    try:
        said = ctl("status", code=3)
        assert "be2" in said and f"murder demo node start be2 --dir {demo.folder}" in said
        assert "systemctl" not in said
        said = ctl("check", code=3)
        assert "be2.murder.test cannot be asked" in said and "NOT asked: be2.murder.test" in said
        said = ctl("doctor", code=1)
        assert "WRONG be2.murder.test" in said and "->" in said
        assert "WRONG seen from fe1.murder.test: be2.murder.test: " in said
        assert "ok    be1.murder.test accepts fe1.murder.test's login" in said
    finally:
        demo.node("start", "be2")
    demo.node("kill", "fe1")
    try:
        said = ctl("check", code=3)
        assert "0 differences among those that were asked; NOT asked: " in said and "fe1" in said
    finally:
        demo.node("start", "fe1")


def test_a_mailbox_the_master_has_lost_is_announced_again(ctl: Ctl, demo: Demo) -> None:
    master = demo.info["mupdate"]
    with socket.create_connection((master["host"], master["port"]), 10) as sock:
        stream = sock.makefile("rb")
        while not stream.readline().startswith(b"* OK"):
            pass
        sock.sendall(b'A AUTHENTICATE "PLAIN" "AGFkbWluAHNlY3JldA=="\r\nD DELETE "user.user2"\r\n')
        assert stream.readline().startswith(b"A OK") and stream.readline().startswith(b"D OK")
    assert "the master does not know it" in ctl("check", code=1)
    ctl("check", "--fix", "--yes", code=1)
    until(lambda: "0 differences" in ctl_said(ctl), "the backend compares behind its answer")


def ctl_said(ctl: Ctl) -> str:
    try:
        return ctl("check")
    except AssertionError as error:
        return str(error)


def test_where_mail_goes_and_what_a_server_says(ctl: Ctl) -> None:
    assert "user/user1 at be" in ctl("lmtp", "route", "user1+Sub")
    ctl("mailbox", "create", "user/user1/Lists")
    assert "-> user/user1 at be" in ctl("lmtp", "route", "user1+Lists")
    ctl("mailbox", "acl", "user/user1/Lists", "anyone", "p")
    assert "-> user/user1/Lists at be" in ctl("lmtp", "route", '"user1+Lists"@example.org')
    ctl("mailbox", "create", "shared/post")
    assert "anyone +p" in ctl("lmtp", "route", "+shared/post", code=1)
    ctl("mailbox", "acl", "shared/post", "anyone", "+p")
    assert "-> shared/post at be" in ctl("lmtp", "route", "+shared/post")
    assert "550" in ctl("lmtp", "route", "nobody", code=1)
    assert ctl("conflicts") == "No conflicts\n"
    assert ctl("reservations") == "No names are reserved\n"


def test_operators_on_other_hosts_ask_over_tls_with_their_certificate_only(tmp_path: Path) -> None:
    def murder(*words: str) -> None:
        subprocess.run([*murder_command(), *words], check=True, cwd=ROOT, capture_output=True)

    folder = str(tmp_path / "ca")
    murder("ca", "init", "--dir", folder)
    for name, role in (("localhost", "mupdate"), ("op", "operator"), ("fe", "frontend")):
        murder("ca", "issue", name, "--role", role, "--dir", folder)
    base = free_port_base()
    node = tmp_path / "murder.toml"
    node.write_text(
        f'[node]\nname = "localhost"\ndata = "data"\ncontrol = ["127.0.0.1:{base}"]\n'
        '[tls]\nca = "ca/ca.pem"\ncertificate = "ca/localhost.pem"\nkey = "ca/localhost.key"\n'
        f'[mupdate]\nlisten = ["127.0.0.1:{base + 1}"]\n'
    )
    with serving(node, "--role", "mupdate", log=tmp_path / "log") as master:
        master.until_open("127.0.0.1", base)
        for who, code in (("op", 0), ("fe", 3)):
            config = tmp_path / f"{who}.toml"
            config.write_text(
                f'[node]\nname = "{who}"\ndata = "none"\n[tls]\nca = "ca/ca.pem"\n'
                f'[operator]\ncertificate = "ca/{who}.pem"\nkey = "ca/{who}.key"\n'
                f'nodes = ["localhost:{base}"]\n'
            )
            done = subprocess.run(
                [*murder_command(), "ctl", "status", "--config", str(config)],
                capture_output=True,
                text=True,
                cwd=ROOT,
                check=False,
            )
            assert done.returncode == code, done.stdout + done.stderr
            wanted = "Everything is well." if code == 0 else "operator's certificate is needed"
            assert wanted in done.stdout
        asked = [*murder_command(), "ctl", "--", "--config", str(tmp_path / "op.toml")]
        for words in (("kick", "--user", "ana", "--yes"), ("audit", "--json")):
            asked[asked.index("ctl") + 1 : -2] = words
            done = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, check=False)
        told = {(one["event"], one["user"], one["peer"]) for one in json.loads(done.stdout)}
        assert ("kick", "op", "127.0.0.1") in told


def test_a_doctor_says_first_that_our_own_certificate_is_of_no_use(
    demo: Demo, tmp_path: Path
) -> None:
    ours = Path(demo.info["operator"]).parent
    for file in ours.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "other").mkdir()
    init_authority(tmp_path / "other")
    issue(tmp_path / "other", "operator", ["operator"], out=tmp_path)
    done = subprocess.run(
        [*murder_command(), "ctl", "doctor", "--json", "--config", str(tmp_path / "murder.toml")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    told = json.loads(done.stdout)
    (wrong,) = [one for one in told["findings"] if one["state"] == "wrong"]
    assert done.returncode == 1 and told["ok"] is False
    assert "is not signed by" in wrong["what"] and "murder ca issue" in wrong["cure"]


def test_a_port_that_a_backend_lacks_is_told_from_a_backend_that_is_down(
    demo: Demo, tmp_path: Path
) -> None:
    """As of ManageSieve, which files of version 0.1 do not have."""
    config, ours = tmp_path / "murder.toml", Path(demo.info["operator"])
    closed, home = free_port(), demo.home(1)
    text = re.sub(
        r'(?m)^(certificate|key|ca|crl) = "(?!/)', rf'\1 = "{ours.parent}/', ours.read_text()
    )
    config.write_text(text.replace(f"sieve = {home['sieve']}\n", f"sieve = {closed}\n"))
    told = json.loads(run_murder("ctl", "doctor", "--json", "--config", config, code=1).stdout)
    (wrong,) = [one for one in told["findings"] if one["state"] == "wrong"]
    assert wrong["what"] == f"{home['name']}: sieve ({closed}) at 127.0.0.1: Connection refused"
    assert wrong["cure"].startswith(
        "it runs, so has its [backend] those keys? a file of version 0.1 has"
    )


def test_a_wrong_password_is_refused_not_unreachable(demo: Demo, tmp_path: Path) -> None:
    config = tmp_path / "murder.toml"
    ours = Path(demo.info["operator"]).read_text()
    lines = [one for one in ours.splitlines() if not one.startswith(("certificate", "key"))]
    text = "\n".join(lines).replace("[operator]", '[operator]\nuser = "admin"\npassword = "wrong"')
    config.write_text(text)
    done = subprocess.run(
        [*murder_command(), "ctl", "user", "list", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1 and "Wrong user or password" in done.stderr


def test_what_has_happened_to_a_message_is_told_by_all_nodes(ctl: Ctl, demo: Demo) -> None:
    octets = b"Message-ID: <trace.1@x>\r\nSubject: hi\r\n\r\nhello\r\n"
    said = demo.deliver(demo.frontend, "user2", octets)
    id = re.search(r"<([0-9a-f-]+)> saved", said)
    assert id is not None, said
    home = demo.home(2)["name"]
    for word in ("<trace.1@x>", "trace.1@x", id[1]):
        told = json.loads(ctl("message", "trace", word, "--json"))
        by_role = {line["role"]: line for line in told}
        relayed, delivered = by_role["frontend"], by_role["backend"]
        assert [relayed["event"], delivered["event"]] == ["message.relayed", "message.delivered"]
        assert relayed["backend"] == delivered["node"] == home
        assert relayed["reply"].endswith(f"<{id[1]}> saved")
        assert relayed["saved_as"] == delivered["id"] == id[1]
        assert delivered["recipient"] == relayed["recipient"] == "user2"
        assert delivered["size"] == relayed["size"] == len(octets)
        assert delivered["session"] == relayed["cid"]
    (copy,) = delivered["copies"]
    with demo.imap(demo.frontend, "user2") as client:
        client.select("INBOX")
        assert b"<trace.1@x>" in client.uid("FETCH", str(copy["uid"]), "(ENVELOPE)")[1][0]
    shown = ctl("message", "trace", id[1], "--since", "1h")
    assert f"UID {copy['uid']}" in shown and "<trace.1@x>" in shown and home in shown
    assert "No node knows" in ctl("message", "trace", "<nobody@x>", code=1)
    assert "say 90s" in ctl("message", "trace", "x", "--since", "soon", code=2)


def test_a_message_is_followed_from_mailbox_to_mailbox_where_the_mail_log_is_full(
    ctl: Ctl, demo: Demo
) -> None:
    for backend in demo.backends:
        reconfigure(demo, backend["node"], "[log]", '[log]\nmail = "full"')
    octets = b"Message-ID: <%s@x>\r\nSubject: hi\r\n\r\nhello\r\n"
    for name in (b"followed", b"another"):
        demo.deliver(demo.frontend, "user2", octets % name)
    with demo.imap(demo.frontend, "user2") as client:
        client.select("INBOX")
        (found,) = client.uid("SEARCH", "HEADER", "Message-ID", "<followed@x>")[1]
        (other,) = client.uid("SEARCH", "HEADER", "Message-ID", "<another@x>")[1]
        both = f"{found.decode()},{other.decode()}"
        client.create("INBOX/Kept")
        assert client.uid("MOVE", both, "INBOX/Kept")[0] == "OK"
        assert client.append("Drafts", "", "", octets % b"followed")[0] in ("OK", "NO")
        assert client.append("INBOX", "", "", octets % b"appended")[0] == "OK"
        client.select("INBOX/Kept")
        assert client.uid("COPY", "1:2", "INBOX")[0] == "OK"
        client.uid("STORE", "1:2", "+FLAGS.SILENT", "(\\Deleted)")
        client.expunge()
    told = json.loads(ctl("message", "trace", "<followed@x>", "--json"))
    told = [one for one in told if one["role"] == "backend" and one.get("mailbox") != "Drafts"]
    events = ["delivered", "moved", "copied", "expunged"]
    assert [one["event"].removeprefix("message.") for one in told] == events
    (copy,), *acts = (one.get("copies") or one["messages"] for one in told)
    assert [len(act) for act in acts] == [1, 1, 1]  # nothing of the other message
    (moved,), (copied,), (gone,) = acts
    assert copy["place"] == moved["place"] and moved["to"] == copied["place"] == gone["place"]
    assert {one["user"] for one in told[1:]} == {"user2"}
    assert (told[1]["mailbox"], told[1]["target"]) == ("user.user2", "user.user2.Kept")
    assert told[1]["peer"] == "127.0.0.1" and told[1]["session"]  # of the client, at the frontend
    (appended,) = json.loads(ctl("message", "trace", "<appended@x>", "--json"))
    assert (appended["event"], appended["user"]) == ("message.appended", "user2")
    assert len(json.loads(ctl("message", "trace", gone["place"], "--json"))) >= 4
    shown = ctl("message", "trace", "followed@x").splitlines()
    assert "moved" in shown[-3] and " moved by user2 in user/user2 UID " in shown[-3]
    assert f"to user/user2/Kept UID {moved['new_uid']}" in shown[-3]
    assert "expunged" in shown[-1]


def test_a_recipient_who_is_refused_stands_in_the_mail_log(ctl: Ctl, demo: Demo) -> None:
    assert demo.deliver(demo.frontend, "nobody-here", b"").startswith("550 5.1.1")
    (line,) = json.loads(ctl("message", "trace", "nobody-here", "--json"))
    assert line["event"] == "message.refused" and line["reply"].startswith("550 5.1.1")


def test_who_did_what_is_told_by_all_nodes(ctl: Ctl, demo: Demo) -> None:
    with demo.imap(demo.frontend, "user3") as client:
        assert client.create("INBOX/Audited")[0] == "OK"
        assert client.setacl("INBOX/Audited", "user4", "lrs")[0] == "OK"
        assert client.create("INBOX/Audited")[0] == "NO"
        assert client.delete("INBOX/Audited")[0] == "OK"
    told = json.loads(ctl("audit", "--user", "user3", "--since", "10m", "--json"))
    told = [one for one in told if "Audited" in one.get("arguments", "")]
    seen = [(one["event"], one["result"][:2]) for one in told]
    assert seen == [("CREATE", "OK"), ("SETACL", "OK"), ("CREATE", "NO"), ("DELETE", "OK")]
    assert {one["node"] for one in told} == {demo.home(3)["name"]}
    assert all(one["user"] == "user3" and one["peer"] == "127.0.0.1" for one in told)
    shown = ctl("audit", "--mailbox", "INBOX/Audited")
    assert "SETACL INBOX/Audited user4 lrs (user/user3/Audited) : OK" in shown
    assert ctl("audit", "--mailbox", "user/user3/Audited") == shown
    assert ctl("audit", "--mailbox", "user/user3/audit").count("\n") == 4  # a part of its name

    def kicks() -> list[dict[str, Any]]:
        return [line for line in json.loads(ctl("audit", "--json")) if line["event"] == "kick"]

    before = Counter((line["node"], line["role"]) for line in kicks())
    ctl("kick", "--user", "user1", "--yes")
    more = Counter((line["node"], line["role"]) for line in kicks()) - before
    assert set(more.values()) == {1}, more
    kick = kicks()[-1]
    assert kick["wanted"] == {"user": "user1"} and kick["user"].startswith("uid ")
    assert "No entry matches" in ctl("audit", "--operator", "nobody", code=1)
    assert "No line was taken out" in ctl("audit", "--verify")


def test_scripts_and_whole_hierarchies_stand_in_the_audit_trail(ctl: Ctl, demo: Demo) -> None:
    secret = b"# of nobody's business\r\nkeep;\r\n"
    proof = base64.b64encode(b"\0user2\0secret").decode()
    with ManageSieve(demo.frontend["host"], demo.frontend["sieve"]) as client:
        client.ask(f'AUTHENTICATE "PLAIN" "{proof}"')
        client.ask('PUTSCRIPT "one"', secret)
        assert not client.attempt('PUTSCRIPT "bad"', b"secret-word;\r\n").is_ok
        client.ask('SETACTIVE "one"')
        assert not client.attempt('DELETESCRIPT "one"').is_ok
        client.ask('SETACTIVE ""')
        client.ask('RENAMESCRIPT "one" "two"')
        client.ask('DELETESCRIPT "two"')
        client.ask("LISTSCRIPTS")
    lines = [one for one in json.loads(ctl("audit", "--json")) if one.get("protocol") == "sieve"]
    assert [(one["event"], one["arguments"], one["result"][:11]) for one in lines] == [
        ("PUTSCRIPT", "one", "OK"),
        ("PUTSCRIPT", "bad", "NO line 1, "),
        ("SETACTIVE", "one", "OK"),
        ("DELETESCRIPT", "one", "NO (ACTIVE)"),
        ("SETACTIVE", "", "OK"),
        ("RENAMESCRIPT", "one two", "OK"),
        ("DELETESCRIPT", "two", "OK"),
    ]
    assert {(one["user"], one["node"]) for one in lines} == {("user2", demo.home(2)["name"])}
    assert "business" not in json.dumps(lines)
    ctl("mailbox", "create", "shared/tree/leaf")
    ctl("mailbox", "delete", "shared/tree/leaf", "--yes")
    with demo.peer(demo.backends[0], user="admin") as peer:
        assert peer.command("XUNDELETE shared/tree/leaf ()")[-1].startswith("t NO")
    told = json.loads(ctl("audit", "--mailbox", "tree", "--json"))
    seen = [(one["event"], one["result"][:2]) for one in told]
    assert seen == [("CREATE", "OK"), ("XDELETE", "OK"), ("XUNDELETE", "NO")]


def test_what_is_taken_out_of_the_audit_trail_shows(ctl: Ctl, demo: Demo) -> None:
    with demo.imap(demo.frontend, "user3") as client:
        assert client.create("INBOX/Shared")[0] == "OK"
        assert client.setacl("INBOX/Shared", "user4", "lrs")[0] == "OK"
        assert client.delete("INBOX/Shared")[0] == "OK"
    home = next(one for one in demo.backends if one["name"] == demo.home(3)["name"])
    (path,) = (demo.folder / home["node"] / "data" / "trail").glob("audit-backend-0*")
    whole = path.read_bytes()
    path.write_bytes(b"".join(line for line in whole.splitlines(True) if b"SETACL" not in line))
    try:
        assert path.name in ctl("audit", "--verify", code=1)
    finally:
        path.write_bytes(whole)


def test_a_sampled_session_is_one_trace_from_the_client_to_the_store(demo: Demo) -> None:
    """Each request of the exporters is read by OpenTelemetry's own definitions."""
    nodes = [demo.frontend["node"], *(one["node"] for one in demo.backends)]
    with collecting() as collector:
        collector.refuses = 1  # it is asked again
        section = f'[traces]\ncollector = "127.0.0.1:{collector.port}"\nshare = 1.0\n\n[log]'
        for node in nodes:
            reconfigure(demo, node, "[log]", section)
        demo.deliver(demo.frontend, "user3", b"Message-ID: <traced@x>\r\n\r\nx\r\n")
        with demo.imap(demo.frontend, "user3") as client:
            client.select("INBOX")
            assert client.append("INBOX", "", "", b"Subject: x\r\n\r\nx\r\n")[0] == "OK"
            assert client.select("Nowhere")[0] == "NO"
        demo.deliver(
            demo.frontend, "user3", b"Subject: the first may have been refused\r\n\r\nx\r\n"
        )
        until(lambda: len(sessions_in(collector, "imap")) == 2, "both ends tell", LIMIT_S)
        until(lambda: named(collector, "LMTP delivery"), "a delivery is told", LIMIT_S)
        for node in nodes:
            reconfigure(demo, node, section, "[log]")
        assert collector.wrong == []
    root, behind = sorted(sessions_in(collector, "imap"), key=lambda one: one["parent"])
    assert (root["service"], root["parent"]) == ("murder-frontend", "")
    assert (behind["service"], behind["parent"]) == ("murder-backend", root["id"])
    assert root["trace"].endswith(root["id"]) and root["facts"]["user.name"] == "user3"
    assert root["facts"]["session.id"].endswith(root["id"])
    trace = [one for one in collector.spans if one["trace"] == root["trace"]]
    assert root["began"] <= min(one["began"] for one in trace if one["service"] != "murder-backend")
    ours = {one["name"]: one for one in trace if one["parent"] == root["id"]}
    assert {"IMAP LOGIN", "IMAP APPEND", "imap session"} <= ours.keys()
    assert ours["IMAP APPEND"]["is_error"] is False
    theirs = {one["name"]: one for one in trace if one["parent"] == behind["id"]}
    commits = [one for one in trace if one["name"] == "store commit"]
    assert theirs["IMAP APPEND"]["id"] in {one["parent"] for one in commits}
    (delivery, *_) = named(collector, "LMTP delivery")
    (lmtp,) = [one for one in sessions_in(collector, "lmtp") if one["trace"] == delivery["trace"]]
    assert delivery["parent"] == lmtp["id"] and lmtp["service"] == "murder-frontend"


def named(collector: Collector, name: str) -> list[Span]:
    return [one for one in collector.spans if one["name"] == name]


def sessions_in(collector: Collector, protocol: str) -> list[Span]:
    return named(collector, f"{protocol} session")
