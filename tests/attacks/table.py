"""All rows."""

from typing import Final

from tests.attacks import after_login, before_login, mail
from tests.attacks.rows import Row

ROWS: Final[list[Row]] = [*before_login.ROWS, *after_login.ROWS, *mail.ROWS]
