"""Who is let in at the page for operators, for how long, and what a form needs to be taken."""

import json
import re
from pathlib import Path

import pytest

from tests.kit.demo import Demo, reconfigure
from tests.kit.process import run_murder
from tests.kit.waiting import until
from tests.rooms.web.visitor import Visitor, ctl


def operator_certificate(demo: Demo) -> Path:
    return Path(str(demo.info["operator"])).with_name("operator.pem")


def test_every_node_has_the_page_and_an_administrator_gets_in(demo: Demo) -> None:
    for node in (demo.info["mupdate"], demo.frontend, *demo.backends):
        visitor = Visitor.of(demo, node)
        assert (
            visitor.get("/").status == 303
            and visitor.get("/status").headers["location"] == "/login"
        )
        assert visitor.log_in().status == 303
        page = visitor.get("/status").text
        for name in ("mupdate", "fe1", "be1", "be2"):
            assert f">{name}.murder.test</a></th>" in page
        assert "Everything is well." in page


def test_who_is_no_administrator_or_gives_a_wrong_password_is_refused(demo: Demo) -> None:
    visitor = Visitor.of(demo, demo.frontend)
    for user, password in (("admin", "wrong"), ("user1", "secret"), ("nobody", "x"), ("", "")):
        answer = visitor.log_in(user, password)
        assert answer.status in (400, 403) and 'role="alert"' in answer.text
        assert not visitor.cookies and "Traceback" not in answer.text
    assert visitor.get("/status").status == 303


def test_an_operators_certificate_is_enough_and_is_needed_with_every_request(demo: Demo) -> None:
    operator = Visitor.of(demo, demo.backends[0], operator_certificate(demo))
    assert "Log in as operator" in operator.get("/login").text
    assert operator.send("/login", way="certificate").status == 303
    assert "You are logged in as operator" in operator.get("/status").text
    thief = Visitor.of(demo, demo.backends[0])
    thief.cookies = dict(operator.cookies)
    assert thief.get("/status").status == 303
    assert thief.send("/login", way="certificate").status == 403
    node = Path(str(demo.info["dir"])) / "fe1" / "fe1.murder.test.pem"  # a node is no operator
    assert Visitor.of(demo, demo.backends[0], node).send("/login", way="certificate").status == 403


def test_a_token_is_worth_nothing_after_the_logout(demo: Demo) -> None:
    visitor = Visitor.of(demo, demo.frontend).entered()
    stolen = Visitor(visitor.ca, visitor.port, cookies=dict(visitor.cookies))
    assert stolen.get("/status").status == 200
    assert visitor.send("/logout").headers["location"] == "/login"
    assert stolen.get("/status").status == 303
    assert stolen.get("/status/part").status == 401


def test_the_cookie_is_of_this_host_alone_and_no_script_sees_it(demo: Demo) -> None:
    cookie = Visitor.of(demo, demo.frontend).log_in().headers["set-cookie"]
    assert re.match(r"__Host-murder-\d+=[\w-]{43}; Path=/; ", cookie)
    assert {"Secure", "HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))


def test_every_answer_says_what_a_browser_may_load(demo: Demo) -> None:
    visitor = Visitor.of(demo, demo.frontend)
    for path in ("/login", "/nothing", "/files/murder.js", "/files/murder.css", "/status"):
        headers = visitor.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert (
            headers["x-content-type-options"] == "nosniff"
            and headers["cache-control"] == "no-store"
        )
    assert visitor.get("/files/../login.html").status in (303, 404)
    assert visitor.get("/files/login.html").status in (303, 404)


@pytest.mark.parametrize("origin", ["", "null", "https://evil.example", "http://127.0.0.1"])
def test_a_form_from_elsewhere_is_not_taken(demo: Demo, origin: str) -> None:
    visitor = Visitor.of(demo, demo.frontend).entered()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    headers = {**kind, **({"Origin": origin} if origin else {})}
    answer = visitor.ask("POST", "/logout", f"token={visitor.form_token}", **headers)
    assert answer.status == 403
    assert visitor.get("/status").status == 200  # still there


def test_a_form_without_its_sessions_token_is_not_taken(demo: Demo) -> None:
    visitor, other = (Visitor.of(demo, demo.frontend).entered() for _ in range(2))
    for token in ("", "x", other.form_token):
        assert visitor.send("/logout", token=token).status == 403
    assert visitor.get("/status").status == 200
    assert visitor.send("/logout").status == 303


def test_who_is_no_administrator_any_more_is_out_at_the_reload(demo: Demo) -> None:
    visitor = Visitor.of(demo, demo.backends[1]).entered()
    own = f':{visitor.port}"]\nadmins = '
    reconfigure(demo, "be2", own + '["admin"]', own + '["user2"]')
    assert visitor.get("/status").status == 303
    assert visitor.log_in().status == 403
    other = Visitor.of(demo, demo.backends[1])
    assert other.log_in("user2").status == 303
    # the master decides on its own
    assert other.get("/mailbox?name=user/user1").status in (409, 502)
    reconfigure(demo, "be2", own + '["user2"]', own + '["admin"]')


def test_who_has_another_password_now_is_out_and_the_others_stay(demo: Demo) -> None:
    visitor = Visitor.of(demo, demo.frontend).entered()
    operator = Visitor.of(demo, demo.frontend, operator_certificate(demo))
    assert operator.send("/login", way="certificate").status == 303
    config = str(Path(str(demo.info["dir"])) / "fe1" / "murder.toml")
    try:
        run_murder("auth", "passwd", "admin", "--config", config, said="other\n")
        until(lambda: visitor.get("/status").status == 303, "they are asked to log in")
        assert visitor.get("/status/part").status == 401
        assert operator.get("/status").status == 200
        assert visitor.log_in().status == 403
        assert visitor.log_in(password="other").status == 303
    finally:
        run_murder("auth", "passwd", "admin", "--config", config, said="secret\n")
    until(lambda: visitor.log_in().status == 303, "the old one is back")


def test_where_a_node_has_no_operators_certificate_it_acts_on_itself_alone_and_says_so(
    demo: Demo,
) -> None:
    file = Path(str(demo.info["dir"])) / "be1" / "murder.toml"
    found = re.search(r"\[operator\]\n(?:(?!\[).*\n)*", file.read_text())
    assert found is not None
    reconfigure(demo, "be1", found[0], "[operator]\n")
    try:
        operator = Visitor.of(demo, demo.backends[0], operator_certificate(demo))
        assert operator.send("/login", way="certificate").status == 303
        for visitor in (operator, Visitor.of(demo, demo.backends[0]).entered()):
            shown = visitor.get("/status").text
            assert "1 node," in shown and "This node alone is seen" in shown
            assert "Everything is well" not in shown
            assert "0 sessions with" in visitor.get("/kick?user=nobody").text
            assert "0 sessions ended." in visitor.done("/kick", user="nobody")
        refused = operator.send("/mailbox/quota", name="user/user1", root="user/user1", STORAGE="1")
        assert refused.status == 409 and "[operator] certificate" in refused.text
    finally:
        reconfigure(demo, "be1", "[operator]\n", found[0])


def test_logins_stand_in_the_audit_trail_with_their_way(demo: Demo) -> None:
    Visitor.of(demo, demo.frontend).entered().send("/logout")
    lines = json.loads(ctl(demo, "audit", "--operator", "admin", "--json"))
    mine = [line for line in lines if line.get("way") == "web" and line["node"].startswith("fe1")]
    assert {"login", "logout"} <= {line["event"] for line in mine}
    assert mine[-1]["peer"] == "127.0.0.1"
    assert "by web" in ctl(demo, "audit", "--operator", "admin")
