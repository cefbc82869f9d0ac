"""Roundcube sends its users to an identity provider, which asks for their password and sends them back with a code; for that
Roundcube has a token, by which it logs in: once step by step, once by a person in a real browser, where its plugin keeps
filters, too. What runs is Debian's package under PHP's own web server.
"""

import asyncio
import base64
import hashlib
import html
import json
import os
import re
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from tests.clients.test_tokens import SUBJECT, with_mail
from tests.conftest import cannot_run
from tests.kit.demo import Demo, message, wanted
from tests.kit.ports import free_port
from tests.kit.process import until_open
from tests.kit.programs.browser import PROGRAM, browsing
from tests.kit.threads import in_a_thread
from tests.kit.waiting import until
from tests.plugins.auth.test_auth_oauth import Handler, Provider

ROUNDCUBE = Path("/usr/share/roundcube")
DEFAULTS = Path("/etc/roundcube/defaults.inc.php")
PAGE = """<!doctype html><title>Who are you?</title><main><h1>Identity provider</h1><p>%s</p>
<form method="post" action="/authorize"><input name="user" autofocus><input name="password" type="password">
<input name="asked" type="hidden" value="%s"><button>Log in</button></form></main>"""
Form = dict[str, str]


class Door(Handler):
    """A provider with the authorization code flow (RFC 6749 §4.1): a page that asks who it is, a code that counts once, for
    the client that asked and with its proof key (RFC 7636) where it has one, and who a token is of."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/authorize":
            asked = fields(url.query)
            assert asked["response_type"] == "code" and asked["client_id"] == "webmail"
            return self.page("Your name and password, please.", url.query)
        if url.path == "/userinfo":
            assert self.headers["Authorization"].startswith("Bearer ")
            return self.answer({"sub": "1", "email": "anna@example.org"})
        return super().do_GET()

    def do_POST(self) -> None:
        form = fields(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if self.path == "/authorize":
            return self.log_in(form)
        asked = self.codes.pop(form["code"])
        assert (form["client_secret"], form["redirect_uri"]) == ("shared", asked["redirect_uri"])
        if challenge := asked.get("code_challenge"):
            proof = hashlib.sha256(form["code_verifier"].encode()).digest()
            assert base64.urlsafe_b64encode(proof).rstrip(b"=").decode() == challenge
        token = cast(Provider, self.server).token(preferred_username=asked["user"])
        self.answer({"access_token": token, "token_type": "Bearer", "expires_in": 600})

    @property
    def codes(self) -> dict[str, Form]:
        """What each code was asked for with, and by whom."""
        kept: dict[str, Form] = cast(Any, self.server).__dict__.setdefault("codes", {})
        return kept

    def log_in(self, form: Form) -> None:
        if (form.get("user"), form.get("password")) != ("anna", "secret"):
            return self.page("That is not right.", form["asked"])
        asked, code = fields(form["asked"]), secrets.token_hex(16)
        self.codes[code] = {**asked, "user": form["user"]}
        back = urlencode({"code": code, "state": asked["state"]})
        self.send_response(303)
        self.send_header("Location", f"{asked['redirect_uri']}?{back}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def page(self, says: str, asked: str) -> None:
        octets = (PAGE % (says, html.escape(asked))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)


def fields(text: str) -> Form:
    """Of a form."""
    return {name: values[0] for name, values in parse_qs(text).items()}


@contextmanager
def door() -> Iterator[Provider]:
    server = Provider()
    server.RequestHandlerClass = Door
    with in_a_thread(server):
        yield server


def tokens_of(issuer: Provider) -> dict[str, Any]:
    """Settings: who is in is said by an identity provider."""
    return {
        "oauth_provider": "generic",
        "oauth_provider_name": "here",
        "oauth_client_id": "webmail",
        "oauth_client_secret": "shared",
        "oauth_auth_uri": issuer.url + "/authorize",
        "oauth_token_uri": issuer.url + "/token",
        "oauth_identity_uri": issuer.url + "/userinfo",
        "oauth_scope": "openid email mail",
        "oauth_login_redirect": True,
    }


def configured(folder: Path, imap: tuple[str, int], more: Mapping[str, Any]) -> Path:
    """A folder of its own, in place of /etc/roundcube, with more settings."""
    if shutil.which("php") is None or not DEFAULTS.exists():
        cannot_run("Roundcube (Debian: roundcube-core roundcube-sqlite3 php-cli) is not installed")
    place = folder / "roundcube"
    place.mkdir()
    shutil.copy(DEFAULTS, place)
    shutil.copy(DEFAULTS.with_name("mimetypes.php"), place)
    with sqlite3.connect(place / "db") as database:
        database.executescript((ROUNDCUBE / "SQL/sqlite.initial.sql").read_text())
    database.close()
    settings: dict[str, Any] = {
        "db_dsnw": f"sqlite:///{place / 'db'}?mode=0600",
        "imap_host": f"{imap[0]}:{imap[1]}",
        "des_key": "24 letters, and no more!",
        "log_dir": str(place),
        "temp_dir": str(place),
        "plugins": [],
        **more,
    }
    lines = [
        f"$config[{json.dumps(key)}] = {json.dumps(value)};" for key, value in settings.items()
    ]
    (place / "config.inc.php").write_text("<?php\n" + "\n".join(lines) + "\n")
    return place


@contextmanager
def webmail(place: Path) -> Iterator[str]:
    """Its address."""
    port = free_port()
    with (place / "web.log").open("wb") as log:
        running = subprocess.Popen(
            ["php", "-S", f"127.0.0.1:{port}", "-t", str(ROUNDCUBE)],
            env={
                "PATH": "/usr/bin:/bin",
                "ROUNDCUBE_CONFIG_DIR": str(place),
                "PHP_CLI_SERVER_WORKERS": "4",
            },
            stdout=log,
            stderr=log,
        )
        try:
            until_open("127.0.0.1", port)
            yield f"http://127.0.0.1:{port}/"
        finally:
            running.terminate()
            running.wait()


async def test_roundcube_reads_by_a_token(tmp_path: Path) -> None:
    with ExitStack() as stack:
        issuer = stack.enter_context(door())
        async with (
            with_mail(tmp_path, issuer) as imap,
            httpx.AsyncClient(follow_redirects=True, timeout=60, trust_env=False) as browser,
        ):
            url = stack.enter_context(webmail(configured(tmp_path, imap, tokens_of(issuer))))
            page = await browser.get(url)
            assert page.url.path == "/authorize", page.text[:2000]
            form = {"user": "anna", "password": "secret", "asked": page.url.query.decode()}
            page = await browser.post(page.url.copy_with(query=None), data=form)
            assert "_task=mail" in str(page.url), page.text[:2000]
            token = re.search(r'"request_token":"([^"]+)"', page.text)
            assert token is not None
            listed = await browser.get(
                url,
                params={"_task": "mail", "_action": "list", "_mbox": "INBOX", "_remote": "1"},
                headers={"X-Roundcube-Request": token[1], "X-Requested-With": "XMLHttpRequest"},
            )
            assert SUBJECT in listed.text


PLUGIN = ROUNDCUBE / "plugins/managesieve/managesieve.php"
EDIT, FILTERS = "plugin.managesieve-action&_framed=1&_nav=hide", "plugin.managesieve"
DISCARD = """{ const one = document.querySelector("#action_type0"); one.value = "discard";
one.dispatchEvent(new Event("change", {bubbles: true})); }"""


def test_a_person_makes_a_filter_with_its_plugin(demo: Demo, number: int, tmp_path: Path) -> None:
    if not PLUGIN.exists() or wanted(PROGRAM):
        cannot_run("Debian: roundcube-plugins, php-net-sieve, chromium are not installed")
    user, frontend = demo.user(number), demo.frontend
    sieve = f"{frontend['host']}:{frontend['sieve']}"
    plugin = {"plugins": ["managesieve"], "managesieve_host": sieve}
    place = configured(tmp_path, (frontend["host"], frontend["imap"]), plugin)
    with webmail(place) as url, browsing() as browser:
        browser.size(1200)
        browser.go(url)
        browser.fill("#rcmloginuser", user)
        browser.fill("#rcmloginpwd", demo.password)
        browser.press("#rcmloginsubmit")
        browser.go(f"{url}?_task=settings&_action={EDIT}")
        browser.fill("#_name", "Lists")
        browser.fill("[name='_rule_target[0][]']", "[list]")
        browser.run(DISCARD)
        browser.press(".formbuttons button")
        browser.go(f"{url}?_task=settings&_action={FILTERS}")
        assert browser.text("#filterslist").strip() == "Lists"
        picture = Path(os.environ.get("MURDER_PICTURES", tmp_path)) / "roundcube-filters.png"
        browser.picture(picture)
        assert picture.stat().st_size > 10_000
    for subject in ("[list] news", "plain"):
        assert demo.deliver(frontend, user, message(subject)).startswith("250")
    with demo.imap(frontend, user) as client:
        assert client.select("INBOX")[1] == [b"1"]
        assert client.search(None, "SUBJECT", "plain")[1] == [b"1"]


@pytest.mark.skipif(bool(wanted(PROGRAM)), reason=wanted(PROGRAM))
async def test_a_person_reads_mail_in_a_browser_by_the_providers_word(tmp_path: Path) -> None:
    def as_a_person(url: str) -> None:
        with browsing() as browser:
            browser.go(url)
            assert browser.text("h1") == "Identity provider"
            for password in ("guess", "secret"):
                browser.fill("[name=user]", "anna")
                browser.fill("[name=password]", password)
                if password == "guess":
                    browser.press("button")
                    assert "not right" in browser.text("p")
            browser.press("button")
            until(lambda: SUBJECT in browser.text("#messagelist"))
            picture = Path(os.environ.get("MURDER_PICTURES", tmp_path)) / "roundcube-token.png"
            browser.picture(picture)
            assert picture.stat().st_size > 10_000

    with ExitStack() as stack:
        issuer = stack.enter_context(door())
        async with with_mail(tmp_path, issuer) as imap:
            url = stack.enter_context(webmail(configured(tmp_path, imap, tokens_of(issuer))))
            await asyncio.to_thread(as_a_person, url)
