import pickle

import pytest
import torch

from platonic_ray.errors import StudyError
from platonic_ray.metrics import PairSums, flag_zero_rows, get_metric, metrics
from platonic_ray.study import MetricEntry


def test_every_metric_declares_itself_and_is_found_by_its_name() -> None:
    names = [metric.name for metric in metrics()]
    assert len(set(names)) == len(names)
    for metric in metrics():
        assert get_metric(metric.name) == metric
        assert metric.bounds[0] < metric.bounds[1]
        assert metric.description
        assert metric.cost
        distances = ("angular_procrustes", "information_imbalance")
        assert metric.direction == ("distance" if metric.name in distances else "similarity")


def test_metrics_cross_from_process_to_process() -> None:
    for metric in metrics():
        assert pickle.loads(pickle.dumps(metric)) == metric
        assert hash(metric) == hash(get_metric(metric.name))


def test_options_come_from_the_study_and_from_the_call() -> None:
    assert get_metric(MetricEntry(name="mutual_knn", options={"k": 3})).k == 3
    assert get_metric("mutual_knn", k=4).label == "mutual_knn(k=4)"
    assert get_metric(get_metric("mutual_knn"), k=5).key == {"name": "mutual_knn", "options": {"k": 5}}
    assert get_metric("cka").label == "cka(kernel=linear, precision=float32)"


def test_an_unknown_metric_is_refused_with_the_closest_name() -> None:
    with pytest.raises(
        StudyError,
        match=r"'mutual_nn'. Did you mean 'mutual_knn'\? Known: angular_.*cycle_knn",
    ):
        get_metric("mutual_nn")


def test_an_unknown_option_is_refused_with_those_there_are() -> None:
    with pytest.raises(StudyError, match="no option 'n'; its options: k"):
        get_metric("mutual_knn", n=3)
    with pytest.raises(StudyError, match="its options: kernel, median, precision, sigma"):
        get_metric("cka", k=3)


@pytest.mark.parametrize("k", [0, -1, 2.5, "10", True, None])
def test_a_k_that_is_no_positive_whole_number_is_refused(k: object) -> None:
    with pytest.raises(StudyError, match="whole number"):
        get_metric("mutual_knn", k=k)


def test_too_few_samples_are_refused_before_any_work() -> None:
    with pytest.raises(StudyError, match="k ≤ 9"):
        get_metric("mutual_knn", k=10).check(10)
    get_metric("mutual_knn", k=10).check(11)
    with pytest.raises(StudyError, match="at least 4 samples; there are 3"):
        get_metric("unbiased_cka").check(3)
    get_metric("unbiased_cka").check(4)


def test_chance_is_known_where_it_is() -> None:
    assert get_metric("mutual_knn", k=10).chance(101) == 0.1
    assert get_metric("unbiased_cka").chance(50) == 0
    assert get_metric("cka").chance(50) is None


def test_scoring_without_the_needed_sums_is_a_bug_with_a_name() -> None:
    with pytest.raises(ValueError, match="rank_knn needs joint"):
        get_metric("rank_knn").score(PairSums(5))
    with pytest.raises(ValueError, match="cka needs x, y"):
        get_metric("cka").score(PairSums(5, inner=torch.zeros(1, 1)))


def test_zero_rows_are_added_to_the_status_of_their_layers() -> None:
    status = flag_zero_rows([[None, "x: bad"], [None, None]], [2, 0], [0, 1])
    assert status == [
        ["zero rows: 2 in x, 0 in y", "x: bad; zero rows: 2 in x, 1 in y"],
        [None, "zero rows: 0 in x, 1 in y"],
    ]
