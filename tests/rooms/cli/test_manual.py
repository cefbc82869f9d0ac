"""`murder help`: every page is there, as a file and as a topic, in README too, and its references lead somewhere."""

import json
import re
from pathlib import Path

import pytest

from murder.admin.manual.pages import TOPICS, page
from tests.kit.process import ROOT, run_murder
from tests.load.results import in_short

PAGES = Path(ROOT / "murder" / "admin" / "manual")


def test_every_page_is_a_topic_and_stands_in_readme() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == TOPICS.keys() - {"plugins"}
    named = re.findall(
        r"^\| \[(\w+)\]\(([\w/]+\.md)\)", (ROOT / "README.md").read_text("utf-8"), re.M
    )
    assert [name for name, _ in named] == list(TOPICS)
    for name, path in named:
        assert (ROOT / path).read_text("utf-8") == page(name)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_leads_to_pages_that_there_are(topic: str) -> None:
    text = page(topic)
    assert text.startswith("# ")
    assert not set(re.findall(r"`murder help (\w+)`", text)) - TOPICS.keys()


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 90


def test_readme_tells_costs_as_the_benchmarks_wrote_them() -> None:
    """A figure that somebody mends by hand in one place shows here."""
    begin, end = "<!-- costs -->\n", "<!-- end of costs -->"
    _, _, rest = (ROOT / "README.md").read_text("utf-8").partition(begin)
    shown = rest.partition(end)[0]
    assert shown == in_short(page("costs"))
    assert "| – | – | – | – |" not in shown


def test_the_program_prints_them(archive: Path) -> None:
    del archive  # it is what `run_murder` runs: the pages are in the one file
    assert [
        line.split()[2] for line in run_murder("help").stdout.splitlines()[: len(TOPICS)]
    ] == list(TOPICS)
    for topic in ("trouble", "plugins"):
        assert run_murder("help", topic).stdout.strip() == page(topic).strip()
    assert json.loads(run_murder("help", "keys", "--json").stdout) == {
        "topic": "keys",
        "text": page("keys"),
    }
    refused = run_murder("help", "truble", code=2).stderr
    assert "no page truble, did you mean trouble?" in refused
