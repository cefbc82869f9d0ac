"""Other proxies, as processes in front of one IMAP backend: nginx's mail module, Perdition, Dovecot's (all Debian's).

Each checks or takes the password its own way and then logs in at the backend as the user. They need root, as their
programs change to users of their own.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from tests.kit.process import Program
from tests.kit.waiting import pause
from tests.load.accounts import POP3_PORT, answering

HOST: Final = "127.0.0.1"
NGINX_PORT: Final = 14431  # with TLS: one more, likewise for the others
DOVECOT_PORT: Final = 14441
PERDITION_PORT: Final = 14451
AUTH_PORT: Final = 14461
POP3_STEP: Final = 2  # from the port of IMAP
LMTP_STEP: Final = 3
LMTP_PORT: Final = 24
MODULE: Final = Path("/usr/lib/nginx/modules/ngx_mail_module.so")

NGINX: Final = """\
load_module {module};
user www-data;
worker_processes auto;
worker_rlimit_nofile 20000;
pid {folder}/pid;
error_log {folder}/log;
events {{ worker_connections 8000; }}
mail {{
    auth_http {host}:{auth_port}/;
    proxy_pass_error_message on;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    server {{ listen {host}:{port}; protocol imap; }}
    server {{ listen {host}:{tls_port} ssl; protocol imap; }}
    server {{ listen {host}:{pop3_port}; protocol pop3; }}
}}
"""
DOVECOT: Final = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = {protocols}
lmtp_proxy = yes
listen = {host}
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = no
auth_mechanisms = plain login
default_client_limit = 8000
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users-%s
}}
userdb {{
  driver = prefetch
}}
service imap-login {{
  service_count = 0
  process_min_avail = 2
  process_limit = 2
  client_limit = 8000
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
  }}
}}
{others}
service anvil {{
  client_limit = 17000
}}
service auth {{
  client_limit = 17000
}}
"""


DOVECOT_OTHERS: Final = {
    "pop3": """service pop3-login {{
  service_count = 0
  process_min_avail = 2
  process_limit = 2
  inet_listener pop3 {{
    port = {port}
  }}
}}
""",
    "lmtp": """service lmtp {{
  inet_listener lmtp {{
    port = {port}
  }}
}}
""",
}


def dovecot_speaks() -> list[str]:
    """Beside IMAP: each protocol is a package of its own."""
    found = Path("/usr/lib/dovecot")
    return [name for name in ("pop3", "lmtp") if (found / name).exists()]


@contextmanager
def nginx(folder: Path, backend: tuple[str, int], certificate: Path, key: Path) -> Iterator[int]:
    """Its root process. Whom to ask for users' backends is a process of ours, which is not counted."""
    config = folder / "nginx.conf"
    config.write_text(
        NGINX.format(
            module=MODULE,
            folder=folder,
            host=HOST,
            auth_port=AUTH_PORT,
            port=NGINX_PORT,
            tls_port=NGINX_PORT + 1,
            pop3_port=NGINX_PORT + POP3_STEP,
            certificate=certificate,
            key=key,
        )
    )
    command = ["nginx", "-c", str(config), "-g", "daemon off;"]
    with answering(HOST, AUTH_PORT, backend), running(command, folder, NGINX_PORT) as process:
        yield process


@contextmanager
def dovecot(folder: Path, backend: tuple[str, int], certificate: Path, key: Path) -> Iterator[int]:
    config = folder / "dovecot.conf"
    for service, to in (("imap", backend[1]), ("pop3", POP3_PORT), ("lmtp", LMTP_PORT)):
        users = folder / f"users-{service}"
        users.write_text(
            "".join(
                f"user{number}:secret:::::: proxy=y host={backend[0]} port={to}\n"
                for number in range(1, 2001)
            )
        )
        os.chown(users, pwd.getpwnam("dovecot").pw_uid, -1)
    others = [name for name in ("pop3", "lmtp") if name in dovecot_speaks()]
    listening = {"pop3": DOVECOT_PORT + POP3_STEP, "lmtp": DOVECOT_PORT + LMTP_STEP}
    config.write_text(
        DOVECOT.format(
            protocols=" ".join(["imap", *others]),
            others="".join(DOVECOT_OTHERS[name].format(port=listening[name]) for name in others),
            folder=folder,
            host=HOST,
            port=DOVECOT_PORT,
            tls_port=DOVECOT_PORT + 1,
            certificate=certificate,
            key=key,
        )
    )
    with running(["dovecot", "-F", "-c", str(config)], folder, DOVECOT_PORT) as process:
        yield process


@contextmanager
def perdition(
    folder: Path, backend: tuple[str, int], certificate: Path, key: Path
) -> Iterator[int]:
    """Without TLS: that is another process of it."""
    del certificate, key
    command = [
        *("perdition.imap4", "--no_daemon", "--no_lookup", "--map_library", ""),
        *("--outgoing_server", f"{backend[0]}:{backend[1]}", "--bind_address", HOST),
        *("--listen_port", str(PERDITION_PORT), "--pid_file", str(folder / "perdition.pid")),
        *("--server_resp_line", "--ssl_mode", "none", "--connection_limit", "0"),
    ]
    with running(command, folder, PERDITION_PORT) as process:
        yield process


@contextmanager
def running(command: list[str], folder: Path, port: int) -> Iterator[int]:
    """A server in the foreground, until it listens; ended with what it started."""
    with Program(command, folder / "said") as program:
        yield program.until_open(HOST, port).pid


Start = Callable[[Path, tuple[str, int], Path, Path], AbstractContextManager[int]]
PROXIES: Final[dict[str, tuple[Start, int]]] = {  # how it is started, and its port without TLS
    "dovecot": (dovecot, DOVECOT_PORT),
    "nginx": (nginx, NGINX_PORT),
    "perdition": (perdition, PERDITION_PORT),
}


def installed() -> list[str]:
    """Which of them can run here."""
    if os.geteuid():
        return []
    found = []
    if shutil.which("dovecot"):
        found.append("dovecot")
    if shutil.which("nginx") and MODULE.exists():
        found.append("nginx")
    if shutil.which("perdition.imap4"):
        found.append("perdition")
    return found


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """One that nobody has signed, for all."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "30", "-subj", "/CN=localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def settle(seconds: float = 0.5) -> None:
    """Let servers end what clients have left behind."""
    pause(seconds, "servers finish behind their answers what their processor time counts")
