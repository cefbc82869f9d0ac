"""What the roles have in common that let clients in: the gate and the services, as they are made and made again."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import ClassVar, Protocol

from murder.api.auth import AuthBackend, Diagnoses
from murder.api.sasl import Mechanism
from murder.api.service import Service as PluggedService
from murder.auth.app_passwords import AppPasswords
from murder.auth.chain import Chain
from murder.auth.decoys import decoy_key_of
from murder.auth.gate import PROXY_ROLES, Gate, penalties_of
from murder.auth.limit import ConnectionLimit
from murder.auth.mechanisms import faults_of
from murder.auth.remembered import flushed_file
from murder.config import ClientConfig, Config
from murder.model.protocol import ProtocolSpec
from murder.net.listener import Service
from murder.net.shared_counter import Counts, SharedCounter
from murder.net.tls import listening_context
from murder.serve.mail_log import KIND, MailLog
from murder.serve.plugged import Reach, service_of
from murder.serve.service import ClientService, Factory, services_of
from murder.serve.watched import sampling
from murder.trail.audit import audit_log
from murder.trail.figures import Figures
from murder.trail.lines import Trail, folder_of
from murder.trail.spans import Spans
from murder.wire.nodes.control_answers import Probed


class MakesAuth(Protocol):
    """What these roles need of the plugins, at least."""

    def auth_backends(self) -> Sequence[tuple[str, AuthBackend]]:
        """Each with its plugin's name, in the order in which they are asked."""
        ...

    def mechanisms(self) -> Sequence[Mechanism]: ...

    def services(self, role: str) -> Sequence[PluggedService]:
        """Protocols that plugins bring to this role."""
        ...


class LetsIn(Protocol):
    """A role's section of the configuration, as the gate reads it."""

    @property
    def admins(self) -> Collection[str]:
        """Users who may act for others."""
        ...

    @property
    def allow_plaintext(self) -> bool:
        """Whether passwords are taken without TLS."""
        ...


def chain_of(
    config: Config, plugins: MakesAuth, workers: int = 1, counts: Counts | None = None
) -> Chain:
    """The auth plugins that a configuration names, as one; in one of so many processes of a role, which count together."""
    return Chain(
        plugins.auth_backends(),
        remember_s=config.auth.remember_s,
        max_groups=config.auth.max_groups,
        flushed=flushed_file(config.node.data),
        apps=AppPasswords(config.node.data),
        workers=workers,
        counts=counts,
    )


async def probe_auth(gate: Gate) -> AsyncIterator[Probed]:
    """For `murder ctl doctor`: whether each auth plugin, and each mechanism of a plugin, can do its work from here."""
    faults = await gate.auth.faults(gate.auth_timeout_s) + await faults_of(gate.brought)
    looked_at = [
        *(link.name for link in gate.auth.links if isinstance(link.backend, Diagnoses)),
        *(row.name for row in gate.brought if row.diagnose is not None),
    ]
    for name in looked_at:
        wrong = [fault for owner, fault in faults if owner == name]
        what = f"the login by {name}" if name.isupper() else f"the plugin {name}"
        for fault in wrong:
            yield Probed(what, fault.what, cure=fault.cure)
        if not wrong:
            yield Probed(what)


def gate_of(
    config: Config,
    section: LetsIn,
    plugins: MakesAuth,
    *,
    counts: Counts | None = None,
    connections: ConnectionLimit | None = None,
    proxies: Collection[str] = (),
    domains: bool = True,
    keep_admin_password: bool = False,
    proxy_roles: Collection[str] = PROXY_ROLES,
    within: Gate | None = None,
    chain: Chain | None = None,
    own_passwords: bool = False,
    workers: int = 1,
    has_inbox: Callable[[str], bool] | None = None,
) -> Gate:
    """The gate of a role by its configuration; `counts` is what its workers count together, `chain` is in place of the auth
    plugins."""
    return Gate(
        chain or chain_of(config, plugins, workers, counts),
        server_name=config.node.name,
        mechanisms=plugins.mechanisms(),
        admins=section.admins,
        proxies=proxies,
        masters=config.auth.masters,
        client_address_from=config.auth.client_address_from,
        certificate_user=config.auth.certificate_user,
        allow_plaintext=section.allow_plaintext,
        penalties=penalties_of(config.auth, counts),
        connections=connections,
        auth_timeout_s=config.auth.timeout_s,
        domains=domains,
        decoy_key=decoy_key_of(config.tls.key),
        keep_admin_password=keep_admin_password,
        proxy_roles=proxy_roles,
        within=within,
        own_passwords=own_passwords,
        has_inbox=has_inbox,
    )


class WithinServer(Protocol):
    """The server that runs beside a proxy, in the same process and on the same ports."""

    @property
    def server(self) -> str: ...

    def services(self) -> Mapping[ProtocolSpec, Service]: ...

    def gate(self) -> Gate: ...


class ClientRole:
    """The base of a role that serves clients, in one worker process."""

    NAME: ClassVar[str]
    FACTORIES: ClassVar[Mapping[ProtocolSpec, Factory]]
    IS_PUBLIC: ClassVar[bool]  # shows clients the certificate that the public knows
    SAMPLES: ClassVar[bool] = False  # decides which sessions are traced
    CARRIES_ADMINS: ClassVar[bool] = False  # an administrator's password goes on to the next server
    PROXY_ROLES: ClassVar[Collection[str]] = PROXY_ROLES  # whose nodes may speak for users

    def __init__(
        self,
        config: Config,
        plugins: MakesAuth,
        worker: int,
        within: WithinServer | None = None,
    ) -> None:
        self._config = config
        self._auth = plugins
        self._worker = worker
        self._within = within
        self._counts: Counts | None = None
        self._users = SharedCounter()
        self._services: Mapping[ProtocolSpec, Service] = {}
        self._mail_trail: Trail | None = None
        self._mail_log_kept = MailLog()
        self.figures = Figures()
        self.spans = Spans(self.figures)
        self._audit = audit_log(config.node.data, self.NAME, worker, config.log.audit_keep_bytes)

    def count_with(self, counts: Counts) -> None:
        """In this shared memory, together with the role's other workers."""
        self._counts, self._users = counts, SharedCounter(counts.users())

    def services(self) -> Mapping[ProtocolSpec, Service]:
        """Who serves the listeners, from now on."""
        return self._services

    def _proxies(self) -> Collection[str]:
        """Who may speak for users, by the role's section."""
        raise NotImplementedError

    @property
    def _section(self) -> ClientConfig:
        section: ClientConfig = getattr(self._config, self.NAME)
        return section

    def _make_gate(self) -> Gate:
        section = self._section
        return gate_of(
            self._config,
            section,
            self._auth,
            counts=self._counts,
            connections=ConnectionLimit(section.max_connections_per_user, self._users),
            proxies=self._proxies(),
            domains=self._config.namespace.domains,
            keep_admin_password=self.CARRIES_ADMINS,
            proxy_roles=self.PROXY_ROLES if self._within is None else PROXY_ROLES,
            within=self._within.gate() if self._within is not None else None,
            chain=self._chain(),
            own_passwords=self._carries_passwords,
            workers=self._config.workers_of(self.NAME),
            has_inbox=self.has_inbox if self._has_list else None,
        )

    @property
    def _has_list(self) -> bool:
        """Whether there is a mailbox list that knows all users."""
        return True

    def has_inbox(self, user: str) -> bool:
        """Whether that list has their INBOX."""
        raise NotImplementedError

    def _chain(self) -> Chain | None:
        """Who checks passwords in place of the auth plugins; None: these."""
        return None

    @property
    def _carries_passwords(self) -> bool:
        """Whether users' own passwords go on to the next server."""
        return False

    def _mail_log(self) -> MailLog:
        """As the configuration is now; it and its file stay the same ones, whatever becomes of that."""
        config = self._config
        if config.log.mail == "off":
            self._mail_log_kept.keep(None)
            return self._mail_log_kept
        if self._mail_trail is None:
            folder = folder_of(config.node.data)
            self._mail_trail = Trail(folder, KIND, self.NAME, self._worker)
        self._mail_trail.keep(config.log.mail_keep_bytes)
        self._mail_log_kept.keep(self._mail_trail, is_full=config.log.mail == "full")
        return self._mail_log_kept

    def _serve(self, node: object, gate: Gate, reach: Reach) -> None:
        """Make the services; `node` is what their sessions share, `reach` what those of plugins get of it."""
        config = self._config
        self._audit.keep(config.log.audit_keep_bytes)
        shared = ClientService(
            role=self.NAME,
            server_name=config.node.name,
            namespace=config.namespace.namespace(),
            gate=gate,
            limits=self._section,
            tls=listening_context(
                config.tls,
                public=self.IS_PUBLIC,
                node=self._within.server if self._within is not None else "",
                users=True,
            ),
            max_failures=config.auth.max_failures,
            mail_log=self._mail_log(),
            audit=self._audit,
            figures=self.figures,
            within=self._within.services if self._within is not None else None,
            spans=self._configured_spans(),
        )
        plugged = self._auth.services(self.NAME)
        services = {
            **services_of(self.FACTORIES, shared, node),
            **{
                service_plugged.protocol: service_of(service_plugged, shared, reach)
                for service_plugged in plugged
            },
        }
        if self.SAMPLES and self.spans.are_wanted:
            services = {
                spec: sampling(service, spec.name, self.spans) for spec, service in services.items()
            }
        self._services = services

    def _configured_spans(self) -> Spans:
        """As the configuration is now; connections from before a reload have the same ones."""
        traces = self._config.traces
        if traces.collector is None:
            self.spans.configure(0.0, 0)
        else:
            self.spans.configure(traces.share, traces.max_waiting)
        return self.spans
