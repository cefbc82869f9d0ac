"""`murder log`: what the log's events mean, and what fail2ban makes of them."""

import asyncclick as click

from murder.admin.cli.fail2ban import FILTER, jail
from murder.admin.cli.options import Group, json_option, print_json
from murder.log import EVENTS


@click.group(cls=Group)
def log() -> None:
    """What the log's events mean, and what fail2ban makes of them.

    \b
    murder log events | grep mailbox
    murder log fail2ban filter > /etc/fail2ban/filter.d/murder.conf
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


@log.command()
@click.argument("part", type=click.Choice(["filter", "jail"]))
@click.option(
    "--file", "log_file", default="", metavar="FILE", help="Where the log is.  [default: journal]"
)
def fail2ban(part: str, log_file: str) -> None:
    """Print what fail2ban needs to ban addresses that guess passwords: a filter, which finds them in the log, in either of
    its forms; and a jail, which says after how many and for how long.

    \b
    murder log fail2ban filter > /etc/fail2ban/filter.d/murder.conf
    murder log fail2ban jail > /etc/fail2ban/jail.d/murder.conf
    murder log fail2ban jail --file /var/log/murder.log
    """
    click.echo(FILTER if part == "filter" else jail(log_file), nl=False)
