"""The examples of the README print what the README says."""

import contextlib
import io
import re
from itertools import pairwise
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def numbers_apart(text):
    """Words and numbers of a text; numbers below 1e-7, which are rounding, as zero."""
    return [
        0.0 if re.fullmatch(r"\d\.\d+e-\d+", word) and float(word) < 1e-7 else word
        for word in re.split(r"[\s,]+", text)
    ]


def examples():
    blocks = re.findall(r"```(python|text)\n(.*?)```", README.read_text(), flags=re.DOTALL)
    return [(code, output) for (kind, code), (_, output) in pairwise(blocks) if kind == "python"]


@pytest.mark.parametrize(("code", "output"), examples(), ids=["tabular", "images", "gradient"])
def test_example_prints_what_it_says(code, output):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert numbers_apart(printed.getvalue().strip()) == numbers_apart(output.strip())
