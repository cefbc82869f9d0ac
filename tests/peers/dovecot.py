"""A Dovecot of Debian on a port of loopback, every password taken, mail in a folder of its own (root needed)."""

import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kit.process import Program

CONFIG = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
mail_location = maildir:{folder}/mail/%u
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = 1
default_internal_user = dovecot
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/mail/%u
}}
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
namespace inbox {{
  inbox = yes
  prefix = INBOX/
  separator = /
}}
"""


@contextmanager
def running_dovecot(folder: Path, port: int) -> Iterator[tuple[str, int]]:
    """Its address, while it runs."""
    program = shutil.which("dovecot") or "/usr/sbin/dovecot"
    account = pwd.getpwnam("nobody")
    (folder / "mail").mkdir(parents=True)
    shutil.chown(folder / "mail", account.pw_uid, account.pw_gid)
    config = folder / "dovecot.conf"
    config.write_text(
        CONFIG.format(folder=folder, port=port, uid=account.pw_uid, gid=account.pw_gid)
    )
    for above in (folder, *folder.parents):
        if above.stat().st_mode & 0o005 != 0o005 and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    with Program([program, "-F", "-c", config], folder / "said") as running:
        running.until_open("127.0.0.1", port)
        yield "127.0.0.1", port
