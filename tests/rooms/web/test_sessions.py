"""How long a login lasts, and what may be done by it."""

from pathlib import Path

import pytest

from murder.admin.web.sessions import BY_CERTIFICATE, BY_PASSWORD, Sessions, acting
from murder.config import Config, NodeConfig
from murder.errors import Refusal

CONFIG = Config(file=Path("murder.toml"), node=NodeConfig(name="n.test", data=Path("data")))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_session_ends_by_silence_which_a_page_that_stands_open_does_not_break() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    token, session = sessions.begin("ana", BY_PASSWORD, "secret")
    for clock.now in (90.0, 180.0, 270.0):
        assert sessions.find(token, 100, 1000, is_active=True) is session
    clock.now = 360.0
    assert sessions.find(token, 100, 1000, is_active=False) is session  # it looks by itself
    clock.now = 371.0
    assert sessions.find(token, 100, 1000, is_active=False) is None
    assert session.password == "" and len(sessions) == 0


async def test_a_session_ends_at_its_time_however_busy_it_is() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    token, _ = sessions.begin("ana", BY_PASSWORD, "secret")
    for clock.now in range(0, 1000, 50):
        assert sessions.find(token, 100, 1000, is_active=True) is not None
    clock.now = 1001
    assert sessions.find(token, 100, 1000, is_active=True) is None
    sessions.begin("ana", BY_PASSWORD, "secret")
    clock.now = 1200
    sessions.sweep(100, 1000)
    assert len(sessions) == 0


async def test_each_acts_by_what_they_have_shown() -> None:
    sessions = Sessions(Clock())
    _, by_password = sessions.begin("ana", BY_PASSWORD, "secret")
    _, by_certificate = sessions.begin("op", BY_CERTIFICATE)
    shown = acting(CONFIG, by_password).operator
    assert (shown.certificate, shown.user, shown.password) == (None, "ana", "secret")
    assert "secret" not in repr(by_password)
    by_password.check_may_act(CONFIG)
    with pytest.raises(Refusal, match="no operator's certificate"):
        by_certificate.check_may_act(CONFIG)
