"""The regressor that chooses its weight decay by cross-validation."""

from dataclasses import dataclass

from convexbn.estimators._cross_validation import CrossValidated
from convexbn.estimators._regressor import Regression


@dataclass(kw_only=True, eq=False, repr=False)
class ConvexBNRegressorCV(Regression, CrossValidated):
    """Regression like `ConvexBNRegressor`, with weight decay and spectral power chosen by cross-validation.

    One grid of weight decays is made from all the data. The training samples of each fold are followed along it, from
    the largest down, by the fast preset of column generation, gated networks by `solver`. The values with the best mean
    score on the test folds are those of the last fit, on all the data. Of scores equal to a millionth of their range
    the one of the largest weight decay is chosen. `ConvexBNRegressor` does the same with folds, grid and score of its
    own, sooner, and on small data often a little better: this class is for folds, a grid or a score that are given.

    Parameters
    ----------
    weight_decays : array-like of shape (n_weight_decays,) or None, default=None
        The grid, in place of one made from `n_weight_decays` and `eps`.
    n_weight_decays : int, default=11
        Length of the grid, which is geometric and starts at the `weight_decay_max` of all the data.
    eps : float, default=1e-5
        Smallest weight decay of the grid as a fraction of the largest.
    normalization, activation, loss, fit_intercept, n_patterns, solver, tol, max_iter, prove
        As in `ConvexBNRegressor`; only the last fit is proved.
    standardize, scale_outputs : bool, default=True
        As in `ConvexBNRegressor`.
    max_time : float or None, default=None
        Seconds that `fit` may take, shared among the solves that are left; each ends with its best network so far. As
        in `ConvexBNRegressor` it lifts the limit on the work of the last fit.
    n_components : int, float, None or list of these, default=None
        Leading singular directions of X to keep, as in `ConvexBNRegressor`; of a list the best is chosen.
    spectral_power : float, "auto" or list of float, default="auto"
        Weight of small singular directions; of a list the best is chosen. "auto" means 0, 0.5 and 1, for weight
        normalization 0.
    cv : int, splitter, iterable of (train, test) or None, default=None
        Folds, as in `sklearn.model_selection.check_cv`; None means five. An iterator is read in `fit`, once. A
        splitter that needs groups gets those of `fit`.
    scoring : str, callable or None, default=None
        Scorer ``scorer(estimator, X, y)`` or its name; None takes R^2. It sees X and y as they were given, and gets
        ``sample_weight`` if weights differ and it takes them; else all samples count alike in the score.
    n_jobs : int or None, default=None
        Folds that are worked on at the same time; -1 takes all cores.
    device : str or None, default=None
        As in `ConvexBNRegressor`; held-out scores are taken of NumPy arrays.
    random_state : int, RandomState, Generator or None, default=0
        Seed of the solver's random starts and of sampled patterns; None draws another every time.
    checkpoint : path or None, default=None
        File, npz without pickle, that holds the scores along the paths that are completed, then the choice and the last
        completed round of the last fit, as in `ConvexBNRegressor`. After the process was killed the same `fit` goes on
        from it and ends in the same network; with other data, folds or parameters it is refused. A `scoring` that is a
        function counts by its name. Where folds are worked on at the same time, those of one batch are kept together.
    callback : callable or None, default=None
        Called with a `convexbn.solvers.Progress` for every network along a path, once the path is completed, by one
        process whatever `n_jobs` is; the gap of the fast preset is NaN. A true value ends the comparison: of the folds
        that were scored for the first values of `n_components` and `spectral_power`, and of the values that were scored
        on them all, the best is chosen. Then called after every iteration of the last fit, where the solver has
        iterations of its own; a true value ends it with the best network so far.
    verbose : int, default=False
        Verbosity of joblib, and whether the solver prints its progress in the last fit.

    Attributes
    ----------
    weight_decay_ : float
        The weight decay that was chosen.
    output_scales_ : ndarray of shape (C,)
        What the targets were divided by in the last fit, as in `ConvexBNRegressor`.
    spectral_power_ : float
        The choice of `spectral_power`.
    n_components_ : int, float or None
        The choice of `n_components`.
    weight_decays_ : ndarray of shape (n_weight_decays,)
        The grid, falling.
    scores_ : ndarray of shape (n_choices, n_weight_decays, n_folds)
        Score on each test fold for each choice of `n_components` and `spectral_power`, in this order, and each
        weight decay; NaN where `callback` ended the comparison before.
    best_score_ : float
        Mean score of the choice.
    validation_scores_ : dict of ndarray
        The scores of the chosen `n_components` as columns of a table, as in `ConvexBNRegressor`.
        `convexbn.plotting.ValidationDisplay` draws it.
    network_ : BatchNormNetwork, WeightNormNetwork or GatedNetwork
        The network trained on all the data.
    certificate_ : Certificate
        Its objective, lower bound, and what the bound covers; print it.
    n_iter_ : int
        Iterations of the solver in the last fit.
    n_features_in_ : int
        Features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where X has names that are all strings.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from convexbn import ConvexBNRegressorCV
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = ConvexBNRegressorCV(n_weight_decays=4, eps=0.01, n_components=1, cv=3, tol=1e-2).fit(X[:40], y[:40])
    >>> model.weight_decay_ in model.weight_decays_, model.scores_.shape
    (True, (3, 4, 3))
    """

    _default_scoring = "r2"
