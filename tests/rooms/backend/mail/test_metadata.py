"""The limits of annotations (RFC 5464 §4.3): a value, all values of a mailbox; nothing is kept by halves."""

import asyncio
from pathlib import Path

from murder.roles.backend.records.annotations import Bounds
from tests.kit.dialogue import Player, Streams
from tests.rooms.backend.server import running_backend

MAX_VALUE_OCTETS = Bounds().value_octets


async def test_too_large_and_too_many_annotations_are_told_apart(tmp_path: Path) -> None:
    async with running_backend(tmp_path) as running:

        async def connect(_: str) -> Streams:
            return await asyncio.open_connection(*running.address, limit=2**20)

        player = Player(connect)

        async def put(tag: str, entry: str, octets: int, answer: str, also: str = "") -> None:
            value = "x" * octets
            await player.play(
                f"C1: {tag} SETMETADATA INBOX ({also}{entry} {{{octets}+}}\nC1: {value})\n"
                f"S1: {tag} {answer}",
                keep=True,
            )

        await player.play("C1= LOGIN ana secret", keep=True)
        refused = f"NO [METADATA MAXSIZE {MAX_VALUE_OCTETS}] $_"
        await put("a", "/private/big", MAX_VALUE_OCTETS + 1, refused, '/private/comment "x" ')
        await player.play(
            "C1: b GETMETADATA INBOX (/private/comment /private/big)\n"
            "S1: * METADATA INBOX (/private/comment NIL /private/big NIL)\nS1: b OK $_",
            keep=True,
        )
        fit = Bounds().octets // (MAX_VALUE_OCTETS + 100)
        for number in range(fit):
            await put(f"c{number}", f"/private/vendor/n{number}", MAX_VALUE_OCTETS, "OK $_")
        await put("d", "/private/more", MAX_VALUE_OCTETS, "NO [METADATA TOOMANY] $_")
        await player.play(
            "C1: e SETMETADATA INBOX (/private/vendor/n0 NIL)\nS1: e OK $_", keep=True
        )
        await put("f", "/private/more", MAX_VALUE_OCTETS, "OK $_")
        await player.play(
            "C1: g GETMETADATA (MAXSIZE 1024 DEPTH infinity) INBOX /private\n"
            f"S1: g OK [METADATA LONGENTRIES {MAX_VALUE_OCTETS}] $_"
        )
