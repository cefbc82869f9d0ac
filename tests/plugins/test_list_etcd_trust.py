"""What proves to etcd who a master is, while the master runs: logins that end, certificates that are renewed."""

import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from murder.api.contract.list_log import epoch_of
from murder.api.list_log import BEGINNING, Position, Record
from murder.errors import UpstreamFailure
from plugins.list_etcd.log import EtcdLog
from plugins.list_etcd.settings import Settings
from tests.kit.process import run_murder
from tests.kit.programs.etcd import Cluster
from tests.kit.waiting import until

USERS = ("user add root:secret", "user grant-role root root", "auth enable")


def one_more(after: Position) -> Record:
    seq = after.seq + 1
    return Record(after, [(b"n%d" % seq, seq.to_bytes(8, "big"))], Position(seq, b"%08d" % seq))


def test_a_login_that_ends_is_done_again_and_nothing_is_missed(tmp_path: Path) -> None:
    """etcd's signed tokens end at their time, however busy they are."""
    private, public = tmp_path / "token.key", tmp_path / "token.pub"
    for words in (
        ["genrsa", "-out", private, "2048"],
        ["rsa", "-in", private, "-pubout", "-out", public],
    ):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
    signed = f"jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=1s"
    with Cluster(tmp_path / "etcd", 1, ("--auth-token", signed)) as members:
        for command in USERS:
            members.ctl(*command.split())
        settings = Settings(members.endpoints, user="root", password="secret", timeout_s=10.0)
        writer, reader = EtcdLog(settings), EtcdLog(settings)
        epoch = epoch_of(writer)
        news = threading.Event()
        reader.listen(news.set)
        records = [one_more(BEGINNING)]
        logins: set[str] = set()

        def has_logged_in_thrice() -> bool:
            assert writer.append(epoch, records[-1])
            records.append(one_more(records[-1].position))
            logins.add(writer._there()._token)
            return len(logins) > 2

        until(has_logged_in_thrice, "logins end", every_s=0.1)
        done = records[:-1]
        assert list(reader.since(epoch, BEGINNING)) == done  # type: ignore[arg-type]
        news.clear()
        assert writer.append(epoch, records[-1])
        assert news.wait(30)  # by its watch, which outlives the login that it began with
        until(lambda: reader.is_last(epoch, records[-1].position), "the last one is there")
        writer.close()
        reader.close()


def test_certificates_of_another_authority_are_taken_up_without_a_restart(tmp_path: Path) -> None:
    used = {name: tmp_path / name for name in ("ca.pem", "m1.pem", "m1.key", "trusted.pem")}
    for authority in ("old", "new"):
        folder = tmp_path / authority
        run_murder("ca", "init", "--dir", folder)
        words = ("--role", "mupdate", "--dir", folder, "--address", "127.0.0.1")
        run_murder("ca", "issue", "m1.test", *words, "--out", folder)

    def take(authority: str) -> None:
        """As an operator would: files of the same names."""
        folder = tmp_path / authority
        shutil.copy(folder / "ca.pem", used["ca.pem"])
        shutil.copy(folder / "m1.test.pem", used["m1.pem"])
        shutil.copy(folder / "m1.test.key", used["m1.key"])

    # the members': their own copies, so that each side is renewed for itself
    def take_at_etcd(authority: str) -> None:
        folder = tmp_path / authority
        shutil.copy(folder / "ca.pem", used["trusted.pem"])
        shutil.copy(folder / "m1.test.pem", tmp_path / "etcd.pem")
        shutil.copy(folder / "m1.test.key", tmp_path / "etcd.key")

    take("old")
    take_at_etcd("old")
    own = ("--cert-file", str(tmp_path / "etcd.pem"), "--key-file", str(tmp_path / "etcd.key"))
    flags = (*own, "--client-cert-auth", "--trusted-ca-file", str(used["trusted.pem"]))
    members = Cluster(tmp_path / "etcd", 1, flags, scheme="https")
    shown = ("--cacert", str(used["ca.pem"]), "--cert", str(used["m1.pem"]))
    members.identify = (*shown, "--key", str(used["m1.key"]))
    with members:
        known = Settings(
            members.endpoints,
            ca=used["ca.pem"],
            certificate=used["m1.pem"],
            key=used["m1.key"],
            timeout_s=2.0,
        )
        log = EtcdLog(known)
        epoch = epoch_of(log)
        first = one_more(BEGINNING)
        assert log.append(epoch, first)
        member = members.members[0]
        member.stop()
        take_at_etcd("new")
        member.start().until_open("127.0.0.1", member.client_port)
        with pytest.raises(UpstreamFailure, match="certificate"):
            until(lambda: log.is_last(epoch, BEGINNING) is None, "it is told why")
        take("new")
        second = one_more(first.position)

        def is_done() -> bool:
            try:
                return log.append(epoch, second)
            except UpstreamFailure:
                return False

        until(is_done, "it goes on with the new ones")
        assert log.is_last(epoch, second.position)
        log.close()
