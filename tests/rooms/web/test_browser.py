"""The page for operators as people see it, in a real Chromium."""

import os
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from tests.conftest import cannot_run
from tests.kit.demo import Demo, wanted
from tests.kit.programs.browser import PROGRAM, Browser, browsing
from tests.kit.waiting import until
from tests.rooms.web.visitor import Visitor, ctl

LACKING = wanted(PROGRAM, "certutil", "pk12util")
pytestmark = pytest.mark.skipif(bool(LACKING), reason=LACKING)
PATHS = (
    *(
        "/status",
        "/node?name=be1.murder.test",
        "/sessions",
        "/users",
        "/user?name=user1",
        "/mailboxes",
    ),
    *("/mailbox?name=user/user1", "/mailbox/delete?name=user/user1", "/moves", "/conflicts"),
    *("/messages?word=user1", "/audit", "/log", "/manual?topic=web", "/nothing"),
)
# What axe-core, which knows the rules of WCAG, has to say against a page
AXE = resources.files("axe_playwright_python") / "axe.min.js"
JUDGED = """axe.run(document, %s).then(done => [done.violations.map(
one => `${one.id}: ${one.help}: ${one.nodes.map(node => node.html).join(" ")}`), done.passes.length])"""
CONTRAST = '{runOnly: ["color-contrast"]}'  # in the other colours all else is the same
# What a reader of screens needs: each field named, one heading of the first level, the landmarks.
NAMELESS = """[...document.querySelectorAll("input:not([type=hidden]), select, button, a")]
.filter(one => !(one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim()))
.map(one => one.outerHTML)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as one:
        yield one


def entered(browser: Browser, demo: Demo) -> str:
    base = f"https://127.0.0.1:{demo.info['mupdate']['web']}"
    browser.size(1280)
    browser.go(f"{base}/status")
    if "Log in to" in browser.text():
        browser.fill("#user", "admin")
        browser.fill("#password", "secret")
        browser.press("form:last-of-type button")
    return base


def test_every_page_fits_a_telephone_and_tells_a_screen_reader_what_is_what(
    browser: Browser, demo: Demo
) -> None:
    base, axe = entered(browser, demo), AXE.read_text()
    demo.deliver(demo.frontend, "user1", b"Subject: x\r\n\r\nx\r\n")
    for path in PATHS:
        for width, colours, rules in ((1280, "dark", CONTRAST), (360, "light", "{}")):
            preferred = [{"name": "prefers-color-scheme", "value": colours}]
            browser.call("Emulation.setEmulatedMedia", features=preferred)
            browser.size(width)
            browser.go(base + path)
            assert browser.run("document.documentElement.scrollWidth") <= width, (path, width)
            browser.run(axe)
            violations, passed = browser.run(JUDGED % rules)
            assert (violations, passed > 0) == ([], True), (path, width)
        assert browser.run(NAMELESS) == [], path
        assert browser.run("document.querySelectorAll('h1, main, html[lang]').length") == 3, path
    assert browser.complaints == []
    browser.run("document.querySelector('h1').insertAdjacentHTML('afterend', '<img src=x><input>')")
    violations, _ = browser.run(JUDGED % "{}")
    assert [one.partition(":")[0] for one in violations] == ["image-alt", "label"]  # it looks
    browser.call("Emulation.setEmulatedMedia", features=[])


def test_somebody_without_a_mouse_logs_in_and_skips_the_menu(browser: Browser, demo: Demo) -> None:
    base = f"https://127.0.0.1:{demo.frontend['web']}"
    browser.size(1280)
    browser.go(f"{base}/login")
    until(lambda: browser.run("document.activeElement.id") == "user")  # a busy browser is late
    browser.call("Input.insertText", text="admin")
    browser.key("Tab")
    until(lambda: browser.run("document.activeElement.id") == "password")
    browser.call("Input.insertText", text="secret")
    browser.press_key("Enter")
    until(
        lambda: "You are logged in as admin." in browser.text("[role=status]"),
        lambda: browser.text("body"),
    )
    browser.key("Tab")
    until(lambda: browser.run("document.activeElement.className") == "skip")
    browser.key("Enter")
    until(lambda: browser.run("location.hash") == "#main")
    assert browser.run("document.cookie") == ""  # no script sees it


def test_the_status_is_live_and_says_so_when_a_node_dies(browser: Browser, demo: Demo) -> None:
    base = entered(browser, demo)
    browser.go(f"{base}/status")
    until(lambda: "Everything is well." in browser.text("#verdict"))
    browser.run("document.querySelector('#verdict').dataset.same = 'yes'")
    demo.node("kill", "be2")
    until(lambda: "wrong" in browser.text("#verdict"))
    until(lambda: "be2" in browser.text(".problems") and "away" in browser.text("table"))
    assert browser.run("document.querySelector('#verdict').dataset.same") == "yes"  # is read out
    demo.node("start", "be2")
    until(lambda: "Everything is well." in browser.text("#verdict"))


def test_who_is_logged_out_elsewhere_is_asked_to_log_in(browser: Browser, demo: Demo) -> None:
    base = entered(browser, demo)
    browser.go(f"{base}/status")
    cookies = browser.call("Network.getCookies", urls=[base])["cookies"]
    other = Visitor.of(demo, demo.info["mupdate"])
    other.cookies = {one["name"]: one["value"] for one in cookies}
    other.get("/status")
    assert other.send("/logout").status == 303
    until(lambda: "Log in to" in browser.text())


def test_a_move_is_begun_and_followed_with_a_click_each(browser: Browser, demo: Demo) -> None:
    base = entered(browser, demo)
    browser.go(f"{base}/user?name=user3")
    browser.press("form[action='/move'] button")
    assert "1 move" in browser.text("table")
    browser.press("form[action='/move'] button")
    until(lambda: "1 of 1 over" in browser.text("[data-live]"))
    browser.go(f"{base}/moves")
    browser.press("a[aria-label^='undo']")
    browser.press("form[action='/moves/act'] button")
    until(lambda: "2 of 2 over" in browser.text("[data-live]"))


def test_names_that_are_markup_run_nothing(browser: Browser, demo: Demo) -> None:
    ctl(demo, "mailbox", "create", 'user/user1/<img src=x onerror="document.title=1">')
    base = entered(browser, demo)
    before = len(browser.complaints)
    browser.go(f"{base}/user?name=user1")
    assert "<img src=x" in browser.text("table")
    assert browser.run("document.querySelectorAll('main img').length") == 0
    assert re.match("User user1", browser.run("document.title"))
    assert len(browser.complaints) == before


def test_an_operator_gets_in_by_their_certificate_and_acts(demo: Demo) -> None:
    if os.geteuid():
        cannot_run("the browser is given a policy of its own by a mount, which needs root")
    certificate = Path(str(demo.info["operator"])).with_name("operator.pem")
    base = f"https://127.0.0.1:{demo.backends[0]['web']}"
    with browsing(certificate) as browser:
        browser.go(f"{base}/login")
        browser.press("form:first-of-type button")
        assert "You are logged in as operator." in browser.text("[role=status]")
        browser.go(f"{base}/user?name=user2")
        assert "user2" in browser.text("h1")
    with browsing() as browser:
        browser.go(f"{base}/login")
        assert "operator" not in browser.text("button")
