"""Classes of an image with its text: with and without distillation from a momentum copy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lavis_lite import create_model
from lavis_lite.losses.shared import Shared

TEXTS = ["a cross", "there are two small blue circles above a triangle", "nothing", "a star"]


def samples(count: int = 4, **extra: Any) -> dict[str, Any]:
    image = torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    texts = [TEXTS[i % 4] for i in range(count)]
    return {"image": image, "text_input": texts, "label": torch.arange(count) % 3, **extra}


def strong(**overrides: Any) -> Any:
    torch.manual_seed(0)
    model = create_model("blip_classification", "tiny", **overrides)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    model.reset_momentum()
    return model.eval()


def test_the_class_is_read_from_the_text_that_has_looked_at_the_image() -> None:
    model, batch = strong(), samples()
    with torch.no_grad():
        text = model.tokenizer.encode(TEXTS[1:2], 40).replace_first(model.tokenizer.enc_id)
        kv = model.text_encoder.project(model.visual_encoder(batch["image"][1:2]))
        states = model.text_encoder(text.ids, mode="multimodal", image_kv=kv)
        head = model.cls_head
        expected = head[2](torch.relu(head[0](states[0, 0])))
    found = model.predict(batch)
    assert found["predictions"].shape == (4, 3)
    torch.testing.assert_close(found["predictions"][1], expected, atol=1e-5, rtol=0)
    assert found["targets"].equal(batch["label"])
    assert (found["predictions"][0] - found["predictions"][1]).abs().max() > 1e-3


def test_a_prediction_does_not_depend_on_batch_or_mode() -> None:
    model, batch = strong(text={"dropout": 0.5}).train(), samples(8)
    together = model.predict(batch)["predictions"]
    for row in range(8):
        alone = {key: value[row : row + 1] for key, value in batch.items()}
        torch.testing.assert_close(
            model.predict(alone)["predictions"][0], together[row], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("use_distill", [False, True])
def test_it_trains_with_and_without_distillation(use_distill: bool) -> None:
    model, batch = strong(use_distill=use_distill).train(), samples(progress=1.0)
    copies = {key for key, p in model.named_parameters() if not p.requires_grad}
    assert bool(copies) == use_distill
    assert all("_m." in key for key in copies)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(batch).loss_classification
        loss.backward()
        missing = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(("progress", "alpha"), [(0.0, 0.0), (0.05, 0.2), (0.1, 0.4), (1.0, 0.4)])
def test_the_copy_s_opinion_grows_to_its_share(progress: float, alpha: float) -> None:
    model, batch = strong(), samples(progress=progress)
    with torch.no_grad():
        model.cls_head_m[2].bias.copy_(torch.tensor([3.0, 0.0, 0.0]))
        logits = model.predict(batch)["predictions"]
        opinion = Shared(model, batch).momentum.class_logits.softmax(1)
        loss = model(batch).loss
    true = F.cross_entropy(logits, batch["label"])
    soft = F.cross_entropy(logits, opinion)
    expected = (1 - alpha) * true + alpha * soft
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_without_distillation_the_loss_is_the_cross_entropy() -> None:
    model, batch = strong(use_distill=False), samples()
    logits = model.predict(batch)["predictions"]
    assert model(batch).loss.item() == pytest.approx(
        F.cross_entropy(logits, batch["label"]).item(), rel=1e-6
    )


def test_the_copy_follows_the_weights() -> None:
    model = strong(momentum=0.9)
    before = model.cls_head_m[0].bias.clone()
    with torch.no_grad():
        model.cls_head[0].bias.fill_(1.0)
    model(samples())
    torch.testing.assert_close(model.cls_head_m[0].bias, 0.9 * before + 0.1)
    with torch.no_grad():
        model(samples())  # no step, no move
    torch.testing.assert_close(model.cls_head_m[0].bias, 0.9 * before + 0.1)


def test_the_number_of_classes_is_the_model_s() -> None:
    assert create_model("blip_classification", "tiny", num_classes=7).cls_head[2].out_features == 7
