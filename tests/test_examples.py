"""The quick lessons run from top to bottom, and their pictures show something; `make docs` runs all of them."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

QUICK = ("first_steps/plot_first_fit", "gradient/plot_gdnp", "prediction/plot_self_tuning")
EXAMPLES = [Path(__file__).parents[1] / "examples" / f"{name}.py" for name in QUICK]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path, monkeypatch, pictures, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), str(tmp_path / "picture.png")])
    runpy.run_path(str(path), run_name="__main__")
    assert "Picture: " in capsys.readouterr().out
    drawn = [ax for ax in pictures["picture.png"].axes if ax.axison]
    assert drawn
    for ax in drawn:
        assert ax.lines or ax.images or ax.patches or ax.collections
        assert ax.get_xlabel() or ax.get_ylabel() or ax.get_title()
        assert all(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in ax.lines)
