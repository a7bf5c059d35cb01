"""What has to agree when a version is published: version, citation, changelog, and the oldest supported versions."""

import re
import tomllib
from pathlib import Path

import convexbn

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def lower_bounds():
    """Name and oldest version of what the package and its tests need."""
    extras = PROJECT["optional-dependencies"]
    listed, wanted = list(PROJECT["dependencies"]), ["test", "torch"]
    while wanted:
        for requirement in extras[wanted.pop()]:
            own = re.fullmatch(r"convexbn\[(.*)\]", requirement)
            wanted += own[1].split(",") if own else []
            listed += [] if own else [requirement]
    return dict(re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", requirement).groups() for requirement in listed)


def test_oldest_versions_are_the_lower_bounds():
    lines = (ROOT / "constraints-min.txt").read_text("utf-8").splitlines()
    assert dict(line.split("==") for line in lines if not line.startswith("#")) == lower_bounds()


def test_citation_and_changelog_have_the_version():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    cited, day = (re.search(f"^{key}: (.*)$", citation, re.MULTILINE)[1] for key in ("version", "date-released"))
    heading = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)[1]
    if convexbn.__version__.endswith(".dev0"):
        assert heading == f"{convexbn.__version__.removesuffix('.dev0')} (unreleased)"
    else:
        assert (cited, heading) == (convexbn.__version__, f"{cited} ({day})")


def test_extras_that_messages_name_exist():
    sources = "".join(path.read_text("utf-8") for path in Path(convexbn.__file__).parent.rglob("*.py"))
    named = set(re.findall(r"convexbn\[([\w-]+)\]", sources))
    assert "torch" in named
    assert named <= set(PROJECT["optional-dependencies"])
