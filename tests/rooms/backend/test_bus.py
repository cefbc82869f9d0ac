"""The bus between workers: who hears, who does not, and a worker that dies."""

import asyncio
import errno
import os
import socket
from pathlib import Path

import pytest

from murder.roles.backend.changes.bus import Bus
from murder.roles.backend.changes.news import EVERYTHING
from tests.kit.waiting import until_soon


async def heard_soon(heard: list[str], count: int) -> None:
    await until_soon(lambda: len(heard) >= count, "datagrams come when they come")


async def test_every_other_worker_hears(tmp_path: Path) -> None:
    heard: list[list[str]] = [[], [], []]
    buses = [Bus(tmp_path / "bus", number, heard[number].append) for number in range(3)]
    for bus in buses:
        bus.start()
    buses[0].tell("mailbox-1")
    await heard_soon(heard[1], 1)
    await heard_soon(heard[2], 1)
    assert heard == [[], ["mailbox-1"], ["mailbox-1"]]
    for bus in buses:
        bus.stop()


async def test_a_worker_that_died_is_passed_over_and_its_successor_hears(tmp_path: Path) -> None:
    first: list[str] = []
    second: list[str] = []
    living = Bus(tmp_path, 0, lambda _: None)
    living.start()
    dead = Bus(tmp_path, 1, first.append)
    dead.start()
    assert dead._socket is not None
    asyncio.get_running_loop().remove_reader(dead._socket.fileno())
    dead._socket.close()  # as kill -9 leaves it: the name stays
    living.tell("lost")
    successor = Bus(tmp_path, 1, second.append)
    successor.start()
    living.tell("told")
    await heard_soon(second, 1)
    assert (first, second) == ([], ["told"])
    living.stop()
    successor.stop()


async def test_a_folder_with_a_long_name_is_no_matter(tmp_path: Path) -> None:
    heard: list[str] = []
    folder = tmp_path / ("long" * 40)
    buses = [Bus(folder, number, heard.append) for number in range(2)]
    for bus in buses:
        bus.start()
    buses[1].tell("told")
    await heard_soon(heard, 1)
    for bus in buses:
        bus.stop()


async def test_a_worker_that_is_busy_hears_all_of_it_in_the_end(tmp_path: Path) -> None:
    heard: list[str] = []
    buses = [Bus(tmp_path, 0, lambda _: None), Bus(tmp_path, 1, heard.append)]
    for bus in buses:
        bus.start()
    told = [f"mailbox-{number}" for number in range(5000)]  # more than its socket takes
    for text in told:
        buses[0].tell(text)
        buses[0].tell("mailbox-0")
    await heard_soon(heard, len(told))
    assert [text for text in heard if text != "mailbox-0"] == told[1:]
    for bus in buses:
        bus.stop()


async def test_a_worker_that_is_busy_for_long_hears_that_everything_has_changed(
    tmp_path: Path,
) -> None:
    heard: list[str] = []
    buses = [Bus(tmp_path, 0, lambda _: None), Bus(tmp_path, 1, heard.append)]
    for bus in buses:
        bus.start()
    for number in range(40_000):
        buses[0].tell(f"mailbox-{number}")
    await until_soon(
        lambda: "mailbox-39999" in heard, "datagrams come when they come", every_s=0.001
    )
    assert EVERYTHING in heard
    for bus in buses:
        bus.stop()


async def test_what_the_kernel_has_no_room_for_is_told_later(tmp_path: Path) -> None:
    heard: list[str] = []
    buses = [Bus(tmp_path / "bus", number, heard.append) for number in range(2)]
    for bus in buses:
        bus.start()

    class Short(socket.socket):
        """A socket of a host whose buffers are all taken."""

        def sendto(self, *_: object) -> int:
            raise OSError(errno.ENOBUFS, "No buffer space available")

    own = buses[0]._socket
    assert own is not None
    buses[0]._socket = Short(fileno=os.dup(own.fileno()))
    buses[0].tell("told")
    buses[0]._socket.close()
    buses[0]._socket = own
    await heard_soon(heard, 1)
    assert heard == ["told"]
    for bus in buses:
        bus.stop()


@pytest.mark.parametrize("whose", ["others may write", "another's", "a link"])
async def test_sockets_are_not_put_where_others_could_put_theirs(
    tmp_path: Path, whose: str
) -> None:
    folder = tmp_path / "bus"
    folder.mkdir(mode=0o700)
    match whose:
        case "others may write":
            folder.chmod(0o777)
        case "another's":
            if os.geteuid():
                pytest.skip("only root gives a folder away")
            os.chown(folder, 12345, 12345)
        case _:
            folder.rename(tmp_path / "elsewhere")
            folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        Bus(folder, 0, lambda _: None).start()
