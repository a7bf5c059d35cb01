"""Try the package as it was installed, without extras, from outside the repository."""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import convexbn
from convexbn import ConvexBNClassifier, ConvexBNRegressor
from convexbn.datasets import make_teacher

folder = Path(convexbn.__file__).parent
assert "site-packages" in folder.parts, folder
assert version("convexbn") == convexbn.__version__
assert (folder / "py.typed").exists()
assert find_spec("torch") is None, "The environment is to have no extras."

X, y = make_teacher(40, 2, random_state=0)
optimum = ConvexBNRegressor(0.05).fit(X, y)
assert optimum.certificate_.scope == "global"
assert ConvexBNRegressor(tol=0.1).fit(X, y).score(X, y) > 0.5
labels = np.where(y > np.median(y), "high", "low")
assert ConvexBNClassifier(0.01).fit(X, labels).score(X, labels) > 0.8
message = None
try:
    optimum.network_.to_torch()
except ImportError as error:
    message = str(error)
assert message is not None
assert "pip install 'convexbn[torch]'" in message
print(f"convexbn {convexbn.__version__} in {folder}: works. {optimum.certificate_}")
