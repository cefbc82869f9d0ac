"""`murder config`: each thing wrong is one clear line with file and key, exit code 2, never a traceback."""

import contextlib
import json
import os
import pwd
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

import murder.pki.authority
from murder.admin.cli import main
from murder.node.process.preflight import acting_as, paths_of_plugins
from murder.pki.authority import init_authority, issue
from tests.kit.ports import free_port

Capture = pytest.CaptureFixture[str]

NODE = '[node]\nname = "fe1.example.org"\ndata = "data"\nroles = ["frontend"]\n'
TLS = '[tls]\nca = "ca/ca.pem"\ncertificate = "fe1.example.org.pem"\nkey = "fe1.example.org.key"\n'
MASTER = '[mupdate]\nmaster = "127.0.0.1"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with certificates for fe1.example.org."""
    return with_certificates(tmp_path)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """The same, where everybody may enter: pytest's own is this user's."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield with_certificates(Path(name).resolve())


def with_certificates(folder: Path) -> Path:
    ca = folder / "ca"
    ca.mkdir()
    init_authority(ca)
    issue(ca, "fe1.example.org", ["frontend"], out=folder)
    return folder


@dataclass(frozen=True)
class Paths:
    """A plugin's settings."""

    file: Path


def check(folder: Path, text: str, capsys: Capture, *options: str) -> tuple[int, list[str]]:
    """Write the file, check it; exit code and lines, the file's name cut off."""
    file = folder / "murder.toml"
    file.write_text(text)
    code = main(["config", "check", "--config", str(file), *options])
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return code, [line.removeprefix(f"{file}: ") for line in shown.err.splitlines()]


def test_an_operators_own_file_is_no_nodes_and_is_checked_for_what_it_is(
    folder: Path, capsys: Capture
) -> None:
    issue(folder / "ca", "anna", ["operator"], out=folder)
    text = '[node]\nname = "anna"\ndata = "data"\n[tls]\nca = "ca/ca.pem"\n[operator]\ncertificate = "anna.pem"\n'
    assert check(folder, f'{text}key = "anna.key"\n', capsys) == (0, [])
    (code, lines) = check(folder, f'{text}key = "fe1.example.org.key"\n', capsys)
    assert code == 2 and "operator.key" in lines[0]
    (code, lines) = check(folder, '[node]\nname = "anna"\ndata = "data"\n', capsys)
    assert code == 2 and "no role" in lines[0]


def good(folder: Path) -> str:
    return f'{NODE}{MASTER}{TLS}[frontend]\nimap = ["127.0.0.1:{free_port()}"]\n'


def test_a_good_file_is_called_good(folder: Path, capsys: Capture) -> None:
    file = folder / "murder.toml"
    file.write_text(good(folder))
    assert main(["config", "check", "--config", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: good, as frontend fe1.example.org\n"


def test_a_secret_that_everybody_can_read_is_cautioned_of(
    open_folder: Path, capsys: Capture
) -> None:
    folder = open_folder
    secret, file = folder / "p.secret", folder / "murder.toml"
    secret.write_text("wonder\n")
    text = good(folder) + (
        'proxy_password_file = "p.secret"\n[servers."be1"]\nproxy_password_file = "p.secret"\n'
        '[plugins.auth_ldap]\nservice_password = "wonder"\n'
    )
    for mode, cautions in (
        (0o600, []),
        (0o640, []),
        (
            0o644,
            [
                ("frontend.proxy_password_file", f"{secret}: the secret"),
                ("servers.be1.proxy_password_file", f"{secret}: the secret"),
                ("plugins.auth_ldap.service_password", f"{file}: has a secret, and"),
            ],
        ),
    ):
        secret.chmod(mode)
        file.write_text(text)
        file.chmod(mode)
        code, lines = check(folder, text, capsys)
        assert lines == [
            f"Caution: {file}: {key}: {what} can be read by everybody; chmod 600 it"
            for key, what in cautions
        ]
        assert code == 0
    assert main(["config", "check", "--config", str(file), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] and len(answer["cautions"]) == 3
    assert "wonder" not in str(answer)
    folder.chmod(0o750)  # who is not of its group does not come to the files
    assert check(folder, text, capsys) == (0, [])


def test_a_port_in_use(folder: Path, capsys: Capture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = f'{NODE}{MASTER}{TLS}[frontend]\nimap = ["127.0.0.1:{port}"]\n'
        code, lines = check(folder, text, capsys)
        assert code == 2
        assert lines == [
            f"frontend.imap: cannot listen on 127.0.0.1:{port}: the port is in use; stop the other "
            "program (`ss -ltnp` shows it) or choose another port"
        ]
        assert check(folder, text, capsys, "--running") == (0, [])


def test_a_name_that_does_not_resolve(folder: Path, capsys: Capture) -> None:
    text = good(folder).replace('"127.0.0.1"', '"no-such-host.invalid"')
    code, lines = check(folder, text, capsys)
    assert code == 2
    assert lines[0].startswith("mupdate.master: the name 'no-such-host.invalid' has no address")


def test_a_listener_on_a_name_or_address_that_is_not_here(folder: Path, capsys: Capture) -> None:
    for host, says in (("no-such.invalid", "has no address"), ("192.0.2.1", "no such address")):
        text = f'{NODE}{MASTER}{TLS}[frontend]\nimap = ["{host}:{free_port()}"]\n'
        code, lines = check(folder, text, capsys)
        assert code == 2
        assert lines[0].startswith("frontend.imap: cannot listen on ")
        assert says in lines[0]


def test_a_plugin_that_is_not_there(folder: Path, capsys: Capture) -> None:
    code, lines = check(folder, good(folder) + '[auth]\nplugin = "auth_fiel"\n', capsys)
    assert code == 2
    assert "auth.plugin: 'auth_fiel': unknown plugin; did you mean `auth_file`?" in lines
    code, lines = check(folder, good(folder) + '[plugins]\npath = ["nowhere"]\n', capsys)
    assert code == 2
    assert lines[0].startswith(f"plugins.path: {folder}/nowhere is no folder")


def test_paths_of_plugins_that_cannot_be_looked_at(folder: Path, capsys: Capture) -> None:
    """Root itself may not enter what another user has mounted by FUSE."""
    name = "x" * 300
    code, lines = check(folder, good(folder) + f'[plugins]\npath = ["{name}"]\n', capsys)
    assert (code, lines) == (
        2,
        [f"plugins.path: {folder}/{name} cannot be read: File name too long"],
    )
    inside = folder / "closed" / "keytab"
    inside.parent.mkdir()
    inside.touch()
    inside.parent.chmod(0)
    paths = {
        "a": Paths(inside),
        "b": Paths(folder / name),
        "c": Paths(folder / "nothing" / "there"),
    }
    nobody = pwd.getpwnam("nobody")
    with acting_as(nobody) if os.geteuid() == 0 else contextlib.nullcontext():
        seen = paths_of_plugins({"a": Paths(inside)})
    assert seen == [("plugins.a.file", inside)]
    inside.parent.chmod(0o700)
    assert paths_of_plugins(paths) == seen


def test_scripts_and_programs_of_the_site_are_looked_at(folder: Path, capsys: Capture) -> None:
    (folder / "bad.sieve").write_text("keep;\nfileinto;\n")
    text = f"""{good(folder)}[sieve]
before = ["bad.sieve"]
[sieve.programs."x"]
command = ["no-path"]
"""
    code, lines = check(folder, text, capsys, "--role", "backend")
    assert code == 2
    assert 'sieve.programs."x".command: no-path is no program by its whole path' in lines
    assert any(line.startswith(f"sieve: {folder}/bad.sieve: line 2, column 1: ") for line in lines)
    text = text.replace("bad.sieve", "none.sieve")
    _, lines = check(folder, text, capsys, "--role", "backend")
    assert (
        f"sieve: {folder}/none.sieve: the script cannot be read: No such file or directory" in lines
    )


def test_a_certificate_that_has_expired(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(murder.pki.authority, "BACKDATED", timedelta(days=9))
    issue(folder / "ca", "fe1.example.org", ["frontend"], out=folder, days=-2)
    code, lines = check(folder, good(folder), capsys)
    assert code == 2
    assert lines[0].startswith(f"tls.certificate: {folder}/fe1.example.org.pem: expired on ")


def test_certificates_that_are_missing_spoilt_or_anothers(folder: Path, capsys: Capture) -> None:
    pem = folder / "fe1.example.org.pem"
    issue(folder / "ca", "fe2.example.org", ["backend"], out=folder)
    (folder / "fe2.example.org.pem").replace(pem)
    (folder / "fe2.example.org.key").replace(folder / "fe1.example.org.key")
    code, lines = check(folder, good(folder), capsys)
    assert code == 2
    assert "is not for fe1.example.org (node.name)" in lines[0]
    assert "is not for the role frontend" in lines[1]
    pem.write_text("nonsense")
    assert "holds no PEM certificate" in check(folder, good(folder), capsys)[1][0]
    pem.unlink()
    assert "no such file" in check(folder, good(folder), capsys)[1][0]


def test_an_authority_of_one_server_that_is_no_certificate(folder: Path, capsys: Capture) -> None:
    authority = folder / "their.pem"
    text = (
        good(folder) + f'[servers."be9.example.org"]\nca = "{authority}"\naddress = "127.0.0.1"\n'
    )
    for octets in (None, "", "nonsense"):
        if octets is not None:
            authority.write_text(octets)
        code, lines = check(folder, text, capsys)
        assert code == 2
        assert lines[0].startswith(f'servers."be9.example.org".ca: {authority} is no file of certi')
    authority.write_bytes((folder / "ca" / "ca.pem").read_bytes())
    assert check(folder, text, capsys)[0] == 0


def test_a_role_with_nothing_to_listen_on_or_to_follow(folder: Path, capsys: Capture) -> None:
    code, lines = check(folder, NODE + TLS, capsys)
    assert code == 2
    assert "mupdate.master: missing: a frontend needs its master's host:port" in lines
    code, lines = check(folder, NODE + TLS + MASTER, capsys)
    assert lines == ["frontend.imap: the frontend role has nothing to listen on"]


def test_a_data_folder_that_cannot_be(folder: Path, capsys: Capture) -> None:
    (folder / "data").write_text("")
    code, lines = check(folder, good(folder), capsys)
    assert (code, lines) == (2, [f"node.data: {folder}/data is no folder"])


def test_implicit_tls_without_a_certificate(folder: Path, capsys: Capture) -> None:
    text = f'{NODE}{MASTER}[frontend]\nimaps = ["127.0.0.1:{free_port()}"]\n'
    _, lines = check(folder, text, capsys)
    assert any(
        line.startswith("frontend.imaps: needs a certificate; set tls.cert") for line in lines
    )


def test_a_file_that_is_missing(tmp_path: Path, capsys: Capture) -> None:
    assert main(["config", "check", "--config", str(tmp_path / "none.toml")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_json_for_programs(folder: Path, capsys: Capture) -> None:
    file = folder / "murder.toml"
    file.write_text(NODE + "[frontend]\nimapp = 1\n")
    assert main(["config", "check", "--config", str(file), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["problems"][0]["key"] == "frontend.imapp"


def test_show_tells_what_is_in_effect_and_no_secret(folder: Path, capsys: Capture) -> None:
    file = folder / "murder.toml"
    file.write_text(good(folder) + 'proxy_password = "hush"\n')
    assert main(["config", "show", "--config", str(file)]) == 0
    text = capsys.readouterr().out
    assert 'proxy_password = "***"' in text
    assert "log2_cost = 14" in text
    assert main(["config", "show", "--config", str(file), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["frontend"]["proxy_password"] == "***"
    assert shown["node"]["name"] == "fe1.example.org"


def test_one_port_twice_is_found(folder: Path, capsys: Capture) -> None:
    port = free_port()
    frontend = f'[frontend]\nimap = ["127.0.0.1:{port}"]\nlmtp = ["127.0.0.1:{port}"]\n'
    code, lines = check(folder, NODE + MASTER + TLS + frontend, capsys)
    assert code == 2
    assert lines == [
        f"frontend.lmtp: 127.0.0.1:{port} is frontend.imap's already (127.0.0.1:{port}); "
        "choose another port"
    ]
    wild = frontend.replace(f'lmtp = ["127.0.0.1:{port}"]', f'imaps = ["*:{port}"]')
    lines = check(folder, NODE + MASTER + TLS + wild, capsys)[1]
    assert lines[0].startswith(f"frontend.imaps: 0.0.0.0:{port} is frontend.imap's already")
    node = NODE + f'control = ["127.0.0.1:{port}"]\n'
    two = f'[frontend]\nimap = ["127.0.0.1:{port}"]\n'
    lines = check(folder, node + MASTER + TLS + two, capsys)[1]
    assert lines[0].startswith(f"node.control: 127.0.0.1:{port} is frontend.imap's already")
    six = f'[frontend]\nimap = ["127.0.0.1:{port}"]\nlmtp = ["[::1]:{port}"]\n'
    assert "already" not in "".join(check(folder, NODE + MASTER + TLS + six, capsys)[1])


def test_root_looks_as_the_user_that_the_node_runs_as(capsys: Capture) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can")
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        ca = folder / "ca"
        ca.mkdir()
        init_authority(ca)
        issue(ca, "fe1.example.org", ["frontend"], out=folder)
        (folder / "data").mkdir()
        os.chown(folder / "data", nobody.pw_uid, nobody.pw_gid)
        key = folder / "fe1.example.org.key"
        code, lines = check(folder, good(folder), capsys)
        assert code == 2
        assert lines == [
            f"tls.key: {key}: cannot be read by user nobody; chown it to that user, chmod 600"
        ]
        os.chown(key, nobody.pw_uid, nobody.pw_gid)
        assert check(folder, good(folder), capsys) == (0, [])
        # what plugins read when somebody logs in only
        keytab = folder / "murder.keytab"
        keytab.write_bytes(b"\5\2")
        keytab.chmod(0o600)
        text = good(folder) + '[plugins]\nuse = ["sasl_gssapi"]\n'
        text += f'[plugins.sasl_gssapi]\nkeytab = "{keytab}"\nrealms = ["EXAMPLE.ORG"]\n'
        code, (line,) = check(folder, text, capsys)
        assert code == 2
        assert line.startswith(f"plugins.sasl_gssapi.keytab: {keytab} cannot be opened by nobody")
        os.chown(keytab, nobody.pw_uid, nobody.pw_gid)
        assert check(folder, text, capsys) == (0, [])
        os.chown(folder / "data", 0, 0)
        text = good(folder).replace("[node]\n", '[node]\nuser = "nobody"\n')
        code, lines = check(folder, text, capsys)
        assert code == 2
        assert lines == [f"node.data: {folder}/data cannot be written by user nobody; chown it"]
        text = good(folder).replace("[node]\n", '[node]\nuser = "nowhere"\n')
        assert check(folder, text, capsys) == (2, ["node.user: no such user 'nowhere'"])
        assert os.geteuid() == 0


def test_a_missing_key_file_is_told_by_its_key(folder: Path, capsys: Capture) -> None:
    (folder / "fe1.example.org.key").unlink()
    _, lines = check(folder, good(folder), capsys)
    assert lines == [f"tls.key: {folder}/fe1.example.org.key: no such file"]
    (folder / "ca" / "ca.pem").unlink()
    _, lines = check(folder, good(folder), capsys)
    assert lines[1].startswith(f"tls.ca: {folder}/ca/ca.pem: no such file")


def test_a_frontend_alone_needs_no_more_than_what_clients_see(
    folder: Path, capsys: Capture
) -> None:
    own = folder / "own"
    own.mkdir()
    init_authority(own)
    made = issue(own, "mail.example.org", ["frontend"])
    tls = f'[tls]\npublic_certificate = "{made.certificate}"\npublic_key = "{made.key}"\n'
    text = f'{NODE}{MASTER}{tls}[frontend]\nimaps = ["127.0.0.1:{free_port()}"]\n'
    _, lines = check(folder, text, capsys)
    assert not [line for line in lines if line.startswith("frontend.imaps")], lines
