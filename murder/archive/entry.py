"""The archive's __main__.py. It must compile on every Python there is, to tell an old one what is wrong."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - an old Python runs this too
    sys.stderr.write(
        "murder: needs Python 3.11 or newer; this is %d.%d (%s)\n"  # noqa: UP031 - for old Pythons
        % (sys.version_info[0], sys.version_info[1], sys.executable)
    )
    sys.exit(2)

import murder_start  # type: ignore[import-not-found] # it is beside this file in the archive

murder_start.main(__spec__.loader)
