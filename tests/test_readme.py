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


def is_number(word):
    return re.fullmatch(r"\d+(\.\d+)?(e[+-]\d+)?", word) is not None


def examples():
    blocks = re.findall(r"```(python|text)\n(.*?)```", README.read_text(), flags=re.DOTALL)
    return [(code, output) for (kind, code), (_, output) in pairwise(blocks) if kind == "python"]


FIRST, *EXACT = examples()


def printed_by(code):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue().strip()


@pytest.mark.parametrize(("code", "output"), EXACT, ids=["proof"])
def test_example_prints_what_it_says(code, output):
    assert numbers_apart(printed_by(code)) == numbers_apart(output.strip())


@pytest.mark.filterwarnings("ignore:The last fit stopped:sklearn.exceptions.ConvergenceWarning")
def test_first_example_prints_what_it_says():
    """Up to what single precision, in which values are chosen, changes from processor to processor.

    So does whether the work of a self-tuned fit is enough for its `tol`. The network is the best of the three.
    """
    code, output = FIRST
    words, expected = (re.split(r"[\s,():]+", text) for text in (printed_by(code), output.strip()))
    assert [word for word in words if not is_number(word)] == [word for word in expected if not is_number(word)]
    assert [float(word) for word in words if is_number(word)] == pytest.approx(
        [float(word) for word in expected if is_number(word)], rel=0.03, abs=1e-4
    )
    ours, *peers = (float(word) for word in words if is_number(word))
    assert ours > max(peers)
