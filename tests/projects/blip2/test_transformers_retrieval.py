"""The first stage as transformers' BLIP-2: the same logits and cosines, there and back.

Tolerance: 1e-4 for numbers of order one, in fp32. transformers' norm behind the vision tower has
epsilon 1e-6, ours LAVIS's 1e-5, which is most of the difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lavis_lite import create_model, load_model
from lavis_lite.checkpoint.load_state import load_state
from lavis_lite.errors import CheckpointError, ConfigError
from lavis_lite.projects.blip2.huggingface_retrieval import (
    as_transformers,
    qformer_as_transformers,
    qformer_weights,
)
from lavis_lite.projects.blip2.qformer import QFormer

TEXTS = ["a red square above a cross", "two circles"]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def moved(model: Any) -> Any:
    """The model with weights that all matter."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def pair() -> tuple[Any, torch.Tensor]:
    model = moved(create_model("blip2_image_text_matching", "tiny"))
    return model, torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_transformers_gives_the_same_logits_and_cosines() -> None:
    model, image = pair()
    theirs = as_transformers(model)
    text = model.tokenize(TEXTS)
    given = {"pixel_values": image, "input_ids": text.ids, "attention_mask": text.mask}
    matched = theirs(**given, use_image_text_matching_head=True)
    samples = {"image": image, "text_input": TEXTS}
    torch.testing.assert_close(model(samples), matched.logits_per_image, **CLOSE)
    compared = theirs(**given, use_image_text_matching_head=False)
    cosines = model(samples, match_head="itc")[:, 0]
    torch.testing.assert_close(cosines, compared.logits_per_image.diagonal(), **CLOSE)


@torch.no_grad()
def test_a_folder_for_transformers_is_read_there_and_here(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, image = pair()
    model.save_transformers(tmp_path)
    theirs = transformers.Blip2ForImageTextRetrieval.from_pretrained(tmp_path).eval()
    text = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        TEXTS, padding=True, return_tensors="pt"
    )
    ids = model.tokenize(TEXTS).ids
    assert torch.equal(text["input_ids"], ids)
    matched = theirs(
        pixel_values=image,
        input_ids=ids,
        attention_mask=text["attention_mask"],
        use_image_text_matching_head=True,
    )
    again: Any = load_model(
        "blip2_image_text_matching", "tiny", is_eval=True, checkpoint=str(tmp_path)
    )
    samples = {"image": image, "text_input": TEXTS}
    torch.testing.assert_close(again(samples), matched.logits_per_image, **CLOSE)
    torch.testing.assert_close(again(samples), model(samples), rtol=1e-5, atol=1e-5)
    assert "no temperature and no head over words" in caplog.text


@torch.no_grad()
def test_a_q_former_of_transformers_gives_the_same_states_and_is_read() -> None:
    sizes = {"width": 16, "depth": 3, "num_heads": 2, "mlp_width": 24, "num_queries": 3}
    sizes |= {"encoder_width": 12, "max_length": 20}
    ours = moved(QFormer(**sizes, vocab_size=50))
    theirs = qformer_as_transformers(ours)
    tokens, ids = torch.randn(2, 5, 12), torch.randint(1, 50, (2, 6))
    alone = theirs(query_embeds=ours.queries(2), encoder_hidden_states=tokens).last_hidden_state
    torch.testing.assert_close(ours.query_states(tokens), alone, **CLOSE)
    text = ours.bert.embeddings.word_embeddings(ids)
    text = text + ours.bert.embeddings.position_embeddings.weight[: ids.shape[1]]
    both = theirs(
        query_embeds=torch.cat([ours.queries(2), text], dim=1),
        query_length=3,
        encoder_hidden_states=tokens,
    ).last_hidden_state
    read = ours.read_with_text(ours.project(tokens), (ids, torch.ones_like(ids)))
    torch.testing.assert_close(read, both[:, :3], **CLOSE)

    empty = QFormer(**sizes, vocab_size=50).eval()
    rest = {k: v for k, v in ours.state_dict().items() if not k.startswith("bert.encoder.")}
    load_state(empty, {**rest, **qformer_weights(theirs.state_dict())})
    torch.testing.assert_close(empty.query_states(tokens), ours.query_states(tokens))


def test_a_config_that_says_other_heads_or_no_texts_is_refused(tmp_path: Path) -> None:
    model, _ = pair()
    model.save_transformers(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for change, says in (
        ({"num_attention_heads": 8}, r"num_heads=8"),
        ({"use_qformer_text_input": False}, "of the second stage"),
    ):
        changed = {**config, "qformer_config": {**config["qformer_config"], **change}}
        path.write_text(json.dumps(changed))
        with pytest.raises(CheckpointError, match=says):
            load_model("blip2_image_text_matching", "tiny", checkpoint=str(tmp_path))


def test_a_tower_of_another_kind_cannot_be_written(tmp_path: Path) -> None:
    model: Any = create_model("blip2", "scenes")
    with pytest.raises(ConfigError, match="EVA"):
        model.save_transformers(tmp_path)
