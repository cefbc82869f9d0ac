"""What the page for operators shows and does, on a whole murder: as `murder ctl` does it, and in the audit trail."""

import json
import re
import urllib.request
from typing import Any

import pytest

from tests.kit.demo import Demo, message, reconfigure
from tests.kit.waiting import until
from tests.rooms.web.visitor import Visitor, ctl

ODD = "user/user4/<b onmouseover=alert(1)>'\"&-x"  # a name that is markup
SHOWN_ODD = "user/user4/&lt;b onmouseover=alert(1)&gt;&#39;&#34;&amp;x"


@pytest.fixture
def visitor(demo: Demo) -> Visitor:
    return Visitor.of(demo, demo.info["mupdate"]).entered()


def place(demo: Demo, name: str) -> str:
    return str(json.loads(ctl(demo, "mailbox", "find", name, "--json"))["server"])


def web_acts(demo: Demo) -> list[tuple[str, str, str]]:
    lines = json.loads(ctl(demo, "audit", "--operator", "admin", "--json"))
    mine = [line for line in lines if line.get("way") == "web"]
    return [(one["event"], one.get("arguments", ""), one.get("result", "")) for one in mine]


def test_users_and_mailboxes_are_found_by_a_part_of_their_name(visitor: Visitor) -> None:
    assert "4 users" in visitor.get("/users").text
    found = visitor.get("/users?find=SER3").text
    assert "1 user<" in found and "/user?name=user3" in found
    assert "1 mailbox<" in visitor.get("/mailboxes?find=user3").text
    assert "4 mailboxes<" in visitor.get("/mailboxes?find=user/user%25").text
    assert "2 mailboxes<" in visitor.get("/mailboxes?server=be1.murder.test").text
    assert "No mailbox fits" in visitor.get("/mailboxes?find=%C3%A4rger").text
    assert "be1.murder.test" in visitor.get("/user?name=user1").text


def test_what_there_is_not_is_told_in_a_sentence(visitor: Visitor) -> None:
    for path in (
        "/user?name=nobody",
        "/node?name=be9",
        "/mailbox?name=user/nobody",
        "/mailbox?name=",
        "/mailbox/delete?name=user/nobody",
        "/move?what=user1&to=be9",
        "/moves/act?id=x&verb=undo",
        "/moves/act?id=x&verb=explode",
        "/messages?word=x&since=soon",
        "/manual?topic=../config",
        "/mailboxes?find=" + "x" * 201,
        "/nothing",
    ):
        answer = visitor.get(path)
        assert answer.status in (400, 404, 409), (path, answer.status)
        assert 'role="alert"' in answer.text and "Traceback" not in answer.text
    answer = visitor.get("/mailbox/quota?name=user/user1")  # loaded again behind a form
    assert answer.status == 405 and "done by a form" in answer.text
    for path in ("/mailbox?name=%ff%fe", "/user?name=%00%0d%0a", "/mailboxes?find=%ff"):
        answer = visitor.get(path)
        assert answer.status in (200, 400, 409), (path, answer.status)
    inject = "x\r\nA1 DELETE user/user2"
    answer = visitor.send("/mailbox/acl", name="user/user1", identifier=inject, rights="l")
    assert answer.status in (303, 400, 409)
    raw = f"token={visitor.form_token}&name=user/user1&identifier=%ff&rights=l"
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = visitor.ask(
        "POST", "/mailbox/acl", raw, Origin=f"https://127.0.0.1:{visitor.port}", **kind
    )
    assert answer.status == 400
    assert visitor.get("/user?name=user2").status == 200
    assert visitor.send("/status").status == 405
    assert visitor.get("/users?" + "&".join(f"a{n}=1" for n in range(500))).status == 400


def test_rights_and_quotas_are_set_and_taken_away(demo: Demo, visitor: Visitor) -> None:
    name = "user/user1"
    page = visitor.done("/mailbox/acl", name=name, identifier="user2", rights="lrs")
    assert "user2 has lrs." in page
    assert json.loads(ctl(demo, "mailbox", "acl", name, "--json"))["acl"]["user2"] == "lrs"
    visitor.done("/mailbox/acl", name=name, identifier="user2", remove="1")
    assert "user2" not in json.loads(ctl(demo, "mailbox", "acl", name, "--json"))["acl"]
    page = visitor.done("/mailbox/quota", name=name, STORAGE="500M", MESSAGE="1000")
    assert 'value="512000"' in page and "of 500.0 MiB" in page
    assert visitor.send("/mailbox/quota", name=name, STORAGE="much").status == 400
    visitor.done("/mailbox/quota", name=name)
    assert json.loads(ctl(demo, "mailbox", "quota", name, "--json"))["quota"] == {}
    refused = visitor.send("/mailbox/acl", name=name, identifier="user2", rights="@@")
    assert refused.status == 409 and "Traceback" not in refused.text
    acts = web_acts(demo)
    assert ("setacl", f"{name} user2 lrs", "ok") in acts
    assert ("setquota", f"{name} STORAGE=500M MESSAGE=1000", "ok") in acts
    assert any(act == "setacl" and result.startswith("refused: be") for act, _, result in acts)


def test_a_deletion_shows_its_plan_and_takes_that_and_nothing_else(
    demo: Demo, visitor: Visitor
) -> None:
    for node in ("be1", "be2"):
        reconfigure(demo, node, "[backend]", '[backend]\ndelete = "delayed"')
    ctl(demo, "mailbox", "create", "user/user3/Work")
    page = visitor.get("/mailbox/delete?name=user/user3").text
    plan = re.search(r'name="plan" value="(\w+)"', page)
    assert plan and "2 mailboxes go" in page and "user/user3/Work" in page
    ctl(demo, "mailbox", "create", "user/user3/Late")
    late = visitor.send("/mailbox/delete", name="user/user3", plan=plan[1])
    assert late.status == 409 and "has changed since the plan was shown" in late.text
    page = visitor.get("/mailbox/delete?name=user/user3").text
    plan = re.search(r'name="plan" value="(\w+)"', page)
    assert plan and "3 mailboxes removed." in visitor.done(
        "/mailbox/delete", name="user/user3", plan=plan[1]
    )
    assert visitor.get("/user?name=user3").status == 409
    page = visitor.get("/mailbox/undelete?name=user/user3").text
    plan = re.search(r'name="plan" value="(\w+)"', page)
    assert plan and "3 mailboxes come back" in page
    visitor.done("/mailbox/undelete", name="user/user3", plan=plan[1])
    assert "3 mailboxes<" in visitor.get("/user?name=user3").text
    assert {("delete", "user/user3", "ok"), ("undelete", "user/user3", "ok")} <= set(web_acts(demo))


def test_a_user_moves_with_progress_and_back(demo: Demo, visitor: Visitor) -> None:
    home = place(demo, "user/user1")
    other = "be2.murder.test" if home.startswith("be1") else "be1.murder.test"
    page = visitor.get(f"/move?what=user1&to={other}").text
    plan = re.search(r'name="plan" value="(\w+)"', page)
    assert plan and "1 move<" in page
    page = visitor.done("/move", what="user1", to=other, plan=plan[1])
    assert "1 move begun" in page and "data-live" in page
    until(lambda: "1 of 1 over" in visitor.get("/moves/part").text)
    assert place(demo, "user/user1") == other
    page = visitor.get("/moves").text
    assert re.search(r"As of \d\d:\d\d:\d\d\.", page) and '<a href="/moves">Look again</a>' in page
    move_id = re.search(r"verb=undo&amp;id=(\w+)", page)
    assert move_id and "Move it back" in visitor.get(f"/moves/act?verb=undo&id={move_id[1]}").text
    visitor.done("/moves/act", verb="undo", id=move_id[1])
    until(lambda: "2 of 2 over" in visitor.get("/moves/part").text)
    assert place(demo, "user/user1") == home
    acts = web_acts(demo)
    assert ("move", f"user1 to {other}", "done") in acts
    assert ("move", f"undo {move_id[1]}", "done") in acts


def test_a_session_is_found_and_ended(demo: Demo, visitor: Visitor) -> None:
    with demo.peer(demo.frontend, user="user2") as peer:
        assert "user2" in visitor.get("/sessions?user=user2").text
        assert visitor.get("/kick").status == 400  # not everybody by an empty form
        assert visitor.send("/kick").status == 400
        assert "1 session" in visitor.get("/kick?user=user2").text
        assert "1 session ended." in visitor.done("/kick", user="user2")
        assert any("BYE" in line for line in peer.until("* BYE"))
    assert ("kick", "user=user2", "ok") in web_acts(demo)


def test_who_would_end_what_a_frontend_has_at_a_backend_hears_where_the_client_is(
    demo: Demo, visitor: Visitor
) -> None:
    with demo.peer(demo.frontend, user="user2") as peer:
        peer.until_ok("SELECT INBOX")
        page = visitor.get("/sessions?user=user2").text
        plans = [visitor.get(path).text for path in re.findall(r"/kick\?cid=[\w-]+", page)]
        at = {"at fe1.murder.test" in plan: "ends nothing for its client" in plan for plan in plans}
        assert at == {True: False, False: True}
        assert "ends nothing for" not in visitor.get("/kick?user=user2").text


def test_what_mail_and_names_bring_is_text_and_no_markup(demo: Demo, visitor: Visitor) -> None:
    ctl(demo, "mailbox", "create", ODD)
    for path in ("/mailboxes?find=onmouseover", "/user?name=user4"):
        page = visitor.get(path).text
        assert "<b onmouseover" not in page and SHOWN_ODD in page
    link = re.search(r'href="(/mailbox\?name=[^"]*onmouseover[^"]*)"', page)
    assert link and SHOWN_ODD in visitor.get(link[1].replace("&amp;", "&")).text
    mark = "<script>alert(1)</script>@example.org"
    demo.deliver(demo.frontend, "user1", message("x", message_id=mark))
    page = visitor.get("/messages?word=user1").text
    assert "delivered" in page and "<script>alert" not in page and "&lt;script&gt;alert" in page
    reflected = visitor.get('/messages?word="><script>alert(2)</script>').text
    assert "<script>alert" not in reflected
    visitor.get("/user?name=%E2%80%AEgro.elpmaxe")  # a mark that turns text around
    turned = visitor.get("/mailboxes?find=%E2%80%AEgro").text
    assert "\u202e" not in turned and r"\u202e" in turned


def test_conflicts_the_manual_and_every_other_page_are_there(visitor: Visitor) -> None:
    page = visitor.get("/status").text
    paths = re.findall(r'<li><a href="(/\w+)"', page)
    assert len(paths) == 10
    for path in paths:
        answer = visitor.get(path)
        assert answer.status == 200 and "<h1>" in answer.text, path
    assert "No conflicts" in visitor.get("/conflicts").text
    assert "the page for operators" in visitor.get("/manual?topic=web").text


def test_the_last_lines_of_all_logs_are_there(demo: Demo, visitor: Visitor) -> None:
    with pytest.raises(Exception, match="AUTHENTICATIONFAILED"):
        demo.imap(demo.frontend, "user1", "<i>wrong</i>")
    page = visitor.get("/log?word=login.failed").text
    assert "login.failed" in page and "user1" in page and "fe1.murder.test" in page
    assert "wrong" not in page.split("<main")[1].split("</form>")[1]
    assert "login.succeeded" in visitor.get("/log").text
    assert "No line matches" in visitor.get("/log?level=error").text
    assert visitor.get("/log?level=all").status == 400
    lines = json.loads(ctl(demo, "log", "login.failed", "--json"))
    assert {"fe1.murder.test"} <= {line["node"] for line in lines}
    assert "login.failed" in ctl(demo, "log", "user1")


def test_a_node_tells_of_its_processes(demo: Demo, visitor: Visitor) -> None:
    page = visitor.get("/node?name=be1.murder.test").text
    assert f">{demo.backends[0]['pid']}</td>" in page and "Certificate until" in page


def test_long_lists_come_in_pages(demo: Demo, visitor: Visitor) -> None:
    with demo.peer(demo.home(2), user="admin") as peer:
        for number in range(55):
            peer.ok(f'CREATE "user/user2/f{number:02}"')
    page = visitor.get("/user?name=user2").text
    assert "1–50 of 56" in page and 'rel="next"' in page
    after = re.search(r'href="([^"]+)" rel="next"', page)
    assert after and "51–56 of 56" in visitor.get(after[1].replace("&amp;", "&")).text
    assert "51–56 of 56" in visitor.get("/user?name=user2&page=999999").text
    assert "1–50 of 56" in visitor.get("/user?name=user2&page=-1").text


def test_where_the_page_has_a_process_of_its_own_that_is_seen_too(demo: Demo) -> None:
    def told() -> list[dict[str, Any]]:
        nodes = json.loads(ctl(demo, "status", "--json"))["nodes"]
        return [one for one in nodes if one["node"] == "be2.murder.test"]

    backend = demo.backends[1]
    assert [one["role"] for one in told()] == ["backend"]  # in one process: it answers for the page
    file = demo.folder / "be2" / "murder.toml"
    file.write_text(file.read_text().replace("workers = 1", "workers = 2"))
    demo.node("stop", "be2")
    demo.node("start", "be2")
    roles = {one["role"]: one for one in told()}
    assert sorted(one["role"] for one in told()) == ["backend", "backend", "web"]
    assert "web" in ctl(demo, "status")
    web = roles["web"]
    assert web["pid"] != roles["backend"]["pid"] and web["memory_kib"] > 0
    page = Visitor.of(demo, backend).entered().get("/status").text
    assert page.count("be2.murder.test</a>") == 2
    lines = json.loads(ctl(demo, "audit", "--operator", "admin", "--json"))
    here = [line for line in lines if line["node"] == "be2.murder.test"]
    assert len(here) == len({json.dumps(line, sort_keys=True) for line in here}) > 0
    with urllib.request.urlopen(f"http://127.0.0.1:{backend['metrics']}/metrics") as answer:
        assert 'process_memory_usage_bytes{role="web",worker="0"}' in answer.read().decode()


def test_what_does_not_answer_is_named_where_something_is_done_by_it(demo: Demo) -> None:
    visitor = Visitor.of(demo, demo.backends[0]).entered()
    for away in ("fe1", "mupdate"):
        demo.node("kill", away)
        for path in ("/kick?user=user2", "/conflicts", "/sessions"):
            assert f"/{away}/data did not answer: it does not run" in visitor.get(path).text
        assert f"/{away}/data" in visitor.done("/conflicts/forget")
        if away == "mupdate":
            assert "No conflicts at the others" in visitor.get("/conflicts").text
            for path in ("/users", "/mailbox/delete?name=user/user1"):
                answer = visitor.get(path)
                assert answer.status == 502 and "The master, 127.0.0.1:" in answer.text
                assert "Connection refused" in answer.text and 'href="/status"' in answer.text
        demo.node("start", away)
    until(lambda: "Everything is well" in visitor.get("/status").text)
