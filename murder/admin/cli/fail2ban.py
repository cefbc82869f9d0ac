"""What fail2ban is given: a filter for what the log says of wrong passwords, and a jail that uses it.

The filter reads a line from its beginning, and what stands before the client's address is none of theirs: whatever they call
themselves, nobody else is banned for it. The time is the line's own, not one that is part of a name.
"""

from typing import Final

from murder.model.protocol import IMAP, POP3, SIEVE

# `_before` is what the journal, or a syslog, puts before a line. A JSON line has its keys in the order of `log_facts`; in
# text they are sorted.
FILTER: Final = r"""# /etc/fail2ban/filter.d/murder.conf, written by `murder log fail2ban`
[Definition]
_before = (?:(?:\w{3} +\d+ [\d:]+ |\d{4}-\d\d-\d\d\S+ )?\S+ [\w.@-]+\[\d+\]: )?(?:<\d>)?
_wrong = (?:AUTHENTICATIONFAILED|Wrong user or password)
_json = \{"role": "\w+", "protocol": "[^"\\]+", "cid": "[^"\\]+", "peer": "<ADDR>", (?:"(?:through|session)": "[^"\\]*", )*
_user = "user": "(?:[^"\\]|\\.)*", (?:"mechanism": "[\w-]+", )?
_text = (?:\d{4}-\d\d-\d\d\S+)? *\[info +\] login\.failed +cid=\S+ (?:mechanism=[\w-]+ )?node=\S+ peer=<ADDR>
_of = (?: pid=\d+)? problem=

failregex = ^%(_before)s%(_json)s%(_user)s"problem": "%(_wrong)s", "event": "login\.failed"
            ^%(_before)s%(_text)s%(_of)s['"]?%(_wrong)s['"]? protocol=
ignoreregex =

# the line's own time: at the end in JSON, at the beginning in text
datepattern = "timestamp": "%%Y-%%m-%%dT%%H:%%M:%%S(?:\.%%f)?%%z"\}$
              ^%%Y-%%m-%%dT%%H:%%M:%%S(?:\.%%f)?

journalmatch = _SYSTEMD_UNIT=murder.service
"""
JAIL: Final = """# /etc/fail2ban/jail.d/murder.conf, written by `murder log fail2ban`
[murder]
enabled = true
filter = murder
{source}
port = {ports}
# murder itself makes guessing slow, for an address and a user: [auth] failure_delay_s, max_guesses_per_address
maxretry = 20
findtime = 10m
bantime = 1h
# add what many users come from (a webmail, a balancer), and your own nodes
ignoreip = 127.0.0.0/8 ::1
"""
JOURNAL: Final = "backend = systemd"


def jail(log_file: str) -> str:
    """For a log in that file; "": in the journal."""
    ports = ",".join(str(key.port) for spec in (IMAP, POP3, SIEVE) for key in spec.keys)
    source = f"backend = auto\nlogpath = {log_file}" if log_file else JOURNAL
    return JAIL.format(source=source, ports=ports)
