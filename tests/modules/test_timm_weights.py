"""A vision encoder starts from a file: in timm's names, or out of a model of the zoo."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from lavis_lite import create_model, registry
from lavis_lite.checkpoint.weights import save_weights
from lavis_lite.errors import CheckpointError

NAME = "vit_base_patch16_224"
SIZE = {"embed_dim": 32, "depth": 1, "num_heads": 2}
IMAGE = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)


def encoder(**args: object) -> torch.nn.Module:
    spec = {"name": f"timm/{NAME}", **SIZE, **args}
    return registry.build("vision_encoder", spec, image_size=32).eval()


def test_a_file_of_timm_with_its_classifier_gives_timms_tokens(tmp_path: Path) -> None:
    theirs = timm.create_model(NAME, num_classes=10, img_size=32, **SIZE).eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = encoder(pretrained=str(tmp_path / "theirs.pth"))
    torch.testing.assert_close(ours(IMAGE), theirs.forward_features(IMAGE), rtol=0, atol=0)


def test_a_folder_is_looked_through_and_other_sizes_are_resampled(tmp_path: Path) -> None:
    theirs = timm.create_model(NAME, num_classes=0, img_size=64, **SIZE)
    save_weights(theirs, tmp_path / "model.safetensors")
    ours = encoder(pretrained=str(tmp_path))
    assert ours.pos_embed.shape == (1, 5, 32)
    assert torch.equal(ours.pos_embed[:, 0], theirs.pos_embed[:, 0])
    assert torch.equal(ours.norm.weight, theirs.norm.weight)


def test_a_model_of_the_zoo_hands_over_its_vision_encoder(tmp_path: Path) -> None:
    vision = {"name": f"timm/{NAME}", **SIZE}
    blip = create_model("blip_caption", "tiny", vision=vision, image_size=32).eval()
    save_weights(blip, tmp_path / "blip.safetensors")
    ours = encoder(pretrained=str(tmp_path / "blip.safetensors"))
    assert torch.equal(ours(IMAGE), blip.visual_encoder(IMAGE))


def test_weights_of_another_width_are_refused_by_name(tmp_path: Path) -> None:
    save_weights(
        timm.create_model(NAME, num_classes=0, img_size=32, embed_dim=48, depth=1, num_heads=2),
        tmp_path / "wide.safetensors",
    )
    with pytest.raises(CheckpointError, match="wide"):
        encoder(pretrained=str(tmp_path / "wide.safetensors"))


def test_a_file_that_is_not_there_is_said_so() -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        encoder(pretrained="nowhere.safetensors")
