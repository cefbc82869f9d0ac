"""`murder metrics`: what a monitoring system is given for the figures of `[metrics] listen`."""

import json

import asyncclick as click

from murder.admin.cli.options import Group
from murder.admin.operate.watching.dashboard import make_dashboard
from murder.admin.operate.watching.rules import format_rules


@click.group(cls=Group)
def metrics() -> None:
    """A dashboard and alert rules for the figures that nodes export (`[metrics] listen`).

    \b
    murder metrics dashboard > murder.json
    murder metrics rules > /etc/prometheus/rules/murder.yml
    """


@metrics.command()
def dashboard() -> None:
    """Print a dashboard for Grafana: Dashboards, New, Import. It asks which Prometheus it is to read.

    \b
    murder metrics dashboard > murder.json
    """
    click.echo(json.dumps(make_dashboard(), indent=2))


@metrics.command()
@click.option(
    "--job", default="murder", show_default=True, help="The job_name that scrapes the nodes."
)
def rules(job: str) -> None:
    """Print alert rules for Prometheus, a file for its rule_files: each says what is wrong, and what to do.

    \b
    murder metrics rules > /etc/prometheus/rules/murder.yml
    murder metrics rules --job mail | promtool check rules /dev/stdin
    """
    click.echo(format_rules(job), nl=False)
