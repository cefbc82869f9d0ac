"""So much time, as an operator writes it: 90s, 30m, 12h, 7d."""

from typing import Any

import asyncclick as click

from murder.admin.operate.wording import parse_span
from murder.errors import BadSyntax


class Span(click.ParamType[float]):
    """So many seconds, minutes, hours or days, in seconds."""

    name = "span"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_span(value)
        except BadSyntax as error:
            self.fail(str(error), param, ctx)
