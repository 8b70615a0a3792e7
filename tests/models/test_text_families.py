"""Every family of language models: padding changes nothing, and every hidden state has its name.

Each is made from a tiny random configuration, saved as a hub's snapshot is, and loaded by that path.
The oracle is transformers itself, called text by text without any padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from model_samples import entry, side_by_side
from text_families import DEEP, FAMILIES, LETTERS, TEXTS, save_tokenizer

from platonic_ray.errors import StudyError, WeightsError
from platonic_ray.models import load, resolve


def _network(folder: Path) -> Any:
    network = transformers.AutoModel.from_pretrained(folder).eval()
    return network.get_encoder() if network.config.is_encoder_decoder else network


def _ids(folder: Path) -> list[list[int]]:
    ids = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"]
    assert list(map(len, ids)) == list(map(len, TEXTS))
    return ids


def _embed(folder: Path, **given: Any) -> tuple[list[str], list[np.ndarray]]:
    model = load(resolve(entry(kind="transformers-text", weights=str(folder), **given)))
    return [layer.name for layer in model.layers], model.embed(TEXTS).layers


REDUCE = {
    "mean": lambda state: state.mean(0),
    "last": lambda state: state[-1],
    "first": lambda state: state[0],
    "max": lambda state: state.max(0).values,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_side_by_side_give_the_bytes_of_one_after_the_other(family, saved_text) -> None:
    model = load(resolve(entry(kind="transformers-text", weights=str(saved_text(family)))))
    assert model._side_by_side
    alone, together = side_by_side(model, TEXTS)
    assert together == alone


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_alone_is_made_without_the_others_and_has_the_same_bytes(
    family, pooling, saved_text
) -> None:
    given = {"kind": "transformers-text", "weights": str(saved_text(family)), "pooling": pooling}
    everything, alone = (load(resolve(entry(**given, layers=layers))) for layers in ("all", (-1,)))
    asked = []
    for model in (everything, alone):
        model._network.register_forward_pre_hook(
            lambda _, __, arguments: asked.append(arguments["output_hidden_states"]), with_kwargs=True
        )
    wanted, got = everything.embed(TEXTS).layers, alone.embed(TEXTS).layers
    assert len(got) == 1
    assert got[0].tobytes() == wanted[-1].tobytes()
    assert set(asked[: len(asked) // 2]) == {True}
    assert set(asked[len(asked) // 2 :]) == {False}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch_is_the_text_alone_in_every_layer_and_pooling(family, saved_text) -> None:
    folder = saved_text(family)
    network, normed = _network(folder), FAMILIES[family][2]
    alone = []
    for ids in _ids(folder):
        with torch.inference_mode():
            output = network(input_ids=torch.tensor([ids]), output_hidden_states=True)
        alone.append([state[0] for state in output.hidden_states])
    for pooling, reduce in REDUCE.items():
        names, layers = _embed(folder, pooling=pooling)
        assert names == ["embedding", "block 1", "block 2" + (" + norm" if normed else "")]
        for layer, states in zip(layers, zip(*alone, strict=True), strict=True):
            wanted = torch.stack([reduce(state) for state in states]).numpy()
            np.testing.assert_allclose(layer, wanted, atol=2e-6 * max(1, np.abs(wanted).max()), rtol=0)


@pytest.mark.parametrize(
    "family",
    [
        *("llama", "mistral", "pythia", "olmo", "bloom", "gemma2", "gemma3", "qwen3", "gpt2", "opt"),
        *("bert", "modernbert", "t5"),
    ],
)
def test_features_are_those_of_a_batch_padded_on_the_left_whose_positions_are_counted(
    family, saved_text
) -> None:
    """What the library would give with padding on the left, done right; GPT-2 and BERT are wrong without."""
    folder = saved_text(family)
    ids = _ids(folder)
    longest = max(map(len, ids))
    padded = torch.tensor([[5] * (longest - len(one)) + one for one in ids])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in ids])
    more = {} if family in ("bloom", "t5") else {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    with torch.inference_mode():
        states = _network(folder)(
            input_ids=padded, attention_mask=mask, output_hidden_states=True, **more
        ).hidden_states
    _, layers = _embed(folder, pooling="last")
    for layer, state in zip(layers, states, strict=True):
        np.testing.assert_allclose(layer, state[:, -1].numpy(), atol=5e-6 * max(1, state.abs().max()))


def test_neither_the_tokenizers_side_nor_its_pad_token_changes_a_byte(saved_text, tmp_path) -> None:
    import shutil

    for family in ("gpt2", "roberta"):
        wanted = _embed(saved_text(family))[1]
        for side in ("left", "right"):
            folder = Path(shutil.copytree(saved_text(family), tmp_path / family / side))
            save_tokenizer(folder, pad=True, side=side)
            assert [layer.tobytes() for layer in _embed(folder)[1]] == [layer.tobytes() for layer in wanted]


def test_an_encoder_decoders_decoder_is_neither_needed_nor_loaded(saved_text, tmp_path) -> None:
    torch.manual_seed(3)
    whole = transformers.T5ForConditionalGeneration.from_pretrained(saved_text("t5"))
    alone = transformers.T5EncoderModel(whole.config)
    alone.load_state_dict(whole.state_dict(), strict=False)
    alone.save_pretrained(tmp_path)
    save_tokenizer(tmp_path, pad=True)
    for a, b in zip(_embed(tmp_path)[1], _embed(saved_text("t5"))[1], strict=True):
        assert a.tobytes() == b.tobytes()
    model = load(resolve(entry(kind="transformers-text", weights=str(saved_text("t5")))))
    assert not [name for name, _ in model._network.named_parameters() if "decoder" in name]


def test_clips_tower_of_texts_is_read_up_to_its_last_block(tmp_path) -> None:
    """CLIP gives its last state before the final norm, and its name must not say otherwise."""
    torch.manual_seed(6)
    words = {**DEEP, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    images = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=words, vision_config={**images, "image_size": 16})
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, pad=True)
    names, layers = _embed(tmp_path, pooling="last")
    assert names == ["embedding", "block 1", "block 2"]
    tower = transformers.CLIPTextModel.from_pretrained(tmp_path).eval()
    for row, ids in enumerate(_ids(tmp_path)):
        with torch.inference_mode():
            output = tower(input_ids=torch.tensor([ids]), output_hidden_states=True)
            normed = tower.final_layer_norm(output.hidden_states[-1])
        assert torch.equal(normed, output.last_hidden_state)
        for layer, state in zip(layers, output.hidden_states, strict=True):
            np.testing.assert_allclose(layer[row], state[0, -1].numpy(), atol=5e-6)


def test_pooler_is_one_layer_the_models_own(tmp_path) -> None:
    torch.manual_seed(4)
    bert = transformers.BertModel(transformers.BertConfig(**DEEP)).eval()
    bert.save_pretrained(tmp_path)
    save_tokenizer(tmp_path, pad=True)
    names, layers = _embed(tmp_path, pooling="pooler")
    assert names == ["pooler"]
    with torch.inference_mode():
        wanted = [bert(input_ids=torch.tensor([ids])).pooler_output[0].numpy() for ids in _ids(tmp_path)]
    np.testing.assert_allclose(layers[0], np.stack(wanted), atol=2e-6)


def test_a_pooler_that_is_not_there_or_was_not_trained_is_refused(saved_text) -> None:
    with pytest.raises(StudyError, match="has no pooler"):
        resolve(entry(kind="transformers-text", weights=str(saved_text("llama")), pooling="pooler"))
    with pytest.raises(WeightsError, match=r"weights are missing: pooler"):
        _embed(saved_text("bert"), pooling="pooler")  # saved with a head, without a pooler


def test_texts_are_cut_where_positions_end_also_where_they_do_not_start_at_zero(saved_text) -> None:
    """RoBERTa's first position is that after the padding's id, so it has fewer than its table has rows."""
    model = load(resolve(entry(kind="transformers-text", weights=str(saved_text("roberta")))))
    features = model.embed([LETTERS + LETTERS[:12], LETTERS + LETTERS[:13], LETTERS * 3])
    assert features.truncated == 2
    assert features.layers[-1][1].tobytes() == features.layers[-1][2].tobytes()
