"""Settings that libraries read when they are imported."""

import os

# The problems are tiny, and the threads of two test processes would fight over the cores.

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
# Without it scikit-learn's estimator checks skip the one on array API input.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
