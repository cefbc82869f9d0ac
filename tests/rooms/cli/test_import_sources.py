"""An import from a server that lies, or from a tree that somebody has prepared: bounded, refused, nothing of others."""

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from murder.admin.operate import sources
from murder.admin.operate.bring import Import
from murder.admin.operate.sources import Found, ImapSource, MaildirSource, key_of
from murder.errors import Refusal, UpstreamFailure
from murder.model.name import Namespace

Answer = Callable[[socket.socket, bytes], bytes | None]


@contextmanager
def lying(answers: dict[bytes, bytes]) -> Iterator[ImapSource]:
    """A source at a server that answers these words so, and all else with OK. `ENDLESS` is said for ever."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer, peer.makefile("rb") as lines:
            peer.sendall(b"* OK [CAPABILITY IMAP4rev1] ready\r\n")
            for line in lines:
                tag, word, *_ = line.split()
                told = answers.get(word.upper(), b"")
                try:
                    while told.endswith(b"ENDLESS"):
                        peer.sendall(told.removesuffix(b"ENDLESS"))
                    peer.sendall(told + tag + b" OK done\r\n")
                except OSError:
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    host, port = listener.getsockname()
    source = ImapSource(host, port, "u", "p", tls="none", context=ssl.create_default_context())
    try:
        yield source
    finally:
        source._client.shutdown()
        listener.close()
        thread.join(10)


BOX = {
    b"LIST": b'* LIST () "/" box\r\n',
    b"SELECT": b"* 3 EXISTS\r\n",
    b"EXAMINE": b"* 3 EXISTS\r\n",
}


@pytest.mark.parametrize(
    "fetched",
    [
        b"* 1 FETCH (UID 1 RFC822.SIZE 3 BODY[HEADER] {99999999999}\r\n",
        b"* 1 FETCH (FLAGS ())\r\nENDLESS",
        b"* 1 FETCH " + b"x" * 2_000_000,
        b"* 1 FETCH (BODY[HEADER] {3}\r\nENDLESS",
    ],
)
def test_an_answer_without_end_is_broken_off(
    fetched: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_ANSWER", 100_000)
    with lying(BOX | {b"FETCH": fetched, b"UID": fetched}) as source:
        (folder,) = source.folders()
        with pytest.raises((UpstreamFailure, Refusal)):
            list(source.messages(folder))


@pytest.mark.parametrize("count", [b"99999999999999", b"20000000", b"x", b""])
def test_a_count_that_cannot_be_is_refused(count: bytes) -> None:
    with lying(BOX | {b"EXAMINE": b"* %s EXISTS\r\n" % count}) as source:
        (folder,) = source.folders()
        with pytest.raises((UpstreamFailure, Refusal)):
            list(source.messages(folder))


def test_no_more_is_asked_for_than_a_page_at_once() -> None:
    row = b"* 1 FETCH (UID 7 RFC822.SIZE 3 FLAGS (\\Seen) BODY[HEADER] {2}\r\n\r\n)\r\n"
    with lying(BOX | {b"EXAMINE": b"* 1200 EXISTS\r\n", b"FETCH": row}) as source:
        (folder,) = source.folders()
        assert len(list(source.messages(folder))) == 3


def brought_flags(flags: bytes) -> frozenset[str]:
    """Of the one message of a source whose server tells these."""
    row = b"* 1 FETCH (UID 7 RFC822.SIZE 3 FLAGS (%b) BODY[HEADER.FIELDS (DATE)] {2}\r\n\r\n)\r\n"
    with lying(BOX | {b"FETCH": row % flags}) as source:
        (folder,) = source.folders()
        (message,) = source.messages(folder)
        assert (message.uid, message.key) == ("7", key_of(b"\r\n", 3))
        return message.flags


def test_flags_become_no_part_of_a_command() -> None:
    odd = b"\\Seen ok $Junk \\Odd \\Recent \\* " + b"x" * 300
    assert brought_flags(odd) == {"\\Seen", "ok", "$Junk"}
    assert len(brought_flags(b" ".join(b"k%d" % one for one in range(5000)))) == 100
    for wrong in (b'a"b', b"{5+}", b"a{3}", b"%*", b"\xff", b"a\r\nb"):
        with pytest.raises(UpstreamFailure):
            brought_flags(wrong)


def test_a_message_is_taken_whatever_form_its_octets_have() -> None:
    date = b'INTERNALDATE "02-Jan-2020 03:04:05 +0100"'
    for octets, text in ((b"{5}\r\na\r\n)b", b"a\r\n)b"), (b'"x"', b"x"), (b'""', b"")):
        row = b"* 1 FETCH (BODY[] %b UID 7 %b)\r\n" % (octets, date)
        with lying(BOX | {b"UID": row}) as source:
            (folder,) = source.folders()
            taken, moment = source.take(folder, Found("", frozenset(), "7"))
            assert (taken, moment.isoformat()) == (text, "2020-01-02T03:04:05+01:00")


def test_folders_are_read_as_any_server_may_write_them() -> None:
    rows = (
        b'* LIST (\\HasNoChildren) "/" "Alte Post"\r\n'
        b'* LIST () "." INBOX.a\r\n* LIST () NIL flat/name\r\n* LIST () "\\\\" {3}\r\nx\\y\r\n'
        b'* LIST (\\NoSelect) "/" no\r\n* LIST (\\NonExistent) "/" none\r\n'
    )
    with lying(BOX | {b"LIST": rows}) as source:
        assert source.folders() == [("Alte Post",), ("INBOX", "a"), ("flat/name",), ("x", "y")]
    with lying(BOX | {b"LIST": b"* LIST nonsense\r\n"}) as source, pytest.raises(UpstreamFailure):
        source.folders()


@pytest.mark.parametrize("alternative", [False, True])
@pytest.mark.parametrize("unix", [False, True])
def test_no_folder_leads_to_another_users(unix: bool, alternative: bool) -> None:
    namespace = Namespace(unix_hierarchy=unix, alternative=alternative)

    class Reach:
        pass

    reach = Reach()
    reach.namespace = namespace  # type: ignore[attr-defined] # all that is needed of it
    taking = Import(reach, "ana", None, lambda _: None)  # type: ignore[arg-type] # likewise
    for folder in (
        ("Other Users", "bob", "x"),
        ("Shared Folders", "x"),
        ("user", "bob"),
        ("INBOX", "user", "bob"),
        ("a/../user/bob",),
        ("v1.0", "x^y"),
        ("DELETED", "x"),
    ):
        name = taking._name(folder).strip(b'"')
        assert namespace.internal(name, "ana").startswith(b"user.ana."), (folder, name)


def test_a_tree_that_somebody_has_prepared(tmp_path: Path) -> None:
    tree, secret = tmp_path / "Maildir", tmp_path / "secret"
    for place in ("cur", "new", "tmp"):
        (tree / place).mkdir(parents=True)
        (secret / place).mkdir(parents=True)
    (secret / "cur" / "1:2,S").write_bytes(b"Subject: not yours\n\nx\n")
    (tree / "cur" / "1:2,SF").write_bytes(b"Subject: mine\n\nx\n")
    os.symlink(secret / "cur" / "1:2,S", tree / "cur" / "2:2,")
    os.symlink(secret, tree / ".Linked")
    (tree / ".Half").mkdir()
    os.symlink(secret / "cur", tree / ".Half" / "cur")
    (tree / ".Later" / "cur").mkdir(parents=True)
    os.symlink(secret / "cur", tree / ".Later" / "new")
    os.mkfifo(tree / "new" / "3")
    (tree / "new" / "4").mkdir()
    source = MaildirSource(tree)
    assert source.folders() == [("INBOX",), ("INBOX", "Later")]
    found = {folder: list(source.messages(folder)) for folder in source.folders()}
    (mine,) = found["INBOX",]
    assert mine.flags == {"\\Seen", "\\Flagged"}
    assert source.take(("INBOX",), mine)[0] == b"Subject: mine\r\n\r\nx\r\n"
    assert found["INBOX", "Later"] == []
    assert list(source.messages(("INBOX", "Linked"))) == []
