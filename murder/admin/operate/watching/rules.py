"""When somebody should look at a murder: alert rules, as Prometheus reads them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    """`expression` (PromQL; JOB stands for the nodes' `job_name`) true for `lasting` calls somebody: `critical` at once,
    `warning` in working hours."""

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str
    cure: str


RULES: Final = (
    Rule(
        "MurderNodeAway",
        "up{job=JOB} == 0",
        "2m",
        "critical",
        "{{ $labels.instance }} does not answer",
        "journalctl -u murder there: the last lines with error say why it ended.",
    ),
    Rule(
        "MurderBackendDown",
        "max by (backend) (murder_backend_down) == 1",
        "2m",
        "critical",
        "{{ $labels.backend }} cannot be reached by frontends",
        "Its users' mail is delayed and cannot be read: log lines upstream.… at a frontend say why.",
    ),
    Rule(
        "MurderListNeverComplete",
        "min by (instance) (murder_list_synchronised) == 0",
        "5m",
        "critical",
        "{{ $labels.instance }} has never had the whole mailbox list, and serves nobody",
        "murder ctl doctor says whether it reaches the master, and is believed there.",
    ),
    Rule(
        "MurderListBehind",
        "max by (instance) (murder_list_lag_seconds) > 60",
        "2m",
        "critical",
        "{{ $labels.instance }} has not heard from the mailbox list's master for {{ $value | humanizeDuration }}",
        "The list is served as it was; CREATE, DELETE and RENAME are refused. Start the master.",
    ),
    Rule(
        "MurderListBacklog",
        "murder_list_backlog > 10000",
        "10m",
        "warning",
        "A node that follows the mailbox list is {{ $value }} changes behind",
        "murder ctl status names it.",
    ),
    Rule(
        "MurderListConflicts",
        "murder_list_conflicts > 0",
        "10m",
        "warning",
        "{{ $value }} mailboxes are wanted by two servers",
        "murder ctl conflicts names them.",
    ),
    Rule(
        "MurderQuarantined",
        "max by (instance) (murder_quarantined_mailboxes) > 0",
        "10m",
        "warning",
        "{{ $value }} mailboxes of {{ $labels.instance }} were put aside",
        "Another backend has them too: murder ctl conflicts.",
    ),
    Rule(
        "MurderMailboxesLost",
        "max by (instance) (murder_lost_mailboxes) > 0",
        "5m",
        "critical",
        "{{ $labels.instance }} has lost {{ $value }} mailboxes: mail for them waits",
        "Its disk is new: murder ctl restore backend, murder help backup.",
    ),
    Rule(
        "MurderStoreAway",
        "min by (instance) (murder_store_usable) == 0",
        "1m",
        "critical",
        "{{ $labels.instance }} cannot keep mail now: senders are told to try again",
        "murder ctl status says why: its disk is away, read-only or full. No restart is needed.",
    ),
    Rule(
        "MurderMovesFailed",
        "max by (instance) (murder_moves_failed) > 0",
        "10m",
        "warning",
        "{{ $value }} moves of {{ $labels.instance }} have failed",
        "murder ctl move status says why; move resume or move abort ends them.",
    ),
    Rule(
        "MurderDiskFills",
        "min by (instance) (murder_store_disk_free_bytes / murder_store_disk_size_bytes) < 0.10 or "
        "min by (instance) (murder_disk_free_bytes / murder_disk_size_bytes) < 0.10",
        "15m",
        "warning",
        "{{ $value | humanizePercentage }} of a disk of {{ $labels.instance }} (mail, or data) is left",
        "murder ctl backend drain, or rebalance, moves users away while they work.",
    ),
    Rule(
        "MurderDiskFull",
        "min by (instance) (murder_store_disk_free_bytes / murder_store_disk_size_bytes) < 0.03 or "
        "min by (instance) (murder_disk_free_bytes / murder_disk_size_bytes) < 0.03",
        "2m",
        "critical",
        "{{ $value | humanizePercentage }} of a disk of {{ $labels.instance }} (mail, or data) is left",
        "Mail is refused for a while (452) when it is full; nothing that was acknowledged is lost.",
    ),
    Rule(
        "MurderDescriptorsEnd",
        "max by (instance, role) (process_unix_file_descriptor_count / murder_max_fds) > 0.8",
        "5m",
        "warning",
        "{{ $labels.instance }} uses {{ $value | humanizePercentage }} of its file descriptors",
        "Raise LimitNOFILE of the unit, or lower max_connections.",
    ),
    Rule(
        "MurderCertificateEnds",
        "min by (instance) (murder_certificate_left_seconds) < 14 * 86400",
        "1h",
        "warning",
        "A certificate of {{ $labels.instance }} ends in {{ $value | humanizeDuration }}",
        "murder ca issue again, copy both files, murder reload there.",
    ),
    Rule(
        "MurderCertificateEndsNow",
        "min by (instance) (murder_certificate_left_seconds) < 2 * 86400",
        "10m",
        "critical",
        "A certificate of {{ $labels.instance }} ends in {{ $value | humanizeDuration }}",
        "Without it no other node believes this one: murder ca issue again, murder reload there.",
    ),
    Rule(
        "MurderLoginsFail",
        'sum by (instance) (rate(murder_logins_total{result="failed"}[10m])) > 1',
        "10m",
        "warning",
        "{{ $value | humanize }} logins a second fail at {{ $labels.instance }}",
        "Somebody guesses passwords (murder log fail2ban), or what the passwords are asked from is away.",
    ),
    Rule(
        "MurderUpstreamFails",
        "sum by (instance, backend) (rate(murder_upstream_failures_total[5m])) > 0.1",
        "5m",
        "warning",
        "{{ $labels.instance }} has trouble with {{ $labels.backend }}",
        "Log lines upstream.failed at that frontend have the kind.",
    ),
    Rule(
        "MurderMailRefused",
        'sum by (instance) (rate(murder_messages_total{outcome="refused"}[15m]))'
        " / sum by (instance) (rate(murder_messages_total[15m])) > 0.5",
        "15m",
        "warning",
        "{{ $value | humanizePercentage }} of the recipients are refused at {{ $labels.instance }}",
        "murder ctl message trace ADDRESS says what the sender was told.",
    ),
    Rule(
        "MurderCommandsSlow",
        "histogram_quantile(0.99, sum by (instance, le) "
        "(rate(murder_commands_duration_seconds_bucket[10m]))) > 5",
        "15m",
        "warning",
        "One command in a hundred takes more than 5 s at {{ $labels.instance }}",
        "Look at its disks; murder ctl top shows who does what.",
    ),
    Rule(
        "MurderLoopLate",
        "histogram_quantile(0.99, sum by (instance, role, le) "
        "(rate(murder_loop_lag_duration_seconds_bucket[10m]))) > 0.5",
        "15m",
        "warning",
        "{{ $labels.role }} at {{ $labels.instance }} comes half a second late to what is due",
        "Too few processors for what is asked (more workers, another node), or something holds the loop: report it.",
    ),
    Rule(
        "MurderStartsAgain",
        "max by (instance, role) (resets(process_uptime_seconds{job=JOB}[1h])) > 3",
        "0m",
        "warning",
        "{{ $labels.role }} at {{ $labels.instance }} was started again {{ $value }} times in an hour",
        "Log lines worker.died and worker.stuck, and those before them, say why: report them.",
    ),
    Rule(
        "MurderVersionsDiffer",
        "count(count by (version) (murder_build)) > 1",
        "1d",
        "warning",
        "Nodes of {{ $value }} versions run beside each other",
        "murder ctl status names them; finish the upgrade.",
    ),
)


def expression_of(rule: Rule, job: str) -> str:
    """For nodes that Prometheus scrapes under that `job_name`."""
    return rule.expression.replace("JOB", json.dumps(job))


def format_rules(job: str) -> str:
    """A file for `rule_files` of Prometheus (YAML; what is quoted is so as in JSON)."""
    return "\n".join(_lines(job)) + "\n"


def _lines(job: str) -> Iterator[str]:
    yield "# /etc/prometheus/rules/murder.yml, written by `murder metrics rules`"
    yield "groups:"
    yield "  - name: murder"
    yield "    rules:"
    for rule in RULES:
        yield f"      - alert: {rule.name}"
        yield f"        expr: {_quoted(expression_of(rule, job))}"
        yield f"        for: {rule.lasting}"
        yield "        labels:"
        yield f"          severity: {rule.severity}"
        yield "        annotations:"
        yield f"          summary: {_quoted(rule.summary)}"
        yield f"          description: {_quoted(rule.cure)}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
