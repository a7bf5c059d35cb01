"""The example of the README prints what the README says."""

import contextlib
import io
import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def numbers_apart(text):
    """Words and numbers of a text; numbers below 1e-7, which are rounding, as zero."""
    return [
        0.0 if re.fullmatch(r"\d\.\d+e-\d+", word) and float(word) < 1e-7 else word
        for word in re.split(r"[\s,]+", text)
    ]


def test_example_prints_what_it_says():
    blocks = re.findall(r"```(python|text)\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (_, code), (_, output) = blocks[:2]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert numbers_apart(printed.getvalue().strip()) == numbers_apart(output.strip())
