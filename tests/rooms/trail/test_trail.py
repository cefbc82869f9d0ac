"""What is kept to be asked about: how much of it, and how it is found again."""

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from murder.log import set_up
from murder.serve.imap import shown_arguments
from murder.serve.mail_log import HEAD_OCTETS, HeadOf, MailLog
from murder.trail import lines as trail_lines
from murder.trail.chain import ENDS, breaks_in, ends_file
from murder.trail.lines import LEFT_OUT, MAX_LATE, Trail, chains_of, files_of, find, newest, stamp
from murder.wire.imap.command import Command
from tests.kit.process import ROOT

KEYS = ("id", "to", "reply*")


def kept(folder: Path, octets: int = 1 << 20, worker: int = 0) -> Trail:
    trail = Trail(folder, "mail", "backend", worker)
    trail.keep(octets)
    return trail


def found(folder: Path, *words: str, since: str = "") -> list[object]:
    lines = newest(find(files_of(folder, "mail", "backend"), words, KEYS, since))
    return [line.get("id") for line in lines]


def test_a_line_is_found_by_what_stands_in_it_whichever_worker_wrote_it(tmp_path: Path) -> None:
    for worker in (0, 1):
        kept(tmp_path, worker=worker).write(
            "message.delivered",
            {"id": f"i{worker}", "to": b"Ana@x", "reply": f"250 <q{worker}> saved"},
        )
    Trail(tmp_path, "mail", "frontend", 0).write("message.relayed", {"id": "i0"})
    kept(tmp_path).write("message.refused", {"id": 'a"\\ü', "to": b"b\xff"})
    assert found(tmp_path, "ana@X") == ["i0", "i1"]
    assert found(tmp_path, "i1") == ["i1"]
    assert found(tmp_path, "q1") == ["i1"]
    assert found(tmp_path, "i") == []
    assert found(tmp_path, 'a"\\ü') == ['a"\\ü']
    assert found(tmp_path) == ["i0", "i1", 'a"\\ü']
    assert found(tmp_path, since=stamp(-60)) == []
    assert found(tmp_path, since=stamp(60)) == found(tmp_path)


def test_a_line_is_found_by_a_row_of_its_list(tmp_path: Path) -> None:
    trail = kept(tmp_path)
    trail.write("x.y", {"id": "1", "rows": [{"place": "a.1"}, {"place": "a.2"}]})
    trail.write("x.y", {"id": "2", "rows": [{"place": "a.22"}, "a.2"], "place": "a.2"})
    trail.write("x.y", {"id": "3", "rows": "a.2"})
    lines = find(files_of(tmp_path, "mail", "backend"), ["A.2"], ["rows.place"])
    assert [line["id"] for line in lines] == ["1"]


def test_so_much_is_kept_and_the_newest(tmp_path: Path) -> None:
    for begun in range(0, 400, 100):
        trail = kept(tmp_path, 20_000)  # the process has started again
        for number in range(begun, begun + 100):
            trail.write("x.y", {"id": str(number), "text": "t" * 100})
    files = files_of(tmp_path, "mail", "backend")
    assert len(files) == 2
    assert 10_000 < sum(path.stat().st_size for path in files) <= 20_000
    shown = found(tmp_path)
    assert shown == [str(number) for number in range(400 - len(shown), 400)]
    assert newest(({"at": str(n)} for n in (3, 1, 2)), 2) == [{"at": "2"}, {"at": "3"}]


def test_nothing_is_kept_where_nobody_wants_it(tmp_path: Path) -> None:
    kept(tmp_path, 0).write("x.y", {"id": "1"})
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_a_power_cut_has_cut_is_passed_over(tmp_path: Path) -> None:
    trail = kept(tmp_path)
    trail.write("x.y", {"id": "1"})
    (path,) = files_of(tmp_path, "mail", "backend")
    path.write_bytes(path.read_bytes() + b'{"at": "9", "id": "1"')
    assert found(tmp_path, "1") == ["1"]


def test_a_disk_that_takes_nothing_costs_the_lines_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    trail = kept(tmp_path / "file" / "below")
    for _ in range(3):
        trail.write("x.y", {"id": "1"})
    assert "".join(capfd.readouterr()).count("trail.not_written") == 1


def test_a_full_disk_that_gives_nothing_back_stops_no_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file system that copies what it writes (btrfs) cannot make a file shorter where it is full."""
    write, trail = os.write, kept(tmp_path)

    def full(file: int, octets: bytes) -> int:
        return write(file, octets[:30] if octets.startswith(b'{"at"') else octets)

    def shorter(file: int, octets: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for number in "01":
        trail.write("x.y", {"id": number})
    monkeypatch.setattr("os.write", full)
    monkeypatch.setattr("os.ftruncate", shorter)
    trail.write("x.y", {"id": "lost"})
    monkeypatch.undo()
    trail.write("x.y", {"id": "spoilt"})
    trail.write("x.y", {"id": "2"})
    assert found(tmp_path) == ["0", "1", "2"]
    assert "".join(capfd.readouterr()).count("trail.not_written") == 1


@pytest.mark.parametrize("taken", [0, 30])
def test_what_a_full_disk_takes_of_a_line_spoils_no_other(
    taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write, trail = os.write, kept(tmp_path)

    def full(file: int, octets: bytes) -> int:
        if octets.startswith(b'{"at"'):
            if not taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(file, octets[:taken])
        return write(file, octets)

    trail.write("x.y", {"id": "1"})
    monkeypatch.setattr("os.write", full)
    trail.write("x.y", {"id": "lost"})
    trail.write("x.y", {"id": "lost"})
    monkeypatch.setattr("os.write", write)
    trail.write("x.y", {"id": "2"})
    assert found(tmp_path) == ["1", "2"]
    assert len(trail.path.read_bytes().splitlines()) == 2
    assert "".join(capfd.readouterr()).count("trail.not_written") == 1


def lines_of(*numbers: int) -> list[str]:
    return [f'{{"at": "2026", "event": "x.y", "id": "{number}"}}' for number in numbers]


def test_lines_that_come_together_are_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, writes, trail = os.write, [], kept(tmp_path)

    def noted(file: int, octets: bytes) -> int:
        writes.append(octets)
        return write(file, octets)

    for _ in range(2):  # with the second it is looked whether the file is there still
        trail.append(lines_of(0))
    monkeypatch.setattr("os.write", noted)
    trail.append(lines_of(1, 2, 3))
    assert writes == ["".join(f"{line}\n" for line in lines_of(1, 2, 3)).encode()]
    assert found(tmp_path) == ["0", "0", "1", "2", "3"]


def test_lines_that_come_together_are_more_than_a_file_has_room_for(tmp_path: Path) -> None:
    trail = kept(tmp_path, 2000)
    for start in range(0, 90, 30):
        trail.append(lines_of(*range(start, start + 30)))
    shown = found(tmp_path)
    assert shown == [str(number) for number in range(90 - len(shown), 90)]
    assert 20 < len(shown) < 60
    assert all(path.stat().st_size <= 1000 for path in files_of(tmp_path, "mail", "backend"))


@pytest.mark.parametrize("gives_back", [True, False])
@pytest.mark.parametrize("taken", [1, 1.5, 2])
def test_of_lines_that_come_together_a_full_disk_takes_some_and_none_twice(
    taken: float,
    gives_back: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write, trail = os.write, kept(tmp_path)
    left = int(taken * (len(lines_of(1)[0]) + 1))

    def full(file: int, octets: bytes) -> int:
        nonlocal left
        if not octets.startswith(b'{"at": "2026"'):
            return write(file, octets)
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(file, octets[:left])
        left = 0
        return written

    def shorter(file: int, octets: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for _ in range(2):  # with the second it is looked whether the file is there still
        trail.append(lines_of(0))
    monkeypatch.setattr("os.write", full)
    if not gives_back:
        monkeypatch.setattr("os.ftruncate", shorter)
    trail.append(lines_of(1, 2, 3))
    monkeypatch.undo()
    assert found(tmp_path) == ["0", *(str(number) for number in range(int(taken) + 1))]
    spoils = taken == 1.5 and not gives_back
    trail.append(lines_of(4, 5))
    assert found(tmp_path)[int(taken) + 2 :] == (["5"] if spoils else ["4", "5"])
    assert "".join(capfd.readouterr()).count("trail.not_written") == 1


@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_file_that_is_taken_away_under_a_writer_is_begun_anew(
    is_renamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By logrotate, or a hand."""
    monkeypatch.setattr(trail_lines, "LOOK_S", 0.0)
    trail = kept(tmp_path)
    trail.write("x.y", {"id": "1"})
    if is_renamed:
        trail.path.rename(f"{trail.path}-20261130")
    else:
        trail.path.unlink()
    trail.write("x.y", {"id": "2"})
    assert sorted(map(str, found(tmp_path))) == (["1", "2"] if is_renamed else ["2"])
    assert b'"2"' in trail.path.read_bytes()


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_line_of_the_mail_log_is_in_the_log_and_in_its_file(
    form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up("info", form, node="be1")
    trail, mail_log = kept(tmp_path), MailLog()
    mail_log.keep(trail)
    facts = {
        "id": "i",
        "to": "Ä\u202e%s@x",
        "from": b"\xff",
        "tls": False,
        "admin": True,
        "rows": [{"uid": 7}],
        "size": 3,
        "none": None,
    }
    mail_log.info("message.refused", facts)
    (line,) = newest(find(files_of(tmp_path, "mail", "backend"), (), KEYS))
    assert line.pop("event") == "message.refused" and str(line.pop("at")).endswith("Z")
    assert line == {**facts, "from": "\\xff"}
    assert found(tmp_path, "Ä\u202e%s@x") == ["i"]
    assert trail.path.read_text("ascii").rstrip("\n").isprintable()
    said = capfd.readouterr().err
    assert "message.refused" in said and "be1" in said
    if form == "json":
        logged = json.loads(said)
        assert {key: logged[key] for key in line} == line


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    kept(tmp_path / "trail").write("x.y", {"id": "1"})
    (path,) = files_of(tmp_path / "trail", "mail", "backend")
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert json.loads(path.read_bytes())["event"] == "x.y"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"Message-ID: <1@x>\r\n\r\nMessage-ID: <2@x>", "<1@x>"),
        (b"A: b\r\nmessage-id:\r\n <1@x>\r\nC: d\r\n\r\n", "<1@x>"),
        (b"X-Message-ID: <1@x>\r\n\r\n", ""),
        (b"Message-ID: <\xff\x07@x>\r\n\r\n", "<\ufffd?@x>"),
        (b"A: b\r\n\r\nMessage-ID: <2@x>\r\n", ""),
        (b"Message-ID: <1@x>\r\n" + b"A: b\r\n" * HEAD_OCTETS, "<1@x>"),
        (b"\r\n\r\n", ""),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_the_message_id_is_taken_from_the_head_however_it_comes(
    head: bytes, expected: str, size: int
) -> None:
    seen = HeadOf()
    for at in range(0, min(len(head), 2 * HEAD_OCTETS), size):
        seen.feed(head[at : at + size])
    assert seen.message_id == expected


def chained(folder: Path, *acts: str, keep: int = 1 << 20) -> None:
    trail = Trail(folder, "audit", "backend", 0, chained=True)
    trail.keep(keep)
    for act in acts:
        trail.write(act, {"user": "admin", "arguments": "ü" * 50})
    trail.close()


def breaks(folder: Path) -> list[str]:
    return [at for path in chains_of(folder, "audit", "backend") for at in breaks_in(path)]


def test_a_line_that_was_taken_out_or_altered_shows(tmp_path: Path) -> None:
    for begun in range(3):  # the process starts again, and others write meanwhile
        chained(tmp_path, *(f"act{begun}.{number}" for number in range(3)))
    (path,) = files_of(tmp_path, "audit", "backend")
    whole = path.read_bytes()
    assert breaks(tmp_path) == []
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], *lines[5:]]))
    assert breaks(tmp_path) == [f"{path.name}:5"]
    path.write_bytes(whole.replace(b"act1.1", b"act1.9"))
    assert breaks(tmp_path) == [f"{path.name}:5"]
    path.write_bytes(b"".join([*lines[:4], b"{}\n", *lines[4:]]))
    assert breaks(tmp_path) == [f"{path.name}:5"]


def test_lines_that_were_taken_away_at_an_end_show_and_go_on_to(tmp_path: Path) -> None:
    chained(tmp_path, "a", "b", "c", "d")
    (path,) = files_of(tmp_path, "audit", "backend")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:]))
    assert breaks(tmp_path) == [f"{path.name}:1"]
    path.write_bytes(b"".join(lines[:-1]))
    assert breaks(tmp_path) == [f"{path.name}:end"]
    chained(tmp_path, "e")  # whatever comes behind
    assert breaks(tmp_path) == [f"{path.name}:4"]
    path.write_bytes(whole)
    assert breaks(tmp_path) == [f"{path.name}:end"]  # `e` is missing


def test_lines_that_were_taken_away_under_a_writer_show(tmp_path: Path) -> None:
    trail = Trail(tmp_path, "audit", "backend", 0, chained=True)
    trail.keep(1 << 20)
    for act in ("a", "b", "c"):
        trail.write(act, {})
    whole = trail.path.read_bytes()
    trail.path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    trail.write("d", {})
    assert breaks(tmp_path) == [f"{trail.path.name}:3"]
    trail.path.unlink()
    trail.write("e", {})
    assert [b'"e"' in line for line in trail.path.read_bytes().splitlines()] == [True]
    assert breaks(tmp_path) == [f"{trail.path.name}:1"]
    trail.close()


def test_a_former_file_that_was_taken_away_shows(tmp_path: Path) -> None:
    chained(tmp_path, *map(str, range(150)), keep=20_000)
    former, path = files_of(tmp_path, "audit", "backend")
    assert breaks(tmp_path) == []
    former.unlink()
    assert breaks(tmp_path) == [f"{path.name}:1"]


def test_the_newest_file_taken_away_shows_and_so_do_all(tmp_path: Path) -> None:
    chained(tmp_path, *map(str, range(150)), keep=20_000)
    former, path = files_of(tmp_path, "audit", "backend")
    path.unlink()
    assert breaks(tmp_path) == [f"{path.name}:end"]
    former.unlink()
    assert breaks(tmp_path) == [f"{path.name}:1", f"{path.name}:end"]


def test_a_process_that_was_killed_behind_its_line_has_broken_nothing(tmp_path: Path) -> None:
    chained(tmp_path, "a", "b")
    (path,) = files_of(tmp_path, "audit", "backend")
    before = ends_file(path).read_bytes()
    chained(tmp_path, "c")
    ends_file(path).write_bytes(before)
    assert breaks(tmp_path) == []
    chained(tmp_path, "d")
    assert breaks(tmp_path) == []


def test_a_chain_of_an_earlier_version_has_no_ends_and_goes_on(tmp_path: Path) -> None:
    chained(tmp_path, "a", "b")
    (path,) = files_of(tmp_path, "audit", "backend")
    ends_file(path).unlink()
    assert breaks(tmp_path) == []
    chained(tmp_path, "c")
    assert breaks(tmp_path) == [] and (tmp_path / f"{ENDS}{path.name}").exists()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    assert breaks(tmp_path) == [f"{path.name}:1"]


def test_the_chain_goes_on_where_a_file_becomes_the_former_one(tmp_path: Path) -> None:
    chained(tmp_path, *map(str, range(100)), keep=20_000)
    chained(tmp_path, *map(str, range(100)), keep=20_000)
    assert len(files_of(tmp_path, "audit", "backend")) == 2
    assert breaks(tmp_path) == []


def test_two_writers_of_one_file_go_on_from_each_other(tmp_path: Path) -> None:
    first, second = (
        Trail(tmp_path, "audit", "backend", 0, chained=True),
        Trail(tmp_path, "audit", "backend", 0, chained=True),
    )
    for trail in (first, second) * 3:
        trail.keep(1 << 20)
        trail.write("x", {})
    assert breaks(tmp_path) == []


def test_two_writers_change_the_file_together(tmp_path: Path) -> None:
    writers = [Trail(tmp_path, "audit", "backend", 0, chained=True) for _ in range(2)]
    for number in range(200):
        for trail in writers:
            trail.keep(8_000)
            trail.write(f"act{number}", {})
        assert breaks(tmp_path) == []
    former, path = files_of(tmp_path, "audit", "backend")
    assert former.stat().st_size > 3_500 and b"act199" in path.read_bytes()


@pytest.mark.parametrize("part", [0, 60])
def test_a_disk_that_is_full_breaks_no_chain(
    part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the line that finds no room begins a new file, and the process ends with it."""
    write, acts = os.write, list(map(str, range(7)))

    def full(file: int, octets: bytes) -> int:
        if not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, octets[:part])

    for number in range(30):
        chained(tmp_path, *acts[number % 7 :], keep=8_000)
        monkeypatch.setattr("os.write", full)
        chained(tmp_path, "lost", keep=8_000)
        monkeypatch.setattr("os.write", write)
        assert breaks(tmp_path) == []


def test_acts_that_a_full_disk_has_left_out_are_in_the_log_and_their_number_in_the_trail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = Trail(tmp_path, "audit", "backend", 0, chained=True)
    trail.keep(1 << 20)
    trail.write("a", {})
    write = os.write

    def full(file: int, octets: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with capture_logs() as log:
        monkeypatch.setattr("os.write", full)
        for act in ("b", "c"):
            trail.write(act, {"user": "admin"})
        monkeypatch.setattr("os.write", write)
        for act in ("d", "e"):
            trail.write(act, {})
    assert [line["event"] for line in log] == ["trail.not_written", *["audit.not_written"] * 2]
    acts = [json.loads(line["line"]) for line in log[1:]]
    assert [(act["event"], act["user"]) for act in acts] == [("b", "admin"), ("c", "admin")]
    lines = list(find([trail.path], (), ()))
    assert [line["event"] for line in lines] == ["a", LEFT_OUT, "d", "e"]
    since = str(lines[1]["arguments"]).removeprefix("2 lines, since ").partition(": ")[0]
    assert acts[0]["at"] <= since <= acts[1]["at"]
    assert breaks(tmp_path) == []
    trail.close()


def test_a_line_whose_end_of_the_chain_finds_no_room_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On some file systems what is written in place needs room, too."""
    trail = Trail(tmp_path, "audit", "backend", 0, chained=True)
    trail.keep(1 << 20)
    trail.write("a", {})

    def full(path: Path, ends: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(trail_lines, "write_ends", full)
        for act in ("b", "c", "d"):
            trail.write(act, {})
        assert breaks(tmp_path) == []
    trail.write("e", {})
    assert [line["event"] for line in find([trail.path], (), ())] == ["a", LEFT_OUT, "e"]
    assert breaks(tmp_path) == []
    trail.close()


def test_what_a_peer_chose_ends_no_line_and_moves_no_cursor(tmp_path: Path) -> None:
    sender = "q\x9b31m\u2028\u202e\x7f\n\x1b[31mÄ@x"
    trail = kept(tmp_path)
    trail.write("message.refused", {"id": "i", "from": sender, "to": sender})
    (line,) = trail.path.read_text("utf-8").splitlines()
    assert line.isprintable()
    assert "Ä" in line
    assert found(tmp_path, sender) == ["i"]


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (b'INBOX (/private/comment "no")', "INBOX /private/comment"),
        (b'INBOX(/private/comment "no")', "INBOX /private/comment"),
        (b'INBOX /private/comment "no"', "INBOX /private/comment"),
        (
            b'"a (b" ("/private/comment" "/private/no" /shared/x NIL)',
            '"a (b" /private/comment /shared/x',
        ),
        (b'INBOX (/private/a {3+}\r\n/no /private/b "no)")', "INBOX /private/a /private/b"),
        (b'INBOX "no', "INBOX"),
        (b'"no', ""),
    ],
)
def test_of_annotations_the_names_alone_are_kept(arguments: bytes, shown: str) -> None:
    octets = b"a SETMETADATA " + arguments + b"\r\n"
    command = Command(b"a", b"SETMETADATA", octets, start=14)
    assert shown_arguments(command) == shown


@contextmanager
def another_process(path: Path) -> Iterator[Callable[[], None]]:
    """That writes a line just now, for as long as it likes: until what is given is called."""
    holding = (
        "import pathlib, sys; from murder.trail.chain import alone\n"
        "with alone(pathlib.Path(sys.argv[1]), waits=True): print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        yield lambda: process.communicate() and None


def test_who_writes_waits_for_no_other_process_and_loses_no_line(tmp_path: Path) -> None:
    trail = Trail(tmp_path, "audit", "backend", 0, chained=True)
    trail.keep(1 << 20)
    trail.write("before", {})
    with another_process(trail.path) as let_go:
        for number in range(3):
            trail.write(f"act{number}", {})
        assert [line["event"] for line in find([trail.path], (), ())] == ["before"]
        assert not trail.settle(0)
        let_go()
        assert trail.settle()
    trail.write("after", {})
    events = [line["event"] for line in find([trail.path], (), ())]
    assert events == ["before", "act0", "act1", "act2", "after"]
    assert breaks(tmp_path) == []
    trail.close()


def test_without_a_thread_to_wait_for_another_process_a_line_is_left_out_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a disk takes nothing: the act itself goes on."""
    trail = Trail(tmp_path, "audit", "backend", 0, chained=True)
    trail.keep(1 << 20)
    trail.write("before", {})

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with another_process(trail.path) as let_go:
        with monkeypatch.context() as short:
            short.setattr(threading.Thread, "start", no_thread)
            trail.write("lost", {})
        trail.write("act", {})
        let_go()
        assert trail.settle()
    trail.write("after", {})
    events = [line["event"] for line in find([trail.path], (), ())]
    assert events == ["before", "act", LEFT_OUT, "after"]
    assert breaks(tmp_path) == []
    trail.close()


def test_so_many_lines_wait_for_another_process_and_the_log_says_where_there_are_more(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trail = Trail(tmp_path, "audit", "backend", 0, chained=True)
    trail.keep(1 << 20)
    trail.write("before", {})
    with another_process(trail.path) as let_go:
        for number in range(MAX_LATE + 2):
            trail.write(f"act{number}", {})
        let_go()
        assert trail.settle()
    events = [line["event"] for line in find([trail.path], (), ())]
    assert events == ["before", *(f"act{number}" for number in range(MAX_LATE))]
    assert breaks(tmp_path) == []
    assert "".join(capfd.readouterr()).count("trail.not_written") == 1
    trail.close()
