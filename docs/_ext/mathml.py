"""Formulas as MathML, which browsers draw without a script and without a connection."""

from html import escape
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging


def convert(node: nodes.Element, **options: Any) -> str:
    """Return the MathML of a formula; one that cannot be converted is a warning, and stays as it is.

    Vertical bars are those of norms, which have no space of a relation around them.
    """
    try:
        return tex2mathml(node.astext(), **options).replace(">|</mo>", ' lspace="0" rspace="0">|</mo>')
    except MathError as error:
        logging.getLogger(__name__).warning("%s in %r", error, node.astext(), location=node, type="mathml")
        return f"<code>{escape(node.astext())}</code>"


def visit_inline(self: Any, node: nodes.math) -> None:
    """Write a formula in the text."""
    self.body.append(convert(node))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    """Write a formula of its own line."""
    self.body.append(f'<div class="math-block">{convert(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
