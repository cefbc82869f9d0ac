"""So much time, as an operator writes it: 90s, 30m, 12h, 7d."""

import re
from typing import Any, Final

import asyncclick as click

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])")


class Span(click.ParamType[float]):
    """So many seconds, minutes, hours or days, in seconds."""

    name = "span"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        match = _SPAN.fullmatch(value)
        if match is None:
            self.fail(f"{value!r}: say 90s, 30m, 12h or 7d", param, ctx)
        return float(int(match[1]) * UNITS[match[2]])
