"""Where a cluster has GPUs, models are pinned to theirs. (Imagined ones: Ray isolates them alike.)"""

from collections import Counter

import pytest
import ray
from support import changed, events_of, score_bytes

import platonic_ray as pr

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def two_gpus():
    """One machine, two imagined GPUs."""
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


def loads(study):
    return [event for event in events_of(study) if event["event"] == "model_loaded"]


def small(study, store, gpus, **run):
    """The small study of 100 samples, its cheapest model first, with so many GPUs for each."""
    models = [model.model_dump() | {"gpus": gpus} for model in reversed(study.models)]
    return changed(
        study.replace(
            models=models,
            metrics=[{"name": "mutual_knn", "k": 5}],
            null={"permutations": 0},
            dataset=study.dataset.model_dump() | {"samples": 100},
        ),
        store=str(store),
        **run,
    )


def test_each_model_sees_one_gpu_alone_and_small_ones_share_it_by_fractions(two_gpus, small_study, tmp_path):
    floors = [model.model_dump() for model in small_study.models[2:]]
    floors.append({**floors[0], "name": "tfidf-de", "view": "de"})
    study = small(small_study.replace(models=floors), tmp_path / "ray", 0.5, engine="ray")
    pr.align(study, quiet=True)
    first = {event["model"]: event["gpus"] for event in loads(study)}
    assert sorted(Counter(first.values()).items()) in ([("0", 1), ("1", 2)], [("0", 2), ("1", 1)])
    assert len({event["pid"] for event in loads(study)}) == 3


def test_the_longest_model_comes_first_and_one_process_takes_them_all(two_gpus, small_study, tmp_path):
    study = small(small_study, tmp_path / "ray", 2, engine="ray")
    distributed = pr.align(study, quiet=True)
    order = list(dict.fromkeys(event["model"] for event in loads(study)))
    assert sorted(order[:2]) == ["bert-de", "bert-en"]
    assert order[2:] == ["pixels", "tfidf"]
    assert len({event["pid"] for event in loads(study)}) == 1
    here = pr.align(changed(study, engine="local", store=str(tmp_path / "local")), quiet=True)
    assert score_bytes(distributed) == score_bytes(here)
