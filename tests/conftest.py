"""What every folder of tests uses: the archive, built once; the word for a test that cannot run here; tests that are
coroutines."""

import inspect
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest
import structlog

from murder.log import plain_log
from tests.kit import beside, memory, scene

ROOT = Path(__file__).parent.parent
IN_CI = os.environ.get("CI") == "true"

# Compiled modules are kept, whatever a container says: else each of the hundreds of processes that tests start compiles all
# of murder again, which is most of its work
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that runs the tests in the background has SIGINT ignored, and so would the programs that tests end with it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


ENGINE_TESTS = ("tests/rooms/mupdate", "tests/cyrus", "tests/ha", "tests/plugins/test_list_etcd.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "What the masters of the MUPDATE tests, and of those beside a real Cyrus, keep their lists in (tests.kit.engine)."
    parser.addoption("--engine", choices=("embedded", "etcd"), help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Before a test's module is imported. Where no test is named, those that an engine matters to."""
    memory.use_memory()
    # examples take what they take, and so does making them: a machine may be busy (Hypothesis has it so in CI)
    hypothesis.settings.register_profile(
        "unhurried",
        hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]),
    )
    hypothesis.settings.load_profile("unhurried")
    if engine := config.getoption("--engine"):
        os.environ["MURDER_TEST_ENGINE"] = engine
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args = [str(ROOT / name) for name in ENGINE_TESTS]


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist tests run in one process
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    return 0 if config.getoption("usepdb") else beside.processes()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.kit.handing_out import HandingOut

    return HandingOut(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One process alone runs them as they are written."""
    if is_one_of_several(config):
        units = beside.longest_first([item.nodeid for item in items])
        place = {unit: number for number, unit in enumerate(units)}
        items.sort(key=lambda item: place[beside.unit_of(item.nodeid)])


def is_one_of_several(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """What a test makes of this process's log ends with it: the short way writes past `capture_logs`, a level that the
    library's loggers are left at keeps warnings from the next one's `caplog`, and what writes their lines as ours writes
    them into the next one's output."""
    root = logging.getLogger()
    level, before = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    for handler in [handler for handler in root.handlers if handler not in before]:
        # pytest's own, of the phase that it is in now, stay
        if type(handler).__module__.startswith("murder."):
            root.removeHandler(handler)
    if plain_log.is_json:
        structlog.reset_defaults()
        plain_log.set_up(logging.INFO, False, {}, "")


@pytest.fixture(scope="session")
def archive(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dist/murder.pyz, made from the sources as they are now; from then on tests/kit/demo.py runs it."""

    def make() -> None:
        done = subprocess.run(
            [sys.executable, ROOT / "build.py"],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr

    base = tmp_path_factory.getbasetemp()
    beside.once(base.parent if is_one_of_several(pytestconfig) else base, "archive", make)
    os.environ["MURDER_ARCHIVE"] = str(ROOT / "dist" / "murder.pyz")
    return ROOT / "dist" / "murder.pyz"


def cannot_run(reason: str) -> NoReturn:
    """Skip the test on a developer's machine; in CI, where everything is to be installed, fail it."""
    if IN_CI:
        pytest.fail(f"{reason}; in CI every test must run")
    pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that is a coroutine runs on the event loop of production; `@pytest.mark.limit_s(240)` gives it more time."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    marker = pyfuncitem.get_closest_marker("limit_s")
    arguments = {
        name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters
    }
    scene.run(pyfuncitem.obj(**arguments), marker.args[0] if marker else scene.LIMIT_S)
    return True
