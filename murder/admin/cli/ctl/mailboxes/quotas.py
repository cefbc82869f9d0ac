"""Limits as arguments of a command."""

from collections.abc import Sequence

import asyncclick as click

from murder.admin.operate.quotas import parse_limits
from murder.errors import BadSyntax


def limits_of(texts: Sequence[str]) -> dict[str, int]:
    """As `operate.quotas.parse_limits`. Raises UsageError."""
    try:
        return parse_limits(texts)
    except BadSyntax as error:
        raise click.UsageError(error.text) from None
