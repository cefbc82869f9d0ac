"""A node as a whole, for who asks on its own host: `murder reload` waits for its answer here, `config check` learns which
ports are its own.

A socket in the folder of `control`, of the process that the others are children of; JSON lines, one request a connection.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from murder.config import Config
from murder.errors import BadSyntax
from murder.log import logger
from murder.net.own_folder import make_own_folder, short_path
from murder.node.control.sockets import FOLDER, MAX_REQUEST, format_answer, user_behind
from murder.trail.audit import NODE, audit_log
from murder.wire.nodes.control_answers import OwnPorts, Reloaded, shown_of
from murder.wire.nodes.control_words import (
    Request,
    format_request,
    parse_control_request,
    unknown_request,
)

SOCKET: Final = "node"  # without `.sock`: it is none of those that `status` asks
REQUEST_S: Final = 10.0
ANSWER_S: Final = 60.0  # all workers take a new configuration meanwhile

Answer = Mapping[str, Any]
"""As it came, for `--json`: `wire.nodes.control_answers` parses it."""

log = logger()


def socket_of(data: Path) -> Path:
    """Where the node with this data folder answers."""
    return data / FOLDER / SOCKET


class NodeSocket:
    """`answers` has what it can be asked."""

    def __init__(
        self,
        config: Config,
        answers: Mapping[type[Request], Callable[[], Awaitable[Reloaded | OwnPorts]]],
    ) -> None:
        self._path = socket_of(config.node.data)
        self._answers = answers
        self._server: asyncio.AbstractServer | None = None
        self._audit = audit_log(config.node.data, NODE, 0, config.log.audit_keep_bytes)

    async def start(self) -> None:
        """A socket that cannot be made is told; the node does without."""
        try:
            make_own_folder(self._path.parent)
            self._path.unlink(missing_ok=True)
            with short_path(self._path) as path:
                self._server = await asyncio.start_unix_server(self._serve, path, limit=MAX_REQUEST)
        except OSError as problem:
            log.warning("control.unavailable", path=str(self._path), problem=str(problem))

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                request = parse_control_request(await reader.readline())
            answer = self._answers.get(type(request))
            if answer is None:
                raise unknown_request(request.word)
            result = await answer()
            if isinstance(result, Reloaded):
                facts = {"user": user_behind(writer), "arguments": ",".join(result.changed)}
                self._audit.note("reload", {**facts, "problems": len(result.problems)})
            writer.write(format_answer(shown_of(result)))
        except (OSError, ValueError, TimeoutError, BadSyntax) as problem:
            writer.write(format_answer({"no": str(problem)}))
        finally:
            writer.close()


async def ask_node(data: Path, request: Request) -> Answer | None:
    """The answer of the node with this data folder; None where none runs. Raises OSError, TimeoutError, and ValueError for
    what is no answer."""
    try:
        with short_path(socket_of(data)) as path:
            reader, writer = await asyncio.open_unix_connection(path, limit=MAX_REQUEST)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return None
    try:
        async with asyncio.timeout(ANSWER_S):
            writer.write(format_request(request))
            line = await reader.readline()
    finally:
        writer.close()
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise ValueError("that is not a node's answer")
    return answer
