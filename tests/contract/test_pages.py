"""What the pages tell people to type is of this version."""

import re
from pathlib import Path

from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION

ROOT = Path(__file__).parents[2]
HEADER = re.compile(rf"{PROTOCOL_HEADER}:\s*(\d+)", re.IGNORECASE)


def test_requests_on_the_pages_name_this_version() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    named = [
        (page.name, int(version)) for page in pages for version in HEADER.findall(page.read_text(encoding="utf-8"))
    ]
    assert named, "no page shows a request: then this test has nothing to look at"
    assert [each for each in named if each[1] != PROTOCOL_VERSION] == []
