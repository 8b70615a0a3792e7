"""`AlignmentCallback` in a real run of the transformers `Trainer`."""

import numpy as np
import pytest
import torch

import platonic_ray as pr
from platonic_ray.errors import StudyError

pytest.importorskip("accelerate", reason="the Trainer of transformers needs accelerate")

INPUTS = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32))


@pytest.fixture(autouse=True)
def no_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder tests/datasets looks like the package of that name, where that is not installed."""
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        states = self.hidden(x)
        return {"loss": ((states.sum(1) - labels) ** 2).mean(), "states": states}


def trainer_of(folder, callback, **settings):  # type: ignore[no-untyped-def]
    from transformers import Trainer, TrainingArguments

    samples = [{"x": x, "labels": x.sum() * 3} for x in INPUTS]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=6,
        logging_steps=100,
        per_device_train_batch_size=8,
        learning_rate=0.1,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        use_cpu=True,
        **settings,
    )
    return Trainer(
        model=Network(), args=arguments, train_dataset=samples, eval_dataset=samples, callbacks=callback
    )


def features(model: Network) -> torch.Tensor:
    return model.hidden(INPUTS)


def test_alignment_is_logged_beside_the_loss_and_in_the_metrics_of_evaluations(tmp_path) -> None:
    scorer = pr.Scorer({"inputs": INPUTS}, metric=["mutual_knn", "cka"], k=5)
    callback = pr.AlignmentCallback(scorer, features, every=2)
    trainer = trainer_of(tmp_path, [callback], eval_strategy="steps", eval_steps=3)
    before = scorer.score(features(trainer.model)).log()
    trainer.train()
    logged = {
        entry["step"]: entry for entry in trainer.state.log_history if "alignment/mutual_knn/inputs" in entry
    }
    assert list(logged) == [2, 4, 6]
    after = scorer.score(features(trainer.model)).log()
    assert (
        logged[6]["alignment/cka/inputs"] == after["alignment/cka/inputs"] != before["alignment/cka/inputs"]
    )
    evaluated = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluated] == [3, 6]
    assert evaluated[-1]["eval_alignment/mutual_knn/inputs"] == after["alignment/mutual_knn/inputs"]
    assert trainer.evaluate()["eval_alignment/cka/inputs"] == after["alignment/cka/inputs"]
    assert callback.last is not None
    assert callback.last["inputs", "cka"].score == after["alignment/cka/inputs"]


def test_loggers_after_the_callback_are_given_the_scores(tmp_path) -> None:
    from transformers import TrainerCallback

    seen = []

    class Logger(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):  # type: ignore[no-untyped-def]
            seen.append(dict(logs))

    trainer = trainer_of(tmp_path, [Logger()])
    pr.AlignmentCallback(pr.Scorer({"inputs": INPUTS}, k=5), features, every=6).attach(trainer)
    trainer.train()
    assert [entry for entry in seen if "alignment/mutual_knn/inputs" in entry]


def test_a_step_below_one_is_refused() -> None:
    with pytest.raises(StudyError, match="at least 1"):
        pr.AlignmentCallback(pr.Scorer({"inputs": INPUTS}, k=5), features, every=0)
