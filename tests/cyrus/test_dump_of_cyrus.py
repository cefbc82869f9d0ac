"""What `ctl_mboxlist -d` of a real Cyrus master writes, `murder ctl list load` reads: the way to us for a whole murder."""

import imaplib
import subprocess

from murder.roles.mupdate.database.transfer import read_rows
from tests.cyrus.conftest import ROOT, Lab
from tests.cyrus.our_nodes import rows_at

DUMP = (
    "LD_LIBRARY_PATH=$(echo {root}/pkg/usr/lib/*-linux-gnu) "
    "{root}/pkg/usr/lib/cyrus/bin/ctl_mboxlist -C {root}/mupdate/imapd.conf -d"
)


def test_a_dump_of_a_cyrus_master_is_its_list(cyrus: Lab) -> None:
    client = imaplib.IMAP4(cyrus.backends[0], timeout=20)
    client.login("cyrus", "secret")
    assert client.create('"user/user1/a b&AOQ-"')[0] == "OK"
    assert client.setacl("user/user1", "-user2", "l")[0] == "OK"
    client.logout()
    command = ["su", "cyrus", "-s", "/bin/bash", "-c", DUMP.format(root=ROOT)]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    read = {(row.name, row.raw_location, row.raw_acl) for row in read_rows(dumped.splitlines())}
    assert read == {row[1:] for row in rows_at(*cyrus.master)} and len(read) == 21
