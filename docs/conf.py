"""Configuration of the documentation: ``make docs`` builds it, without a connection."""

import os
import re
import sys
from pathlib import Path

# The problems are small, and threads of linear algebra cost more than they save.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import convexbn  # noqa: E402

project = "convexbn"
author = "The convexbn developers"
copyright = f"2026, {author}"
version = release = convexbn.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "mathml",
    "measured",
]
exclude_patterns = ["_build", "_templates"]
nitpicky = True
default_role = "autolink"
suppress_warnings = ["config.cache"]

# The reference: signatures and numpydoc docstrings, with the examples that use an object.
templates_path = ["_templates"]
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"
autodoc_default_options = {
    "exclude-members": "get_metadata_routing, set_fit_request, set_partial_fit_request, set_predict_request, "
    "set_score_request, set_transform_request, set_inverse_transform_request",
}
numpydoc_show_class_members = False
# Every public class and function has a summary, all of its parameters and a runnable example. Methods have a sentence
# with shapes. Summaries begin beside the quotes (GL01) and may be nouns (SS05); parameters that are those of another
# object are listed together (PR04), and those of a class in an order of their own (PR03). What is returned has a name
# (RT02).
numpydoc_validation_checks = {"all", "ES01", "GL01", "PR03", "PR04", "RT02", "RT03", "SA01", "SS02", "SS05"}
numpydoc_validation_exclude = {
    r"\.[A-Z]\w+\.\w+$",
    r"\.(Status|Oracle|Search|Scope)$",
    r"\.Dask",  # whose parameters are those of the estimators in memory
    "PostActivationProblem",
    "DivergenceError",
}
# What a docstring sets in backticks may be a parameter, which is no object; names of the package have to exist.
nitpick_ignore_regex = [("py:obj", r"(?!convexbn).*"), ("py:class", r"numpy\..*")]

# The gallery: every file of examples/ is executed.
GROUPS = ("first_steps", "prediction", "theory", "gradient", "scale")
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",
    "subsection_order": [
        f"../examples/{group}" for group in ("first_steps", "prediction", "theory", "gradient", "scale")
    ],
    "within_subsection_order": "FileNameSortKey",
    "doc_module": ("convexbn",),
    "backreferences_dir": "api/examples",
    "reference_url": {"convexbn": None},
    "inspect_global_variables": False,
    "remove_config_comments": True,
    "show_memory": False,
    "parallel": 2,
    "capture_repr": (),
    "min_reported_time": 10_000,
    "abort_on_example_error": False,
}
plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = [("png", 120)]
plot_rcparams = {"figure.constrained_layout.use": True, "font.size": 10}
plot_apply_rcparams = True

# The pages.
html_theme = "pydata_sphinx_theme"
html_title = "convexbn"
html_static_path = ["_static"]
html_css_files = ["convexbn.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "convexbn"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "changelog": [], "citing": [], "benchmarks": []}
myst_heading_anchors = 3


def escape_bars(app, what, name, obj, options, lines):
    """Take vertical bars of a docstring for those of norms and absolute values, not for substitutions."""
    in_example = False
    for i, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        if not in_example and not line.lstrip().startswith(".. math::"):
            literals = re.split(r"(``.*?``|:math:`.*?`)", line)
            lines[i] = "".join(part if j % 2 else part.replace("|", r"\|") for j, part in enumerate(literals))


def setup(app):
    """Connect what is particular to this package."""
    app.connect("autodoc-process-docstring", escape_bars)
