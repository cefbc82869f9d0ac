"""Transcripts of ManageSieve: their greeting has several lines."""

import asyncio

from tests.kit.dialogue import Streams

LAST_CAPABILITY = b'"UNAUTHENTICATE"\r\n'


async def greeted(address: tuple[str, int]) -> Streams:
    """A connection whose greeting is read up to its OK, which is the line that a player passes over."""
    reader, writer = await asyncio.open_connection(*address)
    await asyncio.wait_for(reader.readuntil(LAST_CAPABILITY), 10)
    return reader, writer
