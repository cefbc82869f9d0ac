"""What an operator sets wrong, and what fails beside us: each ends in a sentence that names the cure, in the log when
somebody logs in, in `murder auth test`, and in what a node answers to `murder ctl doctor`.
"""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from murder.admin.cli.program import main
from murder.auth.gate import Gate
from murder.auth.penalty import Penalties
from murder.config import load_config
from murder.config.problem import ConfigError
from murder.hooks import load_plugins
from murder.log import set_up
from murder.serve.role import chain_of, probe_auth
from tests.kit.toml import Sections, write_config
from tests.plugins.auth.slapd import BASE, Slapd, running_slapd
from tests.plugins.auth.test_auth_http import Script, script
from tests.plugins.auth.test_auth_oauth import Provider, provider
from tests.plugins.auth.test_auth_saslauthd import saslauthd_beside
from tests.rooms.cli.test_auth import typed
from tests.rooms.serve.test_ways_in import answer_with, begin, dialogues, is_challenge, message

DENIED = {True: b"AUTHENTICATIONFAILED", False: b"UNAVAILABLE"}
Capture = pytest.CaptureFixture[str]


@dataclass
class Beside:
    """What runs, and is asked."""

    folder: Path
    slapd: Slapd
    script: Script
    provider: Provider
    saslauthd: Path  # its socket; what stands behind it is away
    closed: int = field(default=1)  # a port where nobody listens


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    folder = tmp_path_factory.mktemp("beside")
    with (
        running_slapd(folder / "slapd") as slapd,
        script() as asked,
        provider() as issuer,
        saslauthd_beside(folder, "-a", "rimap", "-O", "127.0.0.1/1") as mux,
    ):
        yield Beside(folder, slapd, asked, issuer, mux)


@dataclass(frozen=True)
class Wrong:
    """A plugin with keys of its table that are right but for these. `says` stands in all three places, or, where the node
    does not start so, where that is refused; `only_log`: nobody can look for it without a login."""

    plugin: str
    keys: Callable[[Beside], dict[str, Any]]
    says: tuple[str, ...]
    refuses_start: bool = False
    only_log: bool = False
    token: Callable[[Provider], str] | None = None
    user: str = "anna"


def right(plugin: str, by: Beside) -> dict[str, Any]:
    match plugin:
        case "auth_ldap":
            return {
                "servers": [f"ldaps://localhost:{by.slapd.tls}"],
                "ca": str(by.slapd.ca),
                "service_dn": f"cn=murder,{BASE}",
                "service_password": "service",
                "base": f"ou=people,{BASE}",
            }
        case "auth_http":
            return {"url": by.script.url}
        case "auth_oauth":
            return {"issuer": by.provider.url, "audience": ["mail"], "domains": ["example.org"]}
    return {"socket": str(by.saslauthd)}


def der(by: Beside) -> str:
    """A certificate as it is not to be."""
    file = by.folder / "ca.der"
    words = ["openssl", "x509", "-outform", "DER", "-in", str(by.slapd.ca), "-out", str(file)]
    subprocess.run(words, check=True, capture_output=True)
    return str(file)


def now() -> int:
    return int(time.time())


SET_WRONG = {
    "ldap: base that is not there": Wrong(
        "auth_ldap",
        lambda by: {"base": f"ou=peopel,{BASE}"},
        ("no such entry", "plugins.auth_ldap.base"),
    ),
    "ldap: base that is no name": Wrong(
        "auth_ldap", lambda by: {"base": "people"}, ("no name of an entry", "ou=people,dc=example")
    ),
    "ldap: group_base": Wrong(
        "auth_ldap",
        lambda by: {"group_base": f"ou=x,{BASE}"},
        ("no such entry", "plugins.auth_ldap.group_base"),
    ),
    "ldap: bind": Wrong(
        "auth_ldap",
        lambda by: {"service_dn": f"cn=murdre,{BASE}"},
        ("invalid credentials", "set service_dn and service_password"),
    ),
    "ldap: bind's password": Wrong(
        "auth_ldap",
        lambda by: {"service_password": "x"},
        ("invalid credentials", "set service_dn and service_password"),
    ),
    "ldap: authority": Wrong(
        "auth_ldap",
        lambda by: {"ca": ""},
        ("certificate is not believed", "plugins.auth_ldap.ca"),
    ),
    "ldap: no file of the authority": Wrong(
        "auth_ldap",
        lambda by: {"ca": "/nothing.pem"},
        ("there is no file /nothing.pem", "set plugins.auth_ldap.ca"),
        refuses_start=True,
    ),
    "ldap: authority that is no PEM": Wrong(
        "auth_ldap",
        lambda by: {"ca": der(by)},
        ("no certificate in PEM form", "openssl x509"),
        refuses_start=True,
    ),
    "ldap: filter that is none": Wrong(
        "auth_ldap",
        lambda by: {"filter": "(uid=%n"},
        ("filter = '(uid=%n' is no filter", "a ) is missing"),
        refuses_start=True,
    ),
    "ldap: it is down": Wrong(
        "auth_ldap",
        lambda by: {"servers": [f"ldaps://localhost:{by.closed}"]},
        ("Connection refused", "does it run there"),
    ),
    "ldap: it has no address": Wrong(
        "auth_ldap",
        lambda by: {"servers": ["ldaps://ldap.invalid"]},
        ("not known", "DNS or /etc/hosts"),
    ),
    "ldap: TLS at the port without": Wrong(
        "auth_ldap",
        lambda by: {"servers": [f"ldaps://localhost:{by.slapd.plain}"]},
        ("no TLS is spoken there", "say ldap://"),
    ),
    "ldap: none at the port with": Wrong(
        "auth_ldap",
        lambda by: {"servers": [f"ldap://localhost:{by.slapd.tls}"]},
        ("closed the connection", "its port for ldaps://"),
    ),
    "ldap: attribute with the user id": Wrong(
        "auth_ldap", lambda by: {"user": "employeeNumberX"}, ("set plugins.auth_ldap.user",)
    ),
    "oauth: issuer is down": Wrong(
        "auth_oauth",
        lambda by: {"issuer": f"http://127.0.0.1:{by.closed}"},
        ("does the provider run? is the URL right?",),
        token=lambda issuer: issuer.token(),
    ),
    "oauth: issuer by another name": Wrong(
        "auth_oauth",
        lambda by: {"issuer": by.provider.url + "/"},
        ("it calls itself", "set plugins.auth_oauth.issuer to just that"),
        token=lambda issuer: issuer.token(),
    ),
    "oauth: plain HTTP": Wrong(
        "auth_oauth",
        lambda by: {"issuer": "http://id.example.org"},
        ("does not begin with https://", "this host only"),
        refuses_start=True,
    ),
    "oauth: no file of the authority": Wrong(
        "auth_oauth",
        lambda by: {"ca": "/nothing.pem"},
        ("there is no file /nothing.pem", "set plugins.auth_oauth.ca"),
        refuses_start=True,
    ),
    "oauth: introspection without a secret": Wrong(
        "auth_oauth",
        lambda by: {"issuer": "", "introspection": by.provider.url + "/introspect"},
        ("does not let us ask (401)", "set client_id and client_secret"),
        token=lambda issuer: "0paque",
    ),
    "oauth: expired token": Wrong(
        "auth_oauth",
        lambda by: {},
        ("it has expired", "the client must get a new one", "NTP"),
        only_log=True,
        token=lambda issuer: issuer.token(exp=now() - 700),
    ),
    "oauth: token of a clock that is ahead": Wrong(
        "auth_oauth",
        lambda by: {},
        ("it counts only later", "set both clocks"),
        only_log=True,
        token=lambda issuer: issuer.token(nbf=now() + 600),
    ),
    "oauth: audience": Wrong(
        "auth_oauth",
        lambda by: {},
        ("it is for 'web'", "plugins.auth_oauth.audience"),
        only_log=True,
        token=lambda issuer: issuer.token(aud="web"),
    ),
    "oauth: claim": Wrong(
        "auth_oauth",
        lambda by: {"user": "mail_id"},
        ("it has no claim mail_id", "plugins.auth_oauth.user"),
        only_log=True,
        token=lambda issuer: issuer.token(),
    ),
    "oauth: domain": Wrong(
        "auth_oauth",
        lambda by: {"domains": []},
        ("of another domain", "plugins.auth_oauth.domains"),
        only_log=True,
        token=lambda issuer: issuer.token(),
    ),
    "http: 500": Wrong(
        "auth_http",
        lambda by: {},
        ("status 500", "call the url with curl"),
        only_log=True,
        user="broken",
    ),
    "http: try later": Wrong(
        "auth_http",
        lambda by: {},
        ("try again later", "look at what the script asks"),
        only_log=True,
        user="busy",
    ),
    "http: it is down": Wrong(
        "auth_http",
        lambda by: {"url": f"http://127.0.0.1:{by.closed}/"},
        ("does the script's server run?",),
    ),
    "http: it has no address": Wrong(
        "auth_http", lambda by: {"url": "http://auth.invalid/"}, ("not known", "DNS or /etc/hosts")
    ),
    "http: TLS where none is": Wrong(
        "auth_http",
        lambda by: {"url": by.script.url.replace("http:", "https:")},
        ("TLS failed", "no TLS is spoken there"),
    ),
    "http: authority": Wrong(
        "auth_http",
        lambda by: {"url": f"https://localhost:{by.slapd.tls}/"},
        ("certificate is not believed", "plugins.auth_http.ca"),
    ),
    "http: no file of the authority": Wrong(
        "auth_http",
        lambda by: {"url": "https://localhost/", "ca": "/nothing.pem"},
        ("there is no file /nothing.pem", "set plugins.auth_http.ca"),
        refuses_start=True,
    ),
    "saslauthd: no socket": Wrong(
        "auth_saslauthd",
        lambda by: {"socket": "/nothing/mux"},
        ("nobody listens at /nothing/mux", "start saslauthd"),
    ),
    "saslauthd: what it asks is away": Wrong(
        "auth_saslauthd",
        lambda by: {},
        ("does what stands behind it run", "auth.log"),
    ),
}


@pytest.mark.parametrize("name", SET_WRONG)
async def test_what_is_set_wrong_is_told_with_its_cure_wherever_an_operator_looks(
    name: str, beside: Beside, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = SET_WRONG[name]
    keys = {**right(wrong.plugin, beside), **wrong.keys(beside)}
    file = configured(tmp_path, wrong.plugin, keys)
    if wrong.refuses_start:
        with pytest.raises(ConfigError) as refused:
            load_plugins(load_config(file), ["frontend"]).auth_backends()
        assert all(words in str(refused.value) for words in wrong.says), str(refused.value)
        assert ".py" not in str(refused.value)
        await heard(capfd, wrong, "auth", "test", "-c", str(file))
        return
    if not wrong.only_log:
        await heard(capfd, wrong, "auth", "test", "-c", str(file))
    token = wrong.token and wrong.token(beside.provider)
    typed(monkeypatch, (token or "secret") + "\n")
    words = ("--token",) if token else (wrong.user,)
    await heard(capfd, wrong, "auth", "test", *words, "-c", str(file))
    config = load_config(file)
    plugins = load_plugins(config, ["frontend"])
    gate = Gate(chain_of(config, plugins), allow_plaintext=True, penalties=Penalties(0))
    if not wrong.only_log:
        cures = [f"{one.problem} {one.cure}" async for one in probe_auth(gate) if one.problem]
        assert any(all(words in text for words in wrong.says) for text in cures), cures
    set_up("info", "json")
    async with dialogues("imap", gate, tmp_path) as connect:
        peer = await connect()
        if token:
            peer.send(begin("imap", "OAUTHBEARER", message("OAUTHBEARER", token.encode())))
        else:
            peer.send(b"a LOGIN %b secret\r\n" % wrong.user.encode())
        line = await peer.line()
        if is_challenge("imap", line):
            peer.send(answer_with("imap", b"\x01"))
            line = await peer.line()
        is_denied = wrong.token is not None and wrong.only_log
        assert line.startswith(b"a NO [%b]" % DENIED[is_denied]), line
        await peer.close()
    logged = capfd.readouterr().err
    assert all(words in logged for words in wrong.says), logged
    assert (token or "secret") not in logged.replace("client_secret", "")


def configured(folder: Path, plugin: str, keys: dict[str, Any]) -> Path:
    file = folder / "murder.toml"
    sections: Sections = {
        "node": {"name": "fe1.test", "data": "data", "roles": ["frontend"]},
        "auth": {"plugins": [plugin]},
        f"plugins.{plugin}": keys,
    }
    write_config(file, sections)
    return file


async def heard(capfd: Capture, wrong: Wrong, *words: str) -> None:
    """What a command says of it, and that it fails. In a thread: it has a loop of its own."""
    capfd.readouterr()
    assert await asyncio.to_thread(main, list(words)) in (1, 2, 3)
    said = "".join(capfd.readouterr())
    assert all(one in said for one in wrong.says), said
    assert "Traceback" not in said and "Errno" not in said
