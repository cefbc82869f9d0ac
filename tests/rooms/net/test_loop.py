"""The event loop that nodes run on."""

import json
import subprocess
import sys
from typing import Final

# both ends of some connections, as a frontend makes them; what of Python's own library is called meanwhile
SCENE: Final = """
import asyncio, json, sys, weakref
usual = weakref.WeakValueDictionary
from murder.net.loop import new_event_loop
from murder.roles.frontend.entering import Socket

ends = []
called = set()

class Brief(asyncio.Protocol):
    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()
        ends.append(self.lost)

    def connection_made(self, transport):
        transport.close()

    def connection_lost(self, error):
        self.lost.set_result(None)

def note(frame, event, of):
    if event == "call":
        called.add(frame.f_code.co_filename.rpartition("/")[2])

async def scene():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Brief, "127.0.0.1", 0)
    sys.setprofile(note)
    for _ in range(3):
        sock = Socket()
        sock.setblocking(False)
        sock.connect_ex(server.sockets[0].getsockname())
        await loop.create_connection(Brief, sock=sock)
    await asyncio.gather(*ends)
    sys.setprofile(None)
    server.close()

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(scene())
assert len(ends) == 6 and weakref.WeakValueDictionary is usual
print(json.dumps(sorted(called)))
"""


def test_the_loop_calls_little_of_pythons_library_for_a_connection() -> None:
    """In a process of its own: somebody here has imported uvloop already."""
    ended = subprocess.run(
        [sys.executable, "-c", SCENE], capture_output=True, text=True, timeout=60, check=False
    )
    assert not ended.stderr
    called = set(json.loads(ended.stdout))
    assert "<string>" in called
    assert not called & {"weakref.py", "enum.py"}, called
