"""murder.toml in, dataclasses out; whatever is wrong is one line that says what to do."""

import ast
import pickle
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from murder.config import (
    Config,
    ConfigError,
    Endpoint,
    contains,
    load_config,
    parse_endpoint,
    sections,
)
from murder.config.write import format_value, values_of
from murder.model.protocol import client_keys
from tests.kit.sections import key_of

NODE = '[node]\nname = "be1.example.org"\ndata = "data"\n'


def read(folder: Path, text: str) -> Config:
    file = folder / "murder.toml"
    file.write_text(NODE + text)
    return load_config(file)


def test_what_is_not_given_has_its_default(tmp_path: Path) -> None:
    config = read(tmp_path, "")
    assert config.node.data == tmp_path / "data"
    assert config.frontend.idle_timeout_s == 1860.0
    assert config.auth.plugin == "auth_file"
    assert config.plugins.use[0] == "placement_with_parent"


def test_paths_are_whole_also_where_the_file_is_named_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a store writes down has to mean the same after a start from elsewhere."""
    read(tmp_path, "")
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("murder.toml")).node.data == tmp_path / "data"


def test_values_become_what_the_code_works_with(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
[mupdate]
master = "mupdate.example.org"
[frontend]
imap = ["*:143", "[::1]:144"]
idle_timeout_s = 1800
lmtp_trusted = ["192.0.2.0/24"]
[servers."be1.example.org"]
address = "10.0.0.1"
tls = "implicit"
[plugins.store_spool]
anything = {may = ["stand", "here"]}
""",
    )
    assert config.mupdate.master == Endpoint("mupdate.example.org", 3905)
    assert key_of(config.frontend, "imap") == (Endpoint("*", 143), Endpoint("::1", 144))
    assert config.frontend.idle_timeout_s == 1800.0
    assert contains(config.frontend.lmtp_trusted, "::ffff:192.0.2.7")
    assert not contains(config.frontend.lmtp_trusted, "192.0.3.7")
    assert config.address_of("be1.example.org") == "10.0.0.1"
    assert config.address_of("be2.example.org") == "be2.example.org"
    assert config.plugins.settings["store_spool"] == {"anything": {"may": ["stand", "here"]}}


def test_a_configuration_survives_the_way_to_a_worker(tmp_path: Path) -> None:
    config = read(tmp_path, '[plugins.store_spool]\nx = 1\n[servers."a"]\nimap = 1')
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[frontend]\nworkerz = 1", "frontend.workerz: unknown key; did you mean `workers`?"),
        ("[fronted]", "fronted: unknown section; did you mean `frontend`?"),
        ("[frontend]\nworkers = -1", "frontend.workers: must be at least 0, not -1"),
        (
            "[frontend]\nworkers = true",
            "frontend.workers: expected a whole number, not true or false (true)",
        ),
        (
            '[frontend]\nimap = "127.0.0.1:143"',
            "frontend.imap: expected a list in square brackets, not text ('127.0.0.1:143')",
        ),
        (
            '[frontend]\nimap = ["143"]',
            'frontend.imap: expected "host:port", as "127.0.0.1:143", "[::1]:143" or "*:143", not '
            "'143'",
        ),
        (
            '[frontend]\nimap = ["::1:143"]',
            "frontend.imap: write an IPv6 address in brackets: [::1:143]",
        ),
        (
            '[frontend]\nupstream_auth = "externl"',
            'frontend.upstream_auth: expected one of "external", "plain", "gssapi", not text (\'externl\')',
        ),
        (
            '[frontend]\nlmtp_trusted = ["10.0.0.1/8"]',
            'frontend.lmtp_trusted: expected a network as "192.0.2.0/24" or an address, not '
            "'10.0.0.1/8'",
        ),
        (
            '[frontend]\nproxy_password = "a"\nproxy_password_file = "b"',
            "frontend.proxy_password_file: give either `proxy_password` or `proxy_password_file`, "
            "not both",
        ),
        (
            '[tls]\ncertificate = "x.pem"',
            "tls.certificate: `certificate` and `key` must be given together",
        ),
        ("frontend = 3", "frontend: expected a table [frontend], not a number (3)"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, text: str, line: str) -> None:
    body = text if not text.startswith("frontend") else ""
    file = tmp_path / "murder.toml"
    file.write_text((text + "\n" if not body else "") + NODE + body)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert f"{file}: {line}" in str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("data", '"data" is a folder: write "./data", or the whole path'),
        ("spool", '"spool" is a folder: write "./spool", or the whole path'),
        ("be1/data", '"be1/data" is a folder: write "./be1/data", or the whole path'),
        ("be1:mail", '"be1:mail": expected HOST, HOST:PORT or a folder'),
        (":3906", '":3906": expected HOST, HOST:PORT or a folder'),
        ("./data", ""),
        ("be1", ""),
        ("be1.example.org:3906", ""),
        ("[2001:db8::1]", ""),
        ("[2001:db8::1]:3906", ""),
    ],
)
def test_a_folder_is_not_taken_for_a_host(tmp_path: Path, place: str, problem: str) -> None:
    (tmp_path / "spool/control").mkdir(parents=True)
    (tmp_path / "be1").mkdir()
    text = f'[operator]\nnodes = ["{place}"]'
    if not problem:
        assert read(tmp_path, text).operator.nodes == (place,)
        return
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert [str(each).partition("operator.nodes: ")[2] for each in caught.value.problems] == [
        problem
    ]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "[frontend]\na = 1\n[backend]\nb = 2\n[log]\nc = 3")
    assert [problem.key for problem in caught.value.problems] == [
        "frontend.a",
        "backend.b",
        "log.c",
    ]


def test_a_file_without_its_node_says_so(tmp_path: Path) -> None:
    file = tmp_path / "murder.toml"
    file.write_text("[log]\n")
    with pytest.raises(ConfigError, match="every node needs"):
        load_config(file)
    file.write_text('[node]\nname = "x"\n')
    with pytest.raises(ConfigError, match=r"node\.data: missing\. Folder for"):
        load_config(file)


def test_a_missing_file_and_a_file_that_is_no_toml_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.toml")
    file = tmp_path / "bad.toml"
    file.write_text("[node\n")
    with pytest.raises(ConfigError, match=r"is not TOML: .*line 1"):
        load_config(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(file)


def test_a_secret_comes_from_its_file_and_never_shows(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hush\n")
    config = read(tmp_path, '[frontend]\nproxy_password_file = "password"')
    assert config.frontend.proxy_password == "hush"
    assert "hush" not in repr(config)
    with pytest.raises(ConfigError, match="the secret cannot be read"):
        read(tmp_path, '[frontend]\nproxy_password_file = "nothing"')


@pytest.mark.parametrize("text", ["", ":1", "a:", "a:0", "a:65536", "a:b", "[::1", "[]:1", "a:²"])
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_endpoint(text)


def test_a_port_that_is_none_is_told_so() -> None:
    with pytest.raises(ValueError, match="a port is 1 to 65535"):
        parse_endpoint("*:143000")


@pytest.mark.parametrize("text", ["127.0.0.1:143", "[::1]:143", "*:143", "a.example.org:1"])
def test_an_endpoint_reads_as_it_was_written(text: str) -> None:
    assert str(parse_endpoint(text)) == text


def test_every_key_is_read_somewhere() -> None:
    """A key that nothing reads promises what does not happen."""
    root = Path(__file__).parent.parent.parent.parent
    read = {key.name for key in client_keys()}  # ports: by their protocol
    for file in [*root.glob("murder/**/*.py"), *root.glob("plugins/**/*.py")]:
        if file.parent.name != "config":
            tree = ast.parse(file.read_text(encoding="utf-8"))
            read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    sectioned = [
        one
        for one in vars(sections).values()
        if isinstance(one, type) and is_dataclass(one) and one.__module__ == sections.__name__
    ]
    keys = {f"{one.__name__}.{key.name}" for one in sectioned for key in fields(one)}
    assert {key for key in keys if key.partition(".")[2] not in read} == set()


def test_the_masters_of_one_list_may_be_several(tmp_path: Path) -> None:
    mupdate = read(tmp_path, '[mupdate]\nmaster = ["m1.test", "m2.test:4000"]\n').mupdate
    master = mupdate.master
    assert master is not None
    assert [str(one) for one in (master, *master.others)] == ["m1.test:3905", "m2.test:4000"]
    assert format_value(values_of(mupdate)["master"]) == '["m1.test:3905", "m2.test:4000"]'
