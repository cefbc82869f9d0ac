"""Files that are there after a power cut, whole: octets and names reach the disk before a call returns."""

import contextlib
import os
import secrets
from pathlib import Path


def replace_file(
    path: Path,
    octets: bytes | memoryview,
    mode: int = 0o600,
    *,
    prefix: str = ".",
    keep_owner: bool = False,
) -> None:
    """Make a file, or replace it as a whole: after a power cut it is the old or the new one, on return the new one.

    The draft lies beside it, as PREFIX, the file's name and what nobody guesses. With `keep_owner` a file that was there
    passes on its owner and mode. Raises OSError, and leaves no draft.
    """
    draft = path.with_name(f"{prefix}{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with open(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        if keep_owner:
            with contextlib.suppress(FileNotFoundError):
                _pass_on_owner(path, draft)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _pass_on_owner(old: Path, new: Path) -> None:
    """Root changing a service's file must not lock the service out of it."""
    status = old.stat()
    new.chmod(status.st_mode & 0o777)
    with contextlib.suppress(PermissionError):
        os.chown(new, status.st_uid, status.st_gid)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
