"""A Debian package (deb(5)) out of the archive and a few texts. Used by build.py, never at run time.

The format is an `ar` of a version, a tar of what dpkg should know and one of the files; it is written here and not by
dpkg-deb, so that the same sources give the same octets on any system, without root or fakeroot: names sorted, one time,
all root's. What the package does on a host stands in its scripts below:

Nothing is started that the operator has not enabled. An upgrade leaves running nodes alone, or restarts them, as
/etc/default/murder says. Removing stops the nodes; purging takes away what the package brought, the unpacked programs, and
the user where nothing is theirs any more. Mail, lists, certificates and keys stay.
"""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

MAINTAINER: Final = "The murder authors <murder@localhost>"
CONTROL: Final = """\
Package: {name}
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {kibibytes}
Depends: {depends}
Suggests: fail2ban, logrotate, prometheus
Section: mail
Priority: optional
Description: Cyrus Murder in one file: IMAP, POP3, LMTP and ManageSieve
 Many mail servers that look like one. Frontends are what mail clients and the
 MTA talk to and keep no mail; backends keep it, each mailbox on one of them;
 the MUPDATE master (RFC 3656) has the list of which mailbox is where. Each
 role can stand beside, or in place of, a real Cyrus.
 .
 This package has the program for all three roles, systemd units, a user, and
 the commands of an operator.
"""
POSTINST: Final = """\
#!/bin/sh
set -e

if [ "$1" = configure ]; then
    if ! getent passwd murder >/dev/null; then
        adduser --quiet --system --group --home /var/lib/murder --no-create-home murder
    fi
    if [ -z "$2" ]; then
        # the operator's own owners and modes stay; an empty folder of root's (of a new disk that is mounted there) has none
        if [ ! -d /var/lib/murder ] || {
            [ "$(stat -c %U:%G /var/lib/murder/)" = root:root ] &&
                ! dpkg-statoverride --list /var/lib/murder >/dev/null &&
                [ -z "$(find /var/lib/murder/ -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit)" ]
        }; then
            install -d -o murder -g murder -m 0700 /var/lib/murder
        elif ! runuser -u murder -- test -w /var/lib/murder; then
            echo "murder: /var/lib/murder is not the user murder's; a node there needs that, and all in it, to be"
        fi
        for path in /etc/murder /etc/murder/murder.toml; do
            if [ "$(stat -c %U:%G "$path")" = root:root ] && ! dpkg-statoverride --list "$path" >/dev/null; then
                chgrp murder "$path"
                chmod o= "$path"
            fi
        done
    fi
    if [ -d /run/systemd/system ]; then
        systemctl --system daemon-reload >/dev/null || true
        running=$(systemctl list-units --plain --no-legend --state=active murder.service 'murder@*.service' |
            cut -d ' ' -f 1)
        if [ -n "$2" ] && [ -n "$running" ]; then
            ON_UPGRADE=keep
            [ ! -r /etc/default/murder ] || . /etc/default/murder
            if [ "$ON_UPGRADE" = restart ]; then
                # shellcheck disable=SC2086 # names of units have no spaces
                deb-systemd-invoke restart $running >/dev/null || true
            else
                echo "murder: what runs goes on as the version it was started with; when it suits:" \\
                    "systemctl restart" $running
            fi
        fi
    fi
fi
"""
PRERM: Final = """\
#!/bin/sh
set -e

if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    deb-systemd-invoke stop murder.service 'murder@*.service' >/dev/null || true
fi
"""
POSTRM: Final = """\
#!/bin/sh
set -e

if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = purge ]; then
    rm -rf /var/cache/murder
    wants=/etc/systemd/system/multi-user.target.wants
    rm -f $wants/murder.service $wants/murder@*.service
    for path in /etc/murder /var/lib/murder; do
        if [ -d "$path" ] && ! rmdir "$path" 2>/dev/null; then
            kept="${kept:+$kept and }$path"
        fi
    done
    if [ -n "$kept" ]; then
        echo "murder: $kept and the user murder stay: mail, lists, certificates or keys are there"
    elif getent passwd murder >/dev/null && command -v deluser >/dev/null; then
        deluser --quiet --system murder >/dev/null || true
    fi
fi
"""
DEFAULT: Final = """\
# What becomes of running nodes when the package is upgraded:
#   keep     they go on as the version they were started with, until you restart them (`murder ctl status` says so)
#   restart  they are restarted: sessions end at quiet points, clients come back
ON_UPGRADE=keep
"""
TOML: Final = """\
# The configuration of this node: `murder help install` has one for each role, `murder init` writes them for all hosts of
# a murder, with certificates; /usr/share/doc/murder/examples/murder.toml.example has every key. Then
#
#   murder config check
#   systemctl enable --now murder
#
# [node]
# name = "be1.example.org"
# data = "/var/lib/murder"
# roles = ["backend"]
"""
README: Final = """\
murder for Debian
=================

* /usr/bin/murder is the whole program; /etc/murder/murder.toml the node's configuration. Nothing is started before you
  say so: `murder config check`, then `systemctl enable --now murder`.
* Several nodes on one host: /etc/murder/NAME.toml each, with a `node.data` of its own below /var/lib/murder, as
  murder@NAME.service.
* An upgrade leaves running nodes as they are, or restarts them: /etc/default/murder.
* The log is in the journal (`journalctl -u murder`). Who wants it in a file: `mkdir /var/log/murder`, and by
  `systemctl edit murder` [Service] StandardError=append:/var/log/murder/murder.log; /etc/logrotate.d/murder rotates
  that. What a node writes to files of its own (audit trail, mail log) it bounds itself, by keys of [log].
* /etc/fail2ban/filter.d/murder.conf finds wrong passwords in the log; examples/fail2ban-jail.conf is a jail for it.
* The Python that runs it is Debian's own, /usr/bin/python3; packages it needs are inside the file.
* Purging never removes /var/lib/murder (mail, lists, passwords) nor certificates and keys in /etc/murder.
"""
LOGROTATE: Final = """\
# The log of a node whose unit has StandardError=append:/var/log/murder/murder.log; in the journal it needs none of this.
# The node writes on where it is, so the file is copied and emptied: lines of just that moment may be lost. The audit trail
# and the mail log are not here: the node bounds them itself.
/var/log/murder/*.log {
    weekly
    maxsize 100M
    rotate 8
    missingok
    notifempty
    compress
    delaycompress
    copytruncate
}
"""
COPYRIGHT: Final = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: murder
Comment: The file has Python packages of others inside, each with its licence in its .dist-info folder.

Files: *
Copyright: 2026 The murder authors
License: Expat
"""
PROGRAM: Final = "/usr/bin/murder"
MAN: Final = "usr/share/man"
# path on the host -> what the program is told to print it
PRINTED: Final = {
    "usr/lib/systemd/system/murder.service": ("system-unit", "--program", PROGRAM),
    "usr/lib/systemd/system/murder@.service": ("system-unit", "--template", "--program", PROGRAM),
    "usr/share/bash-completion/completions/murder": ("completion", "bash"),
    "usr/share/zsh/vendor-completions/_murder": ("completion", "zsh"),
    "usr/share/fish/vendor_completions.d/murder.fish": ("completion", "fish"),
    "usr/share/doc/murder/examples/murder.toml.example": ("config", "example"),
    "usr/share/doc/murder/examples/fail2ban-jail.conf": ("log", "fail2ban", "jail"),
    "usr/share/doc/murder/examples/grafana-dashboard.json": ("metrics", "dashboard"),
    "usr/share/doc/murder/examples/prometheus-rules.yml": ("metrics", "rules"),
    "etc/fail2ban/filter.d/murder.conf": ("log", "fail2ban", "filter"),
}
PAGES: Final = ("murder.1", "murder-ctl.1", "murder.toml.5")
SCRIPTS: Final = {"postinst": POSTINST, "prerm": PRERM, "postrm": POSTRM}
DOC: Final = "usr/share/doc/murder"
SHEBANG: Final = b"#!/usr/bin/python3\n"


@dataclass(frozen=True, slots=True)
class Release:
    """What stands in the package's control file and change log; `when` in seconds since 1970."""

    version: str
    architecture: str
    depends: Sequence[str]
    maintainer: str
    when: int


def release_of(facts: Mapping[str, str], version: str, maintainer: str, when: int) -> Release:
    """Of an archive, by its build.txt: one that has native parts for both machines is for all."""
    sets = [name.split("-") for name in facts["sets"].split()]
    minors = sorted({int(tag.removeprefix("cp3")) for tag, _ in sets})
    machines = {machine for _, machine in sets}
    glibc = max(
        (facts[f"glibc-{it}"] for it in machines), key=lambda it: [*map(int, it.split("."))]
    )
    known = {"x86_64": "amd64", "aarch64": "arm64"}
    return Release(
        version=version,
        architecture="all" if len(machines) > 1 else known[machines.pop()],
        depends=(
            f"python3 (>= 3.{minors[0]})",
            f"python3 (<< 3.{minors[-1] + 1}~)",
            f"libc6 (>= {glibc})",
            "adduser",
            "init-system-helpers (>= 1.52)",
        ),
        maintainer=maintainer,
        when=when,
    )


def format_deb(program: bytes, texts: Mapping[str, str], licence: str, release: Release) -> bytes:
    """The octets of a package. `program` is the archive; `texts` what the program prints, by its path on the host;
    those below usr/share/man are compressed."""
    files = {f"{DOC}/README.Debian": README, "etc/default/murder": DEFAULT}
    files |= {"etc/murder/murder.toml": TOML, "etc/logrotate.d/murder": LOGROTATE, **texts}
    body = licence.partition("\n\n")[2].partition("\n\n")[2].strip()
    files[f"{DOC}/copyright"] = COPYRIGHT + "".join(
        f" {line or '.'}\n" for line in body.split("\n")
    )
    content = {path: text.encode() for path, text in files.items()}
    content[f"{DOC}/changelog.gz"] = packed(_changelog(release).encode())
    for path in [path for path in content if path.startswith("usr/share/man/")]:
        content[f"{path}.gz"] = packed(content.pop(path))
    content["usr/bin/murder"] = SHEBANG + program.partition(b"\n")[2]
    conffiles = sorted(f"/{path}" for path in content if path.startswith("etc/"))
    sums = "".join(
        f"{hashlib.md5(octets, usedforsecurity=False).hexdigest()}  {path}\n"
        for path, octets in sorted(content.items())
        if not path.startswith("etc/")
    )
    control = CONTROL.format(
        name="murder",
        version=release.version,
        maintainer=release.maintainer,
        architecture=release.architecture,
        kibibytes=sum(len(octets) // 1024 + 1 for octets in content.values()),
        depends=", ".join(release.depends),
    )
    about = {"control": control, "md5sums": sums, "conffiles": "\n".join(conffiles) + "\n"}
    about |= SCRIPTS
    return _ar(
        {
            "debian-binary": b"2.0\n",
            "control.tar.gz": packed(
                _tar({k: v.encode() for k, v in about.items()}, SCRIPTS, release.when)
            ),
            "data.tar.gz": packed(_tar(content, ["usr/bin/murder"], release.when)),
        },
        release.when,
    )


def packed(octets: bytes) -> bytes:
    """gzip, the same for the same octets."""
    return gzip.compress(octets, 9, mtime=0)


def _changelog(release: Release) -> str:
    date = formatdate(release.when)
    return (
        f"murder ({release.version}) stable; urgency=medium\n\n"
        "  * `murder help changes` has what an operator notices after an upgrade.\n\n"
        f" -- {release.maintainer}  {date}\n"
    )


def _tar(
    files: Mapping[str, bytes], programs: Sequence[str] | Mapping[str, str], when: int
) -> bytes:
    """Files and the folders that they are in, all root's."""
    written = io.BytesIO()
    folders = set[str]()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(files):
            parts = path.split("/")[:-1]
            for depth in range(len(parts) + 1):
                folder = "/".join(parts[:depth])
                if folder not in folders:
                    folders.add(folder)
                    tar.addfile(_entry(f"./{folder}", when, 0o755, tarfile.DIRTYPE))
            info = _entry(f"./{path}", when, 0o755 if path in programs else 0o644)
            info.size = len(files[path])
            tar.addfile(info, io.BytesIO(files[path]))
    return written.getvalue()


def _entry(path: str, when: int, mode: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.mtime = kind, mode, when
    info.uname = info.gname = "root"
    return info


def _ar(members: Mapping[str, bytes], when: int) -> bytes:
    """ar(5), as deb(5) has it: a line of sixty octets before each member, which has an even length."""
    parts = [b"!<arch>\n"]
    for name, octets in members.items():
        head = f"{name:16}{when:<12}{0:<6}{0:<6}{'100644':8}{len(octets):<10}`\n"
        parts += [head.encode("ascii"), octets, b"\n" * (len(octets) % 2)]
    return b"".join(parts)
