"""Roundcube sends its users to an identity provider, which asks for their password and sends them back with a code; for that
Roundcube has a token, by which it logs in: once step by step, once by a person in a real browser, where its plugin keeps
filters, too. What runs is Debian's package under PHP's own web server.
"""

import asyncio
import base64
import hashlib
import html
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from tests.clients.roundcube import configured, make_a_filter, webmail
from tests.clients.test_tokens import SUBJECT, with_mail
from tests.kit.demo import Demo, message, wanted
from tests.kit.programs.browser import PROGRAM, browsing
from tests.kit.threads import in_a_thread
from tests.kit.waiting import until
from tests.plugins.auth.test_auth_oauth import Handler, Provider

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


def test_a_person_makes_a_filter_with_its_plugin(
    kind: str, demo: Demo, number: int, tmp_path: Path
) -> None:
    user, server = demo.user(number), demo.server(kind, number)
    imap, sieve = ((server["host"], server[protocol]) for protocol in ("imap", "sieve"))
    make_a_filter(tmp_path, imap, sieve, user, demo.password, f"filters-{kind}")
    for subject in ("[list] news", "plain"):
        assert demo.deliver(demo.frontend, user, message(subject)).startswith("250")
    with demo.imap(demo.frontend, user) as client:
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
