"""The documentation lists everything that is public, and its check of links finds what is broken."""

import importlib
import pkgutil
import re
import runpy
from pathlib import Path

import convexbn

DOCS = Path(__file__).parents[1] / "docs"


def public_names():
    """Names that public folders export, and what is public in modules of one file."""
    for module in pkgutil.walk_packages(convexbn.__path__, "convexbn."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            found = importlib.import_module(module.name)
            own = (name for name, value in vars(found).items() if getattr(value, "__module__", None) == module.name)
            yield from (name for name in getattr(found, "__all__", own) if not name.startswith("_"))
    yield from convexbn.__all__


def test_every_public_name_is_in_the_reference():
    pages = "\n".join(path.read_text("utf-8") for path in (DOCS / "api").glob("*.rst"))
    listed = set(
        re.findall(r"^   (\w+)$|^\.\. py:data:: (\w+)$|^\.\. automodule:: [\w.]*\.(\w+)$", pages, re.MULTILINE)
    )
    listed = {name for groups in listed for name in groups if name}
    assert set(public_names()) - listed == set()


def test_broken_links_and_silent_pictures_are_found(tmp_path):
    faults = runpy.run_path(str(DOCS / "check_links.py"))["faults"]
    (tmp_path / "a.html").write_text('<h1 id="top">A</h1><a href="b.html#there">b</a><a href="https://x.org/y">x</a>')
    (tmp_path / "b.html").write_text('<p id="there">B</p><a href="a.html">a</a><img src="a.html" alt="">')
    assert faults(tmp_path) == []
    (tmp_path / "b.html").write_text('<a href="c.html">c</a><img src="a.html"><a href="a.html#bottom">a</a>')
    assert faults(tmp_path) == [
        "a.html: b.html#there has no such place",
        "b.html: the picture a.html has no alt text",
        "b.html: a.html#bottom has no such place",
        "b.html: c.html leads nowhere",
    ]
