"""The format of a whole store, in the file `format` beside its roots: a newer one is refused at the start, before any mail
is looked for. Each root's database has its own besides (`schema`), and becomes this version's when it is first opened.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

from murder.api.disk import disk_error
from murder.durable import replace_file
from murder.errors import Code, Refusal
from murder.kit.root import make_folder
from murder.kit.schema import FILE_MODE, FORMAT

FILE: Final = "format"
OF_FILE_SYSTEMS: Final = "lost+found"  # a new one has it


def check_format(folder: Path, name: str = FILE) -> None:
    """From now on it is this version's. Raises Refusal where a newer one has had it."""
    path = folder / name
    try:
        version = 0
        with contextlib.suppress(FileNotFoundError, ValueError):
            version = int(path.read_text(encoding="ascii"))
        if version > FORMAT:
            raise Refusal(
                Code.UNAVAILABLE,
                f"{path}: a newer murder has kept mail here, in format {version}; this one knows formats up to {FORMAT}: "
                "run the newer one",
            )
        if version < FORMAT:
            make_folder(folder)
            replace_file(path, b"%d\n" % FORMAT, FILE_MODE)
    except OSError as error:
        raise disk_error(error, path) from error


def need_store(folder: Path) -> None:
    """Asked before anybody hears that a mailbox is not there, or a new one is made. Raises Refusal where the whole store has
    gone since `check_format`, as a file system that is not mounted any more: that it has no mail, a client would believe."""
    path = folder / FILE
    try:
        os.stat(path)
    except OSError as error:  # whatever it is: a server of files that does not answer, too
        raise disk_error(error, path) from error


def need_entries(folder: Path) -> None:
    """For `murder.api.store.NeedsPlace`. Raises Refusal where the folder is not there, or has nothing in it, as where a file
    system is to be mounted, or a new one is."""
    problem = "is empty"
    try:
        with os.scandir(folder) as entries:
            if any(entry.name != OF_FILE_SYSTEMS for entry in entries):
                return
    except FileNotFoundError:
        problem = "is not there"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    raise Refusal(Code.UNAVAILABLE, f"{folder} {problem}")
