"""`LightningAlignment` in real runs of Lightning's `Trainer`."""

import numpy as np
import pytest
import torch

import platonic_ray as pr
from platonic_ray.errors import StudyError

lightning = pytest.importorskip("lightning", reason="the extra [lightning]")

INPUTS = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32))


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(6, 4)

    def training_step(self, batch, index):  # type: ignore[no-untyped-def]
        return (self.hidden(batch).sum(1) - 3 * batch.sum(1)).square().mean()

    def validation_step(self, batch, index):  # type: ignore[no-untyped-def]
        self.log("val_loss", self.training_step(batch, index))

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        return torch.optim.SGD(self.parameters(), lr=0.05)


def test_scores_are_logged_at_steps_and_after_validations_and_can_be_monitored(tmp_path) -> None:
    scorer = pr.Scorer({"inputs": INPUTS.numpy()}, metric=["mutual_knn", "cka"], k=5)
    seen: list[int] = []

    def features(module: Module) -> torch.Tensor:
        seen.append(trainer.global_step)
        return module.hidden(INPUTS).detach()

    callback = pr.LightningAlignment(scorer, features, every=3)
    kept = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path, monitor="val_alignment/cka/inputs", mode="max"
    )
    trainer = lightning.Trainer(
        max_steps=10,
        accelerator="cpu",
        default_root_dir=tmp_path,
        callbacks=[callback, kept],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Module()
    batches = torch.utils.data.DataLoader(INPUTS, batch_size=8)
    trainer.fit(module, batches, torch.utils.data.DataLoader(INPUTS, batch_size=40))
    assert seen == [3, 5, 6, 9, 10]  # not in the check before the training; epochs of five steps
    logged = trainer.callback_metrics
    score = scorer.score(module.hidden(INPUTS).detach()).log()
    for name, value in score.items():
        assert float(logged[f"val_{name}"]) == pytest.approx(value)
    assert set(score) <= set(logged)
    assert kept.best_model_score == pytest.approx(
        max(float(kept.best_model_score), score["alignment/cka/inputs"])
    )
    assert callback.last is not None


def test_a_step_that_cannot_be_is_refused() -> None:
    scorer = pr.Scorer({"inputs": INPUTS.numpy()}, k=5)
    with pytest.raises(StudyError, match="at least 1 step"):
        pr.LightningAlignment(scorer, lambda module: INPUTS, every=0)
