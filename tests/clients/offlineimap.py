"""OfflineIMAP with one account, whose folders become a tree of Maildirs: its configuration."""

from pathlib import Path


def write_configuration(folder: Path, host: str, port: object, user: str, proof: str) -> Path:
    """`proof`: the lines that say how the user shows who they are. Mail comes into `folder/mail`."""
    file = folder / "offlineimaprc"
    file.write_text(f"""
[general]
accounts = a
metadata = {folder}/metadata
ui = quiet
socktimeout = 60
[Account a]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = {folder}/mail
sep = /
[Repository far]
type = IMAP
remotehost = {host}
remoteport = {port}
remoteuser = {user}
ssl = no
starttls = no
maxconnections = 2
{proof}
""")
    return file
