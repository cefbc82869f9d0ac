"""A real Roundcube (Debian's) under PHP's own web server, and a person at it, in a real browser, who makes a filter."""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import cannot_run
from tests.kit.demo import wanted
from tests.kit.ports import free_port
from tests.kit.process import until_open
from tests.kit.programs.browser import PROGRAM, browsing

ROUNDCUBE = Path("/usr/share/roundcube")
DEFAULTS = Path("/etc/roundcube/defaults.inc.php")
PLUGIN = ROUNDCUBE / "plugins/managesieve/managesieve.php"
EDIT, FILTERS = "plugin.managesieve-action&_framed=1&_nav=hide", "plugin.managesieve"
DISCARD = """{ const one = document.querySelector("#action_type0"); one.value = "discard";
one.dispatchEvent(new Event("change", {bubbles: true})); }"""


def configured(folder: Path, imap: tuple[str, int], more: Mapping[str, Any]) -> Path:
    """A folder of its own, in place of /etc/roundcube, with more settings."""
    if shutil.which("php") is None or not DEFAULTS.exists():
        cannot_run("Roundcube (Debian: roundcube-core roundcube-sqlite3 php-cli) is not installed")
    place = folder / "roundcube"
    place.mkdir()
    shutil.copy(DEFAULTS, place)
    shutil.copy(DEFAULTS.with_name("mimetypes.php"), place)
    with sqlite3.connect(place / "db") as database:
        database.executescript((ROUNDCUBE / "SQL/sqlite.initial.sql").read_text())
    database.close()
    settings: dict[str, Any] = {
        "db_dsnw": f"sqlite:///{place / 'db'}?mode=0600",
        "imap_host": f"{imap[0]}:{imap[1]}",
        "des_key": "24 letters, and no more!",
        "log_dir": str(place),
        "temp_dir": str(place),
        "plugins": [],
        **more,
    }
    lines = [
        f"$config[{json.dumps(key)}] = {json.dumps(value)};" for key, value in settings.items()
    ]
    (place / "config.inc.php").write_text("<?php\n" + "\n".join(lines) + "\n")
    return place


@contextmanager
def webmail(place: Path) -> Iterator[str]:
    """Its address."""
    port = free_port()
    with (place / "web.log").open("wb") as log:
        running = subprocess.Popen(
            ["php", "-S", f"127.0.0.1:{port}", "-t", str(ROUNDCUBE)],
            env={
                "PATH": "/usr/bin:/bin",
                "ROUNDCUBE_CONFIG_DIR": str(place),
                "PHP_CLI_SERVER_WORKERS": "4",
            },
            stdout=log,
            stderr=log,
        )
        try:
            until_open("127.0.0.1", port)
            yield f"http://127.0.0.1:{port}/"
        finally:
            running.terminate()
            running.wait()


def make_a_filter(
    folder: Path,
    imap: tuple[str, int],
    sieve: tuple[str, int],
    user: str,
    password: str,
    picture: str,
) -> None:
    """By its plugin: what has [list] in its subject is thrown away."""
    if not PLUGIN.exists() or wanted(PROGRAM):
        cannot_run("Debian: roundcube-plugins, php-net-sieve, chromium are not installed")
    plugin = {"plugins": ["managesieve"], "managesieve_host": f"{sieve[0]}:{sieve[1]}"}
    place = configured(folder, imap, plugin)
    with webmail(place) as url, browsing() as browser:
        browser.size(1200)
        browser.go(url)
        browser.fill("#rcmloginuser", user)
        browser.fill("#rcmloginpwd", password)
        browser.press("#rcmloginsubmit")
        browser.go(f"{url}?_task=settings&_action={EDIT}")
        browser.fill("#_name", "Lists")
        browser.fill("[name='_rule_target[0][]']", "[list]")
        browser.run(DISCARD)
        browser.press(".formbuttons button")
        browser.go(f"{url}?_task=settings&_action={FILTERS}")
        assert browser.text("#filterslist").strip() == "Lists"
        file = Path(os.environ.get("MURDER_PICTURES", folder)) / f"roundcube-{picture}.png"
        browser.picture(file)
        assert file.stat().st_size > 10_000
