"""A row of the table, and what rows are made of."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from tests.attacks.ground import (
    Ground,
    Wire,
    ask,
    flood,
    hold,
    pump,
    trickle,
)

Attack = Callable[[Ground, float], None]
Do = Callable[[Wire, bytes, float], None]

CROWD: Final = 200


@dataclass(frozen=True, slots=True)
class Row:
    """Its name says where, in which state and what. `attack` ends by the time it is given; it is begun again until then.
    `prepare` is done before anything is measured."""

    name: str
    attack: Attack
    prepare: Callable[[Ground], None] | None = None


def saying(where: str, protocol: str, state: str, block: bytes, do: Do) -> Attack:
    """On one connection in this state, the block again and again."""

    def attack(ground: Ground, end: float) -> None:
        with closing(ground.open(where, protocol, state)) as wire:
            do(wire, block, end)

    return attack


def unread(where: str, protocol: str, state: str, block: bytes) -> Attack:
    return saying(where, protocol, state, block, flood)


def read(where: str, protocol: str, state: str, block: bytes) -> Attack:
    return saying(where, protocol, state, block, pump)


def slowly(where: str, protocol: str, state: str, block: bytes, count: int = 30) -> Attack:
    """On many, an octet at a time."""

    def attack(ground: Ground, end: float) -> None:
        with ground.crowd(count, end, lambda: ground.open(where, protocol, state)) as wires:
            trickle(wires, block, end)

    return attack


def crowding(
    where: str, protocol: str, state: str, octets: bytes = b"", count: int = CROWD
) -> Attack:
    """Many connections, which say something once and stay."""

    def attack(ground: Ground, end: float) -> None:
        def open_() -> Wire:
            wire = ground.open(where, protocol, state)
            wire.sock.settimeout(0.05)
            if octets:
                try:
                    wire.raw(octets)
                except TimeoutError:
                    pass  # it is held off
            return wire

        with ground.crowd(count, end, open_):
            hold(end)

    return attack


def coming_and_going(
    where: str, protocol: str, state: str = "connected", octets: bytes = b""
) -> Attack:
    def attack(ground: Ground, end: float) -> None:
        def visit() -> None:
            with closing(ground.open(where, protocol, state)) as wire:
                if octets:
                    wire.raw(octets)

        ground.again(end, visit)

    return attack


def asking(where: str, *commands: bytes, mailbox: str = "") -> Attack:
    """Logged in by IMAP, these commands one after the other; answers are read."""

    def attack(ground: Ground, end: float) -> None:
        with closing(ground.open(where, "imap", "logged")) as wire:
            if mailbox:
                wire.ok(f"SELECT {mailbox}")
            while time.monotonic() < end:
                for command in commands:
                    ask(wire, command, end)

    return attack


def literal(octets: bytes) -> bytes:
    return b"{%d+}\r\n%b" % (len(octets), octets)
