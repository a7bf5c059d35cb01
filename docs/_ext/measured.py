"""The directive ``measured``: the targets, the picture, and where and when, of one file of benchmarks/results."""

import json
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
VERDICTS = {True: "yes", False: "no", None: ""}


def table(rows: list[tuple[str, ...]], widths: tuple[int, ...]) -> nodes.table:
    """Return a table whose first row is its head."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
    head, *body = [
        nodes.row("", *(nodes.entry("", nodes.paragraph("", text) if text else nodes.paragraph()) for text in row))
        for row in rows
    ]
    group += [nodes.thead("", head), nodes.tbody("", *body)]
    return nodes.table("", group, classes=["measured"])


class Measured(SphinxDirective):
    """The argument is the name of the result file; `alt` describes its picture, if it has one."""

    required_arguments = 1
    option_spec: ClassVar = {"alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Read the file; a run of ``--quick`` is refused."""
        path = RESULTS / f"{self.arguments[0]}.json"
        self.env.note_dependency(str(path))
        result = json.loads(path.read_text("utf-8"))
        if result["quick"]:
            raise self.error(f"{path.name} comes from a smoke run.")
        rows = [(row["statement"], row["figure"], VERDICTS[row["met"]]) for row in result["targets"]]
        where = result["environment"]
        shown: list[nodes.Node] = [
            table([("to show", "measured", "reached"), *rows], (45, 45, 10)),
            nodes.paragraph("", f"Measured on {where['cpu']}, {where['cores']} cores, {where['date'][:10]}."),
        ]
        if "alt" in self.options:
            image = nodes.image(uri=f"../benchmarks/results/{path.stem}.png", alt=self.options["alt"])
            shown.append(nodes.figure("", nodes.reference("", "", image, refuri=f"_images/{path.stem}.png")))
        return shown


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
