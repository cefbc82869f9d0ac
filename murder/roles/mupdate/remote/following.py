"""A node that follows the master: list, ledger, replica, and the socket where workers ask for the master's present.

A frontend's replica process starts one; so does a MUPDATE role that serves as a replica.
"""

import ssl
from pathlib import Path

from murder.config import Config
from murder.errors import Code, Refusal
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.remote.link import master_target
from murder.roles.mupdate.remote.ping import SOCKET_NAME, PingServer
from murder.roles.mupdate.remote.replica import Replica, Timing
from murder.roles.mupdate.serving.stream import Hub
from murder.wire.nodes.control_answers import ListFacts


def list_path(config: Config, role: str) -> Path:
    """Where a role (`mupdate`, `frontend`, `backend`) keeps its list."""
    return config.node.data / role / "mailboxes"


def socket_path(list_folder: Path) -> Path:
    """Where the replica process of that list answers workers."""
    return list_folder.parent / SOCKET_NAME


class ReplicaService:
    """The sole writer of a host's list. `path` is the list's folder (`list_path`)."""

    def __init__(self, config: Config, path: Path) -> None:
        self._config = config
        self._path = path
        self.mailboxes: MailboxList
        self.hub: Hub
        self.replica: Replica
        self._ledger: Ledger | None = None
        self._server: PingServer | None = None

    async def start(self) -> None:
        """Open the list and begin to follow; does not wait for the master (a list of yesterday serves meanwhile).

        Raises Refusal with a sentence for an operator.
        """
        mupdate = self._config.mupdate
        try:
            target = master_target(self._config)
        except (OSError, ssl.SSLError) as error:
            raise Refusal(Code.UNAVAILABLE, f"the node's certificate: {error}") from error
        if target is None:
            raise Refusal(Code.CANNOT, "mupdate.master is not configured")
        self.mailboxes = MailboxList.open(self._path, map_bytes=mupdate.max_list_bytes)
        self.hub = Hub(self.mailboxes, mupdate.max_stream_backlog_bytes)
        self._ledger = Ledger(self.mailboxes, self.hub.committed)
        timing = Timing(mupdate.ping_interval_s, mupdate.retry_min_s, mupdate.retry_max_s)
        self.replica = Replica(target, self._ledger, timing, mupdate.max_list_bytes)
        self._server = PingServer(self.replica, socket_path(self._path), mupdate.command_timeout_s)
        await self._server.start()
        self.replica.start()

    def reload(self, config: Config) -> None:
        """Certificates and authority, for the next connection to the master. Raises OSError."""
        self._config = config
        target = master_target(config)
        if target is not None:
            self.replica.target = target

    async def ping(self, timeout_s: float) -> None:
        """As `ping.PingClient.ping`, for who runs in this process."""
        await self.replica.ping(timeout_s)

    def report(self) -> ListFacts:
        """For `murder ctl status`: how the list stands against its master's."""
        status, problem = self.replica.status(), ""
        if count := self.mailboxes.lacks(self._config.mupdate.missing_grace_s):
            problem = f"its master came without {count} mailboxes that it had: what it does not know is `try again later`"
        return ListFacts(
            status.phase.value,
            status.synchronised,
            status.lag_entries,
            None if status.lag_s is None else round(status.lag_s, 3),
            status.problem or problem,
        )

    async def stop(self) -> None:
        if self._ledger is None:
            return
        if self._server is not None:
            await self._server.stop()
        await self.replica.stop()
        self.hub.close()
        await self._ledger.close()
        self.mailboxes.close()
        self._ledger = None
