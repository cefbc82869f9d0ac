"""`murder log`: what the log's events mean."""

import asyncclick as click

from murder.cli.options import Group, json_option, print_json
from murder.log import EVENTS


@click.group(cls=Group)
def log() -> None:
    """What the log's events mean.

    \b
    murder log events | grep mailbox
    """


@log.command()
@json_option("a list of event, meaning")
def events(as_json: bool) -> None:
    """Print every event that murder logs, with what it means: for filters and alarms.

    \b
    murder log events
    murder log events --json
    """
    if as_json:
        print_json([{"event": event, "meaning": meaning} for event, meaning in EVENTS.items()])
    else:
        width = max(map(len, EVENTS))
        for (
            event,
            meaning,
        ) in EVENTS.items():  # no table: on a narrow terminal that would cut the meaning
            click.echo(f"{event:{width}}  {meaning}")
