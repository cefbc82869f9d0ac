"""A user whose INBOX lies on a Cyrus, which asks no others, and a mailbox on a backend of ours: deleted through our
frontend, all of it, or nothing while one of the two is away. (Two Cyrus never have parts of one user: a child needs its
parent there.)"""

from pathlib import Path

from tests.cyrus.conftest import Lab
from tests.cyrus.our_roles import FRONTEND, logged_in, ok, our_backend, our_frontend
from tests.kit.waiting import until

ALL = ("user/user1", "user/user1/far", "user/user1/near")


def test_a_user_on_a_cyrus_and_on_ours_is_deleted_as_one_act(
    cyrus_parts: Lab, tmp_path: Path
) -> None:
    lab = cyrus_parts
    lab.run("gen")
    lab.run("start", "mupdate", "be1")
    admin = logged_in(lab.backends[0], "cyrus")
    ok(admin.create("user/user1"))
    ok(admin.create("user/user1/near"))
    admin.logout()
    ours = tmp_path / "be2", "be2", lab.backends[1], lab.master[0]
    with our_frontend(tmp_path / "fe", lab.master[0]):
        client = logged_in(FRONTEND, "cyrus")

        def there() -> list[str]:
            listed = client.ask('LIST "" "user/*"').replace('"', "").splitlines()
            return sorted(line.rsplit(" ", 1)[1] for line in listed if line.startswith("* LIST"))

        with our_backend(*ours):
            client.ask("CREATE user/user1/far be2.murder.test!default")
            assert there() == list(ALL)
            for name in ALL:
                client.ask(f"SETACL {name} cyrus lrswipkxtecda")
        assert "UNAVAILABLE" in client.attempt("DELETE user/user1")
        assert there() == list(ALL)
        with our_backend(*ours):
            until(lambda: "OK" in client.attempt("DELETE user/user1"), "be2 is back", every_s=0.5)
            assert there() == []
