"""Dovecot 2.3 as a server of mail, with a configuration of its own: IMAP and LMTP on Maildir, every write flushed."""

import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.kit.process import Program

USER: Final = "nobody"  # owns the mail

CONFIG: Final = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap lmtp
listen = {host}
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
mail_location = maildir:{folder}/mail/%u
mail_fsync = always
mail_max_userip_connections = 0
first_valid_uid = {uid}
last_valid_uid = {uid}
namespace inbox {{
  inbox = yes
  separator = /
  prefix = INBOX/
}}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/mail/%u
}}
service imap-login {{
  service_count = 0
  process_min_avail = {cores}
  client_limit = 4000
  inet_listener imap {{
    port = 143
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = 24
  }}
}}
service anvil {{
  client_limit = 9000
}}
service auth {{
  client_limit = 9000
}}
"""


SIEVE: Final = """\
protocols = imap lmtp sieve
protocol lmtp {{
  mail_plugins = sieve
}}
plugin {{
  sieve = file:~/sieve;active=~/.dovecot.sieve
}}
service managesieve-login {{
  inet_listener sieve {{
    port = 4190
  }}
}}
"""


def has_sieve() -> bool:
    """Whether Pigeonhole can run here, too."""
    parts = Path("/usr/lib/dovecot")
    plugin = parts / "modules" / "lib90_sieve_plugin.so"
    return is_installed() and plugin.exists() and (parts / "managesieve").exists()


def is_installed() -> bool:
    """Whether it can run here: its parts, and the right to change users."""
    parts = Path("/usr/lib/dovecot")
    return not os.geteuid() and bool(shutil.which("dovecot")) and (parts / "lmtp").exists()


@contextmanager
def dovecot(folder: Path, host: str, users: int, *, sieve: bool = False) -> Iterator[int]:
    """Its root process, once it listens on 143 and 24; with `sieve`, also on 4190, and mail is filtered."""
    owner = pwd.getpwnam(USER)
    for path in (folder, folder / "mail"):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)
    os.chown(folder / "mail", owner.pw_uid, owner.pw_gid)
    lines = [f"user{number}:secret::::::\n" for number in range(1, users + 1)]
    (folder / "users").write_text("".join(lines))
    os.chown(folder / "users", pwd.getpwnam("dovecot").pw_uid, -1)
    config = folder / "dovecot.conf"
    config.write_text(
        (CONFIG + SIEVE * sieve).format(
            folder=folder,
            host=host,
            uid=owner.pw_uid,
            gid=owner.pw_gid,
            cores=os.cpu_count() or 1,
        )
    )
    with Program(["dovecot", "-F", "-c", config], folder / "said") as program:
        for port in (143, 24, *([4190] if sieve else [])):
            program.until_open(host, port)
        yield program.pid
