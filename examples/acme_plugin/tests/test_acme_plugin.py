"""What acme_plugin registers is found by its name and works in a model."""

import torch

from lavis_lite import create_model, registry


def test_the_backbone_gives_tokens() -> None:
    encoder = registry.build("vision_encoder", {"name": "acme_plugin_patchnet", "width": 8})
    assert encoder(torch.zeros(2, 3, 64, 64)).shape == (2, 16, 8)


def test_the_dataset_has_rows() -> None:
    row = registry.build("dataset", {"name": "acme_plugin_flags"})[0]
    assert row["image"].size == (64, 64)
    assert row["text_input"] == "a flag that is red above and green below"


def test_the_model_trains_with_its_losses() -> None:
    model = create_model("acme_plugin_dual")
    texts = ["a red flag", "a green flag", "a blue flag"]
    output = model({"image": torch.randn(3, 3, 64, 64), "text_input": texts})
    output.loss.backward()
    assert {"loss", "loss_info_nce", "loss_margin"} <= set(output.keys())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
