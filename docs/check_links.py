"""Check the built pages: every internal link leads somewhere, and every picture says what it shows.

Run with ``python docs/check_links.py docs/_build/html``; nothing is looked up online.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Links, targets and pictures of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: set[str] = set()
        self.targets: set[str] = set()
        self.silent: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag links to, is a target of, or shows."""
        found = dict(attrs)
        self.targets |= {found[name] for name in ("id", "name") if found.get(name)}
        self.links |= {found[name] for name in ("href", "src") if found.get(name)}
        if tag == "img" and "alt" not in found:
            self.silent.append(found.get("src") or "?")


def faults(root: Path) -> list[str]:
    """Broken links and pictures without a description, one a line."""
    pages = {path: Page(path) for path in sorted(root.rglob("*.html")) if "_static" not in path.parts}
    found = []
    for path, page in pages.items():
        here = path.relative_to(root)
        found += [f"{here}: the picture {source} has no alt text" for source in page.silent]
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                found.append(f"{here}: {link} leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].targets:
                found.append(f"{here}: {link} has no such place")
    return found


if __name__ == "__main__":
    complaints = faults(Path(sys.argv[1]).resolve())
    print("\n".join(complaints) or "Every internal link leads somewhere, and every picture has an alt text.")
    sys.exit(bool(complaints))
