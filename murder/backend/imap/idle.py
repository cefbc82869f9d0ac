"""IDLE (RFC 2177): the client is told of changes as they happen. No task exists while nothing does."""

import asyncio

from murder.backend.imap.dialogue import BackendImap
from murder.errors import BadSyntax
from murder.login.imap import Running
from murder.wire.imap.command import Command
from murder.wire.imap.response import continuation
from murder.wire.token import Scanner


def run_idle(dialogue: BackendImap, command: Command) -> Running:
    Scanner(command.octets, command.start).end()
    return _Idle(dialogue, command).begin()


class _Idle:
    """One IDLE, from its command to DONE."""

    __slots__ = ("_command", "_dialogue", "_task")

    def __init__(self, dialogue: BackendImap, command: Command) -> None:
        self._dialogue = dialogue
        self._command = command
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> Running:
        dialogue = self._dialogue
        dialogue.session.expect_line()
        dialogue.on_line = self._done
        dialogue.send(continuation(b"idling"))
        if dialogue.view is not None:
            dialogue.view.on_dirty = self._changed
            if dialogue.view.is_dirty or dialogue.view.has_pending:
                self._changed()
        return None

    def _changed(self) -> None:
        if self._task is None and not self._dialogue.is_closing:
            self._task = self._dialogue.loop.create_task(self._tell())

    async def _tell(self) -> None:
        dialogue = self._dialogue
        try:
            while not dialogue.is_closing:
                dialogue.send(await dialogue.updates(removals=True))
                await dialogue.flush()
                if dialogue.view is None or not dialogue.view.is_dirty:
                    break
        except ConnectionError:
            pass
        except Exception as error:  # noqa: BLE001 - the end of a task
            dialogue.failed(None, error)
            dialogue.close()
        finally:
            self._task = None

    def _done(self, line: bytes) -> Running:
        dialogue = self._dialogue
        dialogue.session.expect_line(False)
        dialogue.on_line = None
        if dialogue.view is not None:
            dialogue.view.on_dirty = None
        if line.upper() != b"DONE":
            return self._refuse()
        if self._task is not None:
            return self._finish_after(self._task)
        return dialogue.conclude(self._command)

    def _refuse(self) -> Running:
        """The line ended IDLE all the same; it was no DONE."""
        self._dialogue.failed(self._command, BadSyntax("DONE ends IDLE"))
        return None

    async def _finish_after(self, task: "asyncio.Task[None]") -> None:
        await asyncio.wait([task])
        await self._dialogue.finish(self._command)
