import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import make_scorer as scorer_of
from sklearn.metrics import max_error, mean_squared_error
from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut, StratifiedKFold

from convexbn import BatchNormDesign, ConvexBNClassifier
from convexbn.estimators._absent import constant_network, present_classes, with_absent, without_absent
from convexbn.estimators._folds import check_cv_parameter, make_folds
from convexbn.estimators._scoring import FoldScorer, make_scorer, takes_sample_weight

X = np.random.default_rng(0).standard_normal((12, 2))
LABELS = np.tile(["a", "a", "b"], 4)
PAIRS = list(KFold(3).split(X))


def folds_of(cv, y=LABELS, weights=1.0, classifier=True, **metadata):
    return make_folds(cv, X, y, classifier=classifier, sample_weight=weights * np.ones(12), metadata=metadata)


def assert_same(folds, expected):
    assert len(folds) == len(expected)
    for parts, expected_parts in zip(folds, expected, strict=True):
        for part, indices in zip(parts, expected_parts, strict=True):
            assert part.dtype.kind == "i"
            np.testing.assert_array_equal(part, indices)


@pytest.mark.parametrize(
    "cv",
    [
        KFold(3),
        PAIRS,
        tuple(PAIRS),
        np.array([(train, np.r_[test, test]) for train, test in PAIRS]),
        iter(PAIRS),
        KFold(3).split(X),
        (pair for pair in PAIRS),
        zip(*zip(*PAIRS, strict=True), strict=True),
        [(train.tolist(), tuple(test)) for train, test in PAIRS],
        [[pd.Series(train), pd.Index(test)] for train, test in PAIRS],
        [(np.isin(np.arange(12), train), np.isin(np.arange(12), test).tolist()) for train, test in PAIRS],
        [(train - 12, test.astype(np.uint8)) for train, test in PAIRS],
        [(slice(4, 12), slice(0, 4)), (np.r_[0:4, 8:12], slice(4, 8)), (slice(8), slice(8, None))],
    ],
)
def test_every_kind_of_cv_gives_indices(cv):
    folds = folds_of(cv)
    if isinstance(cv, np.ndarray):
        folds = [(train, test[:4]) for train, test in folds]
    assert_same(folds, PAIRS)


def test_numbers_of_folds_are_stratified_for_classifiers_alone():
    assert_same(folds_of(4), list(StratifiedKFold(4).split(X, LABELS)))
    assert_same(folds_of(None, np.arange(12.0), classifier=False), list(KFold(5).split(X)))
    assert_same(folds_of(3, np.arange(12) % 2, classifier=False), PAIRS)


def test_samples_of_weight_zero_are_in_no_fold():
    weights = np.arange(12) % 4 > 0
    assert_same(
        folds_of(PAIRS, weights=weights), [(train[weights[train]], test[weights[test]]) for train, test in PAIRS]
    )


@pytest.mark.parametrize("splitter", [GroupKFold(3), LeaveOneGroupOut()])
def test_groups(splitter):
    groups = np.arange(12) % 3
    assert_same(folds_of(splitter, groups=groups), list(splitter.split(X, LABELS, groups)))
    with pytest.raises(ValueError, match=r"needs the groups .* fit\(X, y, groups=groups\), or .*cv=list\(splitter"):
        folds_of(splitter)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        folds_of(splitter, groups=groups[:5])


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        ([], r"cv=\[\] gives no folds\.$"),
        (iter([]), r"gives no folds; it is an iterator, which can be read once: give list\(...\) of it"),
        ([np.arange(3)], "pairs"),
        ([(1, 2, 3)], r"pairs \(train, test\) of indices, but fold 0 is \(1, 2, 3\)"),
        ([*PAIRS, ([0, 12], [1])], "of the 12 samples, but the training samples of fold 3 are"),
        ([([0.0, 1.0], [1])], "the training samples of fold 0 are"),
        ([(["a", "b"], [1])], "the training samples of fold 0 are"),
        ([([0, 1], [True, False])], "the test samples of fold 0 are"),
        ([(0, [1])], "one list of indices"),
        ([([[0, 1], [2, 3]], [1])], "one list of indices"),
        ([([0, 1], [])], "no test sample of positive weight in fold 0"),
        ([([0, 0], [1])], "fewer than two training samples of positive weight in fold 0"),
        ([([0, 1, 11], [2]), ([1, 11], [2])], "fewer than two training samples of positive weight in fold 1"),
    ],
)
def test_bad_folds(cv, message):
    with pytest.raises(ValueError, match=message):
        folds_of(cv, weights=np.r_[np.ones(11), 0])


@pytest.mark.parametrize("cv", ["five", 1, 0, -3, 2.5, object()])
def test_bad_cv(cv):
    with pytest.raises(ValueError, match=r"cv|n_splits"):
        check_cv_parameter(cv)


def test_checking_reads_no_iterator():
    cv = iter(PAIRS)
    check_cv_parameter(cv)
    assert len(list(cv)) == 3


class Mean:
    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.full(len(X), X.mean())


def test_scorers_that_take_weights_are_told():
    assert takes_sample_weight(make_scorer(Mean(), None, "r2"))
    assert takes_sample_weight(scorer_of(mean_squared_error))
    assert takes_sample_weight(lambda model, X, y, sample_weight=None: 1.0)
    assert not takes_sample_weight(scorer_of(max_error))
    assert not takes_sample_weight(lambda model, X, y: 1.0)


def test_metadata_of_the_samples_are_cut_and_others_are_not():
    seen = []

    def score(model, X, y, **metadata):
        seen.append(metadata)
        return np.float32(len(X))

    scorer = FoldScorer(score, score, X.tolist(), list(LABELS), {"sample_weight": np.arange(12.0), "scale": 3})
    assert scorer(Mean(), np.array([2, 5])) == 2
    assert seen[0]["sample_weight"].tolist() == [2, 5]
    assert seen[0]["scale"] == 3


@pytest.mark.parametrize("value", [None, "0.5", [0.5, 0.5], {"a": 1.0}])
def test_scores_are_numbers(value):
    with pytest.raises(ValueError, match="scoring must return one number, got"):
        FoldScorer(None, lambda model, X, y: value, X, LABELS)(Mean(), np.arange(3))


def test_a_scoring_passes_if_it_scores_one_of_the_models():
    def only_large(model, X, y):
        if model < 2:
            raise RuntimeError("too small")
        return 1.0

    scorer = FoldScorer("only_large", only_large, X, LABELS)
    scorer.check([1, 2], PAIRS)
    with pytest.raises(
        ValueError, match=r"scoring='only_large' does not score fold 0 .*: RuntimeError: too small"
    ) as error:
        scorer.check([0, 1], PAIRS)
    assert isinstance(error.value.__cause__, RuntimeError)


@pytest.mark.parametrize("loss", ["log_loss", "cross_entropy"])
def test_networks_with_absent_classes_predict_as_those_without(loss):
    labels = np.array(["a", "b", "c"])[np.arange(12) % 3]
    model = ConvexBNClassifier(0.01, loss=loss, n_components=1, tol=1e-2)
    model.fit(X, labels)
    y = (labels[:, None] == model.classes_).astype(float)
    kept = labels != "b"
    present = present_classes(y[kept])
    assert present.tolist() == [True, False, True]
    partial, targets = without_absent(model, y[kept], present)
    assert partial.classes_.tolist() == ["a", "c"]
    plain = ConvexBNClassifier(0.01, loss=loss, n_components=1, tol=1e-2).fit(X[kept], labels[kept])
    assert targets.tolist() == plain._samples(X[kept], labels[kept], None)[1].tolist()
    model.network_ = with_absent(plain.network_, present)
    np.testing.assert_array_equal(model.predict(X), plain.predict(X))
    np.testing.assert_allclose(model.predict_proba(X)[:, [0, 2]], plain.predict_proba(X), rtol=1e-12)
    assert (model.predict_proba(X)[:, 1] == 0).all()
    assert np.isfinite(model.decision_function(X)).all()


@pytest.mark.parametrize(("loss", "n_outputs"), [("log_loss", 1), ("cross_entropy", 2)])
@pytest.mark.parametrize("only", ["a", "b"])
def test_one_class_is_always_chosen(loss, n_outputs, only):
    model = ConvexBNClassifier(0.01, loss=loss, n_components=1, tol=1e-2).fit(X, LABELS)
    design = BatchNormDesign(n_components=1).fit(X)
    model.network_ = constant_network(design, model.classes_ == only, n_outputs)
    assert (model.predict(X) == only).all()
    np.testing.assert_array_equal(model.predict_proba(X), np.tile(model.classes_ == only, (12, 1)))
    assert np.isfinite(model.decision_function(X)).all()
