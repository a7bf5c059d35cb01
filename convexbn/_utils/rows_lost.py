"""The error of a fit whose rows are lost."""

from typing import Any

_MESSAGE = (
    "Rows on the dask cluster are lost with the worker that held them, or with the cluster, and dask cannot compute "
    "them again. Give it collections that it can, such as those of files, and none of scattered data; or more memory, "
    "if that was short. The best network so far, if there is one, is the attribute `best` of this error."
)


class RowsLostError(RuntimeError):
    """Rows on a dask cluster were lost, and could not be computed again.

    Attributes
    ----------
    best : network, Neurons or None
        The best network before: of an estimator as `network_` is, of a solver as its neurons; None if there was none.

    Examples
    --------
    >>> from convexbn.dask import RowsLostError
    >>> RowsLostError().best is None
    True
    """

    def __init__(self) -> None:
        super().__init__(_MESSAGE)
        self.best: Any = None
