"""Telling a client of changes when it has sent no command: during IDLE (RFC 2177), and always with NOTIFY (RFC 5465).

No task exists while nothing happens. While one does, commands wait: a client never finds numbers changed in the middle
of a command that it had sent before.
"""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from murder.model.message import Uid
from murder.model.name import MailboxName
from murder.net.turns import line_up
from murder.roles.backend.changes.news import Kind
from murder.roles.backend.changes.tracker import Watcher
from murder.roles.backend.changes.updates import View


class Beside(Protocol):
    """What there may be to tell beside the selected mailbox."""

    @property
    def has_news(self) -> bool:
        """Whether there is anything to send."""
        ...

    async def tell(self) -> None: ...


class Listener(Protocol):
    """The dialogue, as far as telling concerns it."""

    loop: asyncio.AbstractEventLoop
    view: View | None
    is_closing: bool

    @property
    def is_busy(self) -> bool:
        """Whether a command is under way, at whose end news would come anyway."""
        ...

    def send(self, data: bytes) -> None: ...

    async def flush(self) -> None: ...

    async def updates(self, *, removals: bool, leaves: bool = False) -> bytes:
        """What has changed in the selected mailbox, as responses."""
        ...

    def resume(self) -> None: ...

    def failed_telling(self, error: Exception) -> None:
        """Whatever reading the news has raised."""
        ...

    def told_all(self) -> None: ...


class Watching(Protocol):
    """The mailboxes that a client watches."""

    def expect(self, mailbox_id: str, uids: Iterable[Uid]) -> None: ...


class Notifying(Watcher, Protocol):
    """What NOTIFY has begun, as far as other commands have to do with it."""

    own: set[tuple[Kind, MailboxName]]

    @property
    def watch(self) -> Watching: ...


class Notifier:
    """See the module. `between` : also between commands; `removals`: messages may go then, too (RFC 5465 §6.1)."""

    __slots__ = ("_dialogue", "_task", "beside", "between", "idling", "removals")

    def __init__(self, dialogue: Listener) -> None:
        self._dialogue = dialogue
        self._task: asyncio.Task[None] | None = None
        self.idling = False
        self.between = False
        self.removals = False
        self.beside: Beside | None = None

    @property
    def is_telling(self) -> bool:
        return self._task is not None

    @property
    def rests(self) -> bool:
        """Whether it neither tells anything nor waits for anything, as behind an IDLE."""
        return not (self.idling or self.between or self._task is not None)

    def attach(self, view: View | None) -> None:
        """Hear of this mailbox, if the client listens."""
        if view is not None:
            view.on_dirty = self.wake if self.idling or self.between else None

    def wake(self) -> None:
        """Something has happened, or a command has ended: tell, unless one runs."""
        dialogue = self._dialogue
        if self._task is not None or dialogue.is_busy or dialogue.is_closing:
            return
        if (self.idling or self.between) and self._has_news():
            self._task = dialogue.loop.create_task(self._tell())

    def _has_news(self) -> bool:
        view = self._dialogue.view
        if view is not None and (view.is_dirty or view.has_tellable(removals=self._may_remove)):
            return True
        return self.beside is not None and self.beside.has_news

    @property
    def _may_remove(self) -> bool:
        return self.idling or self.removals

    async def _tell(self) -> None:
        dialogue = self._dialogue
        try:
            await line_up()  # one message may be news for a hundred sessions
            while self._has_news() and not dialogue.is_closing:
                dialogue.send(await dialogue.updates(removals=self._may_remove, leaves=True))
                if self.beside is not None:
                    await self.beside.tell()
                await dialogue.flush()
        except ConnectionError:
            pass
        except Exception as error:  # noqa: BLE001 - the end of a task
            dialogue.failed_telling(error)
        finally:
            self._task = None
            dialogue.told_all()
