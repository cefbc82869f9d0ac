"""A browser: Debian's Chromium without a screen, driven by the DevTools protocol over a pair of pipes."""

import base64
import contextlib
import itertools
import json
import os
import select
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = "chromium"
ANSWER_S: Final = 60.0
COMMANDS, ANSWERS = 3, 4  # descriptors of --remote-debugging-pipe
FLAGS: Final = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--window-size=1280,900",
)

Json = dict[str, Any]


class Browser:
    """One tab. What a page says in its console, or would have loaded and may not, is in `complaints`."""

    def __init__(self, process: "subprocess.Popen[bytes]", sending: int, receiving: int) -> None:
        self.complaints: list[str] = []
        self._process, self._sending, self._receiving = process, sending, receiving
        self._numbers = itertools.count(1)
        self._held = b""
        self._events: list[Json] = []
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Security.setIgnoreCertificateErrors", ignore=True)  # a demo's own authority

    # --- the protocol

    def call(self, method: str, **params: Any) -> Json:
        """One command, and its result."""
        number = next(self._numbers)
        asked: Json = {"id": number, "method": method, "params": params}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._sending, json.dumps(asked).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_S
        while True:
            told = self._message(deadline)
            if told.get("id") == number:
                assert "error" not in told, f"{method}: {told['error']}"
                return dict(told["result"])
            self._note(told)

    def _message(self, deadline: float) -> Json:
        readable = select.poll()  # select() takes no descriptor above 1,023
        readable.register(self._receiving, select.POLLIN)
        while b"\0" not in self._held:
            left = max(0.0, deadline - time.monotonic())
            assert readable.poll(left * 1000), "the browser does not answer"
            octets = os.read(self._receiving, 1 << 20)
            assert octets, "the browser has gone"
            self._held += octets
        message, _, self._held = self._held.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, told: Json) -> None:
        self._events.append(told)
        params = told.get("params", {})
        if told.get("method") == "Log.entryAdded" and params["entry"]["source"] != "network":
            self.complaints.append(str(params["entry"]["text"]))
        if told.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))

    def _loaded(self) -> None:
        """Wait for a new page, and for all of it: the load of the one before may still be told."""
        deadline = time.monotonic() + ANSWER_S
        for method in ("Page.frameNavigated", "Page.loadEventFired"):
            while not any(one.get("method") == method for one in self._events):
                self._note(self._message(deadline))
            at = next(i for i, one in enumerate(self._events) if one.get("method") == method)
            del self._events[: at + 1]

    # --- what a person does

    def size(self, width: int, height: int = 900) -> None:
        """Of the window."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def go(self, url: str) -> None:
        """Load it."""
        self._events.clear()
        self.call("Page.navigate", url=url)
        self._loaded()

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        told = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def text(self, selector: str = "main") -> str:
        """What is shown there."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def fill(self, selector: str, value: str) -> None:
        """Type into a field."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.run(f"document.querySelector({json.dumps(selector)}).value = ''")
        self.call("Input.insertText", text=value)

    def press(self, selector: str) -> None:
        """Click what leads to another page, and wait for it."""
        self._events.clear()
        self.run(f"document.querySelector({json.dumps(selector)}).click()")
        self._loaded()

    def key(self, key: str) -> None:
        """One key, as from the keyboard."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        facts: Json = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **facts)
        self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def press_key(self, key: str) -> None:
        """A key that leads to another page."""
        self._events.clear()
        self.key(key)
        self._loaded()

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        told = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(told["data"]))


# Which of its certificates a browser shows is asked in a dialogue, which nobody sees without a screen: a policy says all.
# Policies are files of the machine: the browser sees some of its own in their place.
POLICIES: Final = Path("/etc/chromium/policies")
SHOWS_ITS_OWN: Final = {"AutoSelectCertificateForUrls": ['{"pattern":"*","filter":{}}']}


@contextlib.contextmanager
def browsing(certificate: Path | None = None) -> Iterator[Browser]:
    """A browser with nothing remembered, ended in the end; with this `certificate`, its key beside it, which it shows to who
    asks (for root alone)."""
    commands, answers = os.pipe(), os.pipe()

    def connect() -> None:
        ours = os.dup(commands[0]), os.dup(answers[1])  # 3 and 4 may be in use by the pipes
        high = os.dup(ours[0]), os.dup(ours[1])
        os.dup2(high[0], COMMANDS)
        os.dup2(high[1], ANSWERS)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        within = () if certificate is None else imported(certificate, Path(home))
        process = subprocess.Popen(
            [*within, PROGRAM, *FLAGS, f"--user-data-dir={home}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=connect,
            pass_fds=(COMMANDS, ANSWERS),
            env={**os.environ, "HOME": home},
        )
        os.close(commands[0])
        os.close(answers[1])
        try:
            yield Browser(process, commands[1], answers[0])
        finally:
            os.close(commands[1])
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(answers[0])


def imported(certificate: Path, home: Path) -> tuple[str, ...]:
    """Put a certificate where a browser of that home finds it; in front of its command: what makes it show that."""
    both, database = home / "operator.p12", home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    key = certificate.with_suffix(".key")
    policies = home / "policies"
    (policies / "managed").mkdir(parents=True)
    (policies / "managed" / "certificates.json").write_text(json.dumps(SHOWS_ITS_OWN))
    for words in (
        f"openssl pkcs12 -export -in {certificate} -inkey {key} -out {both} -passout pass:",
        f"certutil -N --empty-password -d sql:{database}",
        f"pk12util -i {both} -W '' -d sql:{database}",
    ):
        subprocess.run(shlex.split(words), check=True, capture_output=True)
    newer = home / ".local" / "share" / "pki"  # where later versions look
    newer.mkdir(parents=True)
    (newer / "nssdb").symlink_to(database)
    POLICIES.mkdir(parents=True, exist_ok=True)
    mount = f'mount --bind {policies} {POLICIES} && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", mount, "sh")
