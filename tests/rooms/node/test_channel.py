"""The socket between supervisor and worker, when one end has gone."""

import socket

from murder.node.process.channel import Channel, Message


async def test_what_is_sent_to_an_end_that_has_gone_is_lost() -> None:
    ours, theirs = socket.socketpair()
    channel = await Channel.of(ours)
    theirs.close()
    assert await channel.receive() is None
    channel.close()
    for _ in range(3):
        channel.send(Message.PING)
