"""What notebooks show: tables that are well formed, escaped, and say what the objects say."""

from xml.etree import ElementTree

import numpy as np
import pytest

from convexbn import BatchNormNetwork, Certificate, ConvexBNRegressor, Path, convexbn_path
from convexbn._utils.html import Tabulated, sparkline
from tests.networks import X, Y, convolutional, deep, dense

GATED = ConvexBNRegressor(0.05, activation="gated_relu", n_patterns=9, tol=1e-1).fit(X, Y).network_
PATH = convexbn_path(X, Y, n_weight_decays=4, tol=1e-1)
EMPTY = Path(np.zeros(0), (), (), ())


def table(shown):
    html = ElementTree.fromstring(shown._repr_html_())
    rows = {row[0].text: row[1].text for row in html.iter("tr")}
    return html, rows


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (
            Certificate(2.0, 1.9, "patterns", 1.0),
            {
                "objective": "2",
                "lower bound (patterns)": "1.9",
                "relative gap": "5.00e-02",
                "basis": "a dual point",
                "lower bound (global)": "1",
            },
        ),
        (
            PATH,
            {
                "weight decays": f"4, from {PATH.weight_decays[0]:.4g} to {PATH.weight_decays[-1]:.4g}",
                "neurons": f"from 0 to {len(PATH.networks[-1])}",
                "scopes": ", ".join(sorted({certificate.scope for certificate in PATH.certificates})),
            },
        ),
        (dense(BatchNormNetwork), {"inputs": "3 features", "neurons": "7", "outputs": "2"}),
        (convolutional(), {"inputs": "patches of 2 x 3 x 2", "neurons": "5"}),
        (GATED, {"inputs": "3 features", "neurons": str(len(GATED))}),
        (deep(), {"neurons": "7 + 5 + 4", "outputs": "2"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_rows_and_sparkline(shown, expected):
    html, rows = table(shown)
    assert rows.items() >= expected.items()
    assert html.find("caption").text == type(shown).__name__
    assert html.find(".//svg/title").text


def heights_of(shown):
    drawn = table(shown)[0].find(".//polyline").get("points").split()
    points = np.array([point.split(",") for point in drawn], dtype=float)
    return 30 - points[:, 1]


def test_sparklines_have_the_heights_of_the_values():
    network = dense(BatchNormNetwork)
    sizes = np.hypot(network.gamma, network.bias) * np.linalg.norm(network.output_weights, axis=1)
    for shown, values in ((PATH, PATH.objectives), (network, np.sort(sizes)[::-1]), (deep(), np.array([7, 5, 4]))):
        np.testing.assert_allclose(heights_of(shown), 28 * (values - values.min()) / np.ptp(values), atol=0.051)


def test_bars_have_the_widths_of_the_bounds():
    html, _ = table(Certificate(2.0, 1.9, "patterns", 1.0))
    widths = [float(rectangle.get("width")) for rectangle in html.findall(".//rect")]
    assert widths == [pytest.approx(0.95 * 156, abs=0.051), 78, 156]
    html, _ = table(Certificate(2.0, 1.9, "patterns", None))
    assert len({rectangle.get("width") for rectangle in html.findall(".//rect")}) == 2


@pytest.mark.parametrize(
    "shown", [EMPTY, BatchNormNetwork.at_initialization(X, 1, n_outputs=1), Certificate(0.0, 0.0, "global", 0.0)]
)
def test_little_to_show(shown):
    html, rows = table(shown)
    assert rows
    assert len(html.findall(".//svg")) == isinstance(shown, Certificate)


class Odd(Tabulated):
    def _summary(self):
        return ""

    def _rows(self):
        return {"<b>": "a & <script>"}

    def _picture(self):
        return "<i>", sparkline(np.arange(1000.0), "<i>")


def test_text_is_escaped_and_long_curves_are_thinned():
    html, rows = table(Odd())
    assert rows["<b>"] == "a & <script>"
    assert "<script>" not in Odd()._repr_html_()
    assert len(html.find(".//polyline").get("points").split()) == 200
    assert html.find(".//title").text == "<i>: from 0 to 999, at least 0, at most 999"
    assert sparkline([1.0, np.nan], "gap") == ""


def test_the_diagram_of_estimators_is_that_of_scikit_learn():
    assert "sk-" in ConvexBNRegressor()._repr_html_()
