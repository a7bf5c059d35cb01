"""The floating-point flag of an invalid operation, which BLAS raises in single precision now and then for no reason."""

from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import DTypeLike

_SINGLE = np.dtype(np.float32)


def false_flags_ignored(dtype: DTypeLike) -> AbstractContextManager[object]:
    """A context in which NumPy does not warn of invalid operations if products are in single precision.

    The product of a matrix of five columns with a vector raises the flag by what lies on the stack, though all numbers
    are finite and the result is right (OpenBLAS 0.3.31 with AVX-512). In double precision the flag means something.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn._utils.invalid_flag import false_flags_ignored
    >>> with false_flags_ignored(np.float32):
    ...     np.float32(np.inf) - np.float32(np.inf)
    np.float32(nan)
    """
    return np.errstate(invalid="ignore") if dtype == _SINGLE else nullcontext()
