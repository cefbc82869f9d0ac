"""A real Dovecot (Debian's) of the tests, with users and a master user, on ports of loopback."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kit.demo import wanted
from tests.kit.ports import free_port_base
from tests.kit.waiting import until

CONFIG = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap pop3 lmtp sieve
listen = 127.0.0.1
{tls}
disable_plaintext_auth = no
auth_mechanisms = plain
mail_location = maildir:{folder}/mail/%u
mail_uid = nobody
mail_gid = nogroup
passdb {{
  driver = passwd-file
  master = yes
  args = scheme=PLAIN {folder}/masters
}}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {folder}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}/mail/%u
}}
namespace inbox {{
  inbox = yes
  separator = /
  prefix = INBOX/
}}
protocol lmtp {{
  auth_username_format = %n
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
service managesieve-login {{
  inet_listener sieve {{
    port = {sieve}
  }}
}}
plugin {{
  sieve = file:{folder}/mail/%u/sieve;active={folder}/mail/%u/active.sieve
}}
"""

TLS = """ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}"""
PROXY = ("murder", "proxysecret")  # who may log in for others


def why_not() -> str:
    """Why it cannot run here; "" if it can."""
    return wanted("dovecot", "/usr/lib/dovecot/managesieve") or (
        "needs root" if os.geteuid() else ""
    )


@dataclass(frozen=True)
class Dovecot:
    """One that runs."""

    folder: Path
    ports: Mapping[str, int]

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def until_logged(self, *texts: str) -> None:
        """All of them: a process of its own writes what the others tell it, when it comes to that."""
        until(lambda: all(text in self.log() for text in texts), lambda: (texts, self.log()))


def answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def dovecot(
    users: Mapping[str, str],
    ports: Mapping[str, int] | None = None,
    tls: tuple[Path, Path] | None = None,
    more: Sequence[str] = (),
) -> Iterator[Dovecot]:
    """`users` with their passwords; `tls` is a certificate and its key; `more` are lines of its configuration."""
    kinds = ("imap", "pop3", "lmtp", "sieve")
    if ports is None:
        base = free_port_base(4)
        ports = {kind: base + number for number, kind in enumerate(kinds)}
    folder = Path(tempfile.mkdtemp(prefix="murder-dovecot-"))
    folder.chmod(0o755)
    (folder / "mail").mkdir()
    shutil.chown(folder / "mail", "nobody")
    (folder / "masters").write_text(":".join(PROXY) + "\n")
    (folder / "users").write_text("".join(f"{user}:{word}\n" for user, word in users.items()))
    for file in ("masters", "users"):
        os.chown(folder / file, pwd.getpwnam("dovecot").pw_uid, -1)
    encrypted = TLS.format(certificate=tls[0], key=tls[1]) if tls else "ssl = no"
    config = CONFIG.format(folder=folder, tls=encrypted, **ports)
    (folder / "dovecot.conf").write_text("\n".join([config, *more, ""]))
    process = subprocess.Popen(["dovecot", "-F", "-c", str(folder / "dovecot.conf")])
    try:
        until(lambda: answers(ports["imap"]), "dovecot listens")
        yield Dovecot(folder, ports)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(folder)
