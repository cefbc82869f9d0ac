"""A visitor of the page for operators, without a browser: requests over TLS, with a browser's cookies and headers."""

import http.client
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.kit.demo import Demo
from tests.kit.process import run_murder


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str


@dataclass(slots=True)
class Visitor:
    """At one port of 127.0.0.1; `certificate`: a file beside its key, shown with each connection."""

    ca: Path
    port: int
    certificate: Path | None = None
    cookies: dict[str, str] = field(default_factory=dict)
    form_token: str = ""

    @classmethod
    def of(cls, demo: Demo, node: dict[str, Any], certificate: Path | None = None) -> "Visitor":
        return cls(Path(str(demo.info["ca"])), int(node["web"]), certificate)

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> Answer:
        """One request on a connection of its own."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.certificate.with_suffix(".key"))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=context, timeout=60
        )
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        given = {**({"Cookie": cookie} if cookie else {}), **headers}
        try:
            connection.request(method, path, body.encode() if body else None, given)
            said = connection.getresponse()
            text = said.read().decode("utf-8")
        finally:
            connection.close()
        answer = Answer(
            said.status, {name.lower(): value for name, value in said.getheaders()}, text
        )
        if set_cookie := answer.headers.get("set-cookie"):
            name, _, value = set_cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        if found := re.search(r'name="token" value="([^"]+)"', text):
            self.form_token = found[1]
        return answer

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def send(self, path: str, **fields: str) -> Answer:
        """A form of one of its pages, as a browser sends it."""
        body = urlencode({"token": self.form_token, **fields})
        origin = f"https://127.0.0.1:{self.port}"
        kind = "application/x-www-form-urlencoded"
        return self.ask("POST", path, body, **{"Origin": origin, "Content-Type": kind})

    def done(self, path: str, **fields: str) -> str:
        """A form that is taken, and the page behind it."""
        answer = self.send(path, **fields)
        assert answer.status == 303, (answer.status, answer.text)
        return self.get(answer.headers["location"]).text

    def log_in(self, user: str = "admin", password: str = "secret") -> Answer:
        return self.send("/login", user=user, password=password)

    def entered(self) -> "Visitor":
        """Logged in, with a token for forms."""
        assert self.log_in().status == 303
        assert self.get("/status").status == 200
        return self


def ctl(demo: Demo, *words: str) -> str:
    """What `murder ctl` says."""
    return run_murder("ctl", *words, "--config", str(demo.info["operator"])).stdout
