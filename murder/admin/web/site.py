"""Requests to pages: files, logins, who may ask, what every answer carries, and what became of a request that failed."""

import asyncio
import hmac
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from murder.admin.operate.reach import is_of_master
from murder.admin.web.desk import HTML, WAY, Desk, Page, Watch
from murder.admin.web.forms import Fields, parse_cookies, parse_fields, parse_form
from murder.admin.web.pages.menu import MENU, PAGES
from murder.admin.web.rendering import FILES, environment, render
from murder.admin.web.sessions import BY_CERTIFICATE, BY_PASSWORD, Session, Sessions
from murder.auth.gate import Gate
from murder.config import Config, ConfigError
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.log import logger
from murder.model.sasl import PlainCredentials
from murder.net.connection import Connection
from murder.node.control.sockets import OPERATOR_ROLE
from murder.node.pages.http import Request, Response
from murder.trail.audit import AuditLog

REQUEST_S: Final = 150.0  # twice what a backend may take
MAX_REQUESTS: Final = 16  # of one session under way
MAX_USER: Final = 255
COOKIE: Final = "__Host-murder"  # RFC 6265bis §4.1.3.2: of this host alone, over TLS alone
FORM_TOKEN: Final = "token"
KINDS: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with `no-referrer` browsers send forms without their Origin
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOGIN, LOGOUT = "/login", "/logout"
HOME: Final = "/status"


class Site:
    """See the module."""

    def __init__(self, config: Config, gate: Gate, audit: AuditLog) -> None:
        self.sessions = Sessions(time.monotonic)
        self._audit = audit
        self._environment = environment()
        self._files = {
            f"/files/{file.name}": (file.read_bytes(), KINDS[file.name.rpartition(".")[2]])
            for file in FILES.iterdir()
            if file.name.rpartition(".")[2] in KINDS
        }
        self._pages = {(page.path, page.method): page for page in PAGES}
        self._log = logger(role=WAY)
        self.take(config, gate)

    def take(self, config: Config, gate: Gate) -> None:
        """From now on."""
        self._config, self.gate = config, gate
        self._watch = Watch(config)

    async def __call__(self, request: Request) -> Response:
        response = await self._answer(request)
        return replace(response, headers={**HEADERS, **response.headers})

    async def _answer(self, request: Request) -> Response:
        path, _, query = request.path.partition("?")
        if path in self._files and request.method in ("GET", "HEAD"):
            body, kind = self._files[path]
            return Response(200, body, kind)
        try:
            fields = parse_fields(query)
            is_post = request.method == "POST"
            form = (
                parse_form(request.headers.get("content-type", ""), request.body) if is_post else {}
            )
        except BadSyntax as problem:
            return self._plain(400, str(problem))
        page = self._pages.get((path, "GET" if request.method == "HEAD" else request.method))
        session = self._session_of(request, is_active=page is None or not page.is_part)
        if session is not None and not await self._still_opens(session, request.connection):
            session = None
        if is_post and not _is_from_here(request):
            return self._plain(403, "This form came from another page, and was not taken")
        if path == LOGIN:
            return await self._login(request, form, session)
        if session is None:
            if page is not None and page.is_part:
                return Response(401)
            return Response(303, headers={"Location": LOGIN})
        if is_post and not hmac.compare_digest(
            form.get(FORM_TOKEN, "").encode(), session.form_token.encode()
        ):
            text = "This form is not of your session: load its page anew"
            return self._plain(403, text, session)
        if path == LOGOUT and is_post:
            return self._logout(request, session)
        if path == "/":
            return Response(303, headers={"Location": HOME})
        if page is None:
            known = {method for known, method in self._pages if known == path}
            if known:
                by_form = "This is done by a form of another page, not by its address alone"
                text = "This page takes no form" if is_post else by_form
                refused = self._plain(405, text, session)
                return replace(refused, headers={"Allow": ", ".join(sorted(known))})
            return self._plain(404, "There is no such page", session)
        return await self._run(page, request, session, fields, form)

    # --- a page

    async def _run(
        self, page: Page, request: Request, session: Session, fields: Fields, form: Fields
    ) -> Response:
        """To its end, also where the browser goes: what was begun is not left half done."""
        if len(session.tasks) >= MAX_REQUESTS:
            return self._plain(503, "Too many of your requests are under way")
        desk = Desk(
            page.path,
            fields,
            form,
            request.connection.peer,
            session,
            self._config,
            self._watch,
            self._audit,
            self._render,
        )
        task = asyncio.get_running_loop().create_task(self._handled(page, desk))
        session.tasks.add(task)
        task.add_done_callback(session.tasks.discard)
        return await asyncio.shield(task)

    async def _handled(self, page: Page, desk: Desk) -> Response:
        try:
            async with asyncio.timeout(REQUEST_S):
                if page.is_part:
                    return await page.handler(desk)
                async with desk.session.turn:
                    return await page.handler(desk)
        except BadSyntax as problem:
            return self._failed(desk, page, 400, str(problem))
        except UnicodeError:
            return self._failed(desk, page, 400, "What was sent is not UTF-8")
        except (Refusal, ConfigError) as problem:
            return self._failed(desk, page, 409, str(problem))
        except UpstreamFailure as problem:
            who = "The master, " if is_of_master(self._config, problem) else ""
            return self._failed(desk, page, 502, f"{who}{problem}")
        except TimeoutError:
            return self._failed(desk, page, 504, f"That took more than {REQUEST_S:g} s: look again")

    def _failed(self, desk: Desk, page: Page, status: int, text: str) -> Response:
        if page.is_part:
            return desk.page("frame/failed_part.html", status=status, problem=text)
        return desk.page("frame/failed.html", status=status, problem=text, is_away=status >= 500)

    def _render(self, desk: Desk, name: str, /, **words: object) -> bytes:
        session = desk.session
        is_whole = not name.endswith("_part.html")
        frame = {
            "node": self._config.node.name,
            "menu": MENU,
            "here": desk.path,
            "me": session.user,
            "my_way": session.way,
            "form_token": session.form_token,
            "notices": session.take_notices() if is_whole else [],
        }
        return render(self._environment, name, {**frame, **words})

    def _plain(self, status: int, problem: str, session: Session | None = None) -> Response:
        """A page with no more than a sentence."""
        words: Mapping[str, object] = {
            "node": self._config.node.name,
            "problem": problem,
            "back": HOME if session is not None else LOGIN,
        }
        return Response(status, render(self._environment, "frame/refused.html", words), HTML)

    # --- who asks

    def _session_of(self, request: Request, *, is_active: bool) -> Session | None:
        web = self._config.web
        token = parse_cookies(request.headers.get("cookie", "")).get(_cookie_of(request), "")
        session = self.sessions.find(token, web.session_idle_s, web.session_s, is_active=is_active)
        if session is None:
            return None
        connection = request.connection
        if session.way == BY_PASSWORD and session.user not in self.gate.admins:
            self.sessions.end(session)  # no administrator any more
            return None
        if session.way == BY_CERTIFICATE and _operator_at(connection) != session.user:
            return None
        connection.became_known()
        return session

    async def _still_opens(self, session: Session, connection: Connection) -> bool:
        """Whether the password that they came by is still theirs: it is asked for as at a login, which mostly knows it again
        at once. Who has another now is out; where nobody can say, they stay."""
        if session.way != BY_PASSWORD:
            return True
        try:
            await self._admit(session.user, session.password, connection)
        except Refusal as refusal:
            self.sessions.end(session)
            facts = {"user": session.user, "peer": connection.peer, "way": WAY}
            self._audit.note("logout", {**facts, "result": refusal.text})
            return False
        except UpstreamFailure:
            pass
        return True

    async def _login(self, request: Request, form: Fields, session: Session | None) -> Response:
        operator = _operator_at(request.connection)
        if request.method in ("GET", "HEAD"):
            if session is not None:
                return Response(303, headers={"Location": HOME})
            return self._login_page(200, operator)
        if request.method != "POST":
            return Response(405, b"", headers={"Allow": "GET, POST"})
        if form.get("way") == BY_CERTIFICATE:
            if not operator:
                return self._login_page(403, operator, "No operator's certificate was shown")
            self._end(session)
            return self._begin(request, operator, BY_CERTIFICATE)
        user, password = form.get("user", ""), form.get("password", "")
        if not user or not password or len(user) > MAX_USER:
            return self._login_page(400, operator, "A name and a password are needed")
        try:
            login = await self._admit(user, password, request.connection)
        except Refusal as refusal:
            self._log.info(
                "login.failed", user=user[:MAX_USER], problem=refusal.text, **_who(request)
            )
            return self._login_page(403, operator, refusal.text)
        except UpstreamFailure as failure:
            self._log.info(
                "login.failed", user=user[:MAX_USER], problem=failure.text, **_who(request)
            )
            return self._login_page(
                503, operator, "Passwords cannot be looked at now, try again later"
            )
        self._end(session)
        return self._begin(request, login, BY_PASSWORD, password)

    def _end(self, session: Session | None) -> None:
        """Who logs in anew is no longer who they were."""
        if session is not None:
            self.sessions.end(session)

    async def _admit(self, user: str, password: str, connection: Connection) -> str:
        """Their name. Raises Refusal, UpstreamFailure."""
        octets = password.encode("utf-8", "surrogateescape")
        login = await self.gate.admit(PlainCredentials(user, "", octets), connection, WAY)
        if not login.is_admin:
            text = f"{login.user} is no administrator here ([web] admins)"
            raise Refusal(Code.AUTHORIZATION_FAILED, text)
        return login.user

    def _begin(self, request: Request, user: str, way: str, password: str = "") -> Response:
        token, session = self.sessions.begin(user, way, password)
        request.connection.became_known()
        self._log.info("login.succeeded", user=user, mechanism=way, **_who(request))
        facts = {"user": user, "peer": request.connection.peer, "way": WAY, "mechanism": way}
        self._audit.note("login", facts)
        session.notice(f"You are logged in as {user}.")
        cookie = f"{_cookie_of(request)}={token}; Path=/; Secure; HttpOnly; SameSite=Strict"
        return Response(303, headers={"Location": HOME, "Set-Cookie": cookie})

    def _login_page(self, status: int, operator: str, problem: str = "") -> Response:
        words = {"node": self._config.node.name, "operator": operator, "problem": problem}
        return Response(status, render(self._environment, "frame/login.html", words), HTML)

    def _logout(self, request: Request, session: Session) -> Response:
        self.sessions.end(session)
        facts = {"user": session.user, "peer": request.connection.peer, "way": WAY}
        self._audit.note("logout", facts)
        name = _cookie_of(request)
        gone = f"{name}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0"
        headers = {"Location": LOGIN, "Set-Cookie": gone, "Clear-Site-Data": '"cache", "storage"'}
        return Response(303, headers=headers)


def _cookie_of(request: Request) -> str:
    """Browsers send cookies of a host to all of its ports; there may be several nodes."""
    return f"{COOKIE}-{request.connection.local_address[1]}"


def _who(request: Request) -> Mapping[str, object]:
    connection = request.connection
    return {"protocol": WAY, "cid": connection.cid, "peer": connection.peer}


def _operator_at(connection: Connection) -> str:
    """The name in an operator's certificate that was shown."""
    certificate = connection.certificate
    is_operator = certificate is not None and OPERATOR_ROLE in certificate.roles
    return certificate.name if certificate is not None and is_operator else ""


def _is_from_here(request: Request) -> bool:
    """Whether a form was sent by a page of ours: browsers say whose it was."""
    host = request.headers.get("host", "")
    return bool(host) and request.headers.get("origin", "") == f"https://{host}"
