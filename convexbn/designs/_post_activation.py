"""What batch normalization after the ReLU does to data: whitened rows with a constant, in which it is the same problem.

The network is invariant to invertible linear maps of the data, so whitening is for the solvers alone.
"""

from convexbn.designs._batch_norm import BatchNormDesign
from convexbn.designs._design import Design


class PostActivationBatchNormDesign(BatchNormDesign):
    """Whitened data: the design matrix of a layer that is batch-normalized after its ReLU.

    The rows are those of `BatchNormDesign`, a constant column included, which holds the bias of the hidden layer. The
    network and its penalty do not change under invertible linear maps of the data, so there are no spectral powers, and
    only which directions are left out depends on the parameters.

    Parameters
    ----------
    n_components : int, float or None, default=None
        As in `BatchNormDesign`.
    rtol : float, default=1e-4
        As in `BatchNormDesign`.

    References
    ----------
    .. [1] Ergen et al., "Demystifying Batch Normalization in ReLU Networks", arXiv 2103.01499.

    Examples
    --------
    >>> import numpy as np
    >>> from convexbn import PostActivationBatchNormDesign
    >>> X = np.random.default_rng(0).standard_normal((6, 2))
    >>> PostActivationBatchNormDesign().fit_transform(X).shape
    (6, 3)
    """

    after_relu, whitens = True, False
    _matrix_of_source = Design._matrix_of_source

    def __init__(self, n_components: int | float | None = None, rtol: float = 1e-4):
        super().__init__(n_components, rtol)
