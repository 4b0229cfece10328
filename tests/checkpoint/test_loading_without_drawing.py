"""A model that gets all its weights from a file draws none; where the file lacks some, it does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lavis_lite import create_model
from lavis_lite.checkpoint.load_state import WithoutDrawing
from lavis_lite.checkpoint.weights import build_with_weights, save_weights


def test_a_model_of_a_file_is_loaded_without_drawing_weights(tmp_path, monkeypatch) -> None:
    saved = create_model("blip_pretrain", "tiny")
    file = save_weights(saved, tmp_path / "model.safetensors")
    built = []
    skip = WithoutDrawing.__torch_function__

    def note(self, func, types, args=(), kwargs=None):
        built.append(func)
        return skip(self, func, types, args, kwargs)

    monkeypatch.setattr(WithoutDrawing, "__torch_function__", note)
    monkeypatch.setattr(torch.Tensor, "normal_", lambda *_, **__: pytest.fail("drawn after all"))
    loaded = create_model("blip_pretrain", "tiny", checkpoint=str(file))
    assert nn.init.normal_ in built
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_what_a_file_lacks_is_drawn_as_in_a_fresh_model(tmp_path) -> None:
    file = save_weights(create_model("blip_pretrain", "tiny"), tmp_path / "model.safetensors")
    with WithoutDrawing():
        assert nn.init.normal_(nn.Parameter(torch.full((3,), torch.nan))).isnan().all()
    loaded = create_model("blip_classification", "tiny", checkpoint=str(file))
    head = loaded.cls_head[0].weight.detach()
    bound = head.shape[1] ** -0.5  # of torch's uniform draw
    assert head.abs().max() <= bound
    assert head.std() == pytest.approx(bound / 3**0.5, rel=0.2)


def test_without_drawing_constants_are_set_and_new_tensors_are_random() -> None:
    with WithoutDrawing():
        norm, drawn = nn.LayerNorm(4), torch.randn(100)
        nn.init.constant_(tensor := torch.empty(3), 2.0)
    assert torch.equal(norm.weight, torch.ones(4))
    assert torch.equal(tensor, torch.full((3,), 2.0))
    assert 0.5 < drawn.std() < 1.5


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        noise = (
            nn.init.uniform_(torch.full((4,), torch.nan)) + torch.full((4,), torch.nan).normal_()
        )
        self.register_buffer("noise", noise, persistent=False)


def test_drawn_buffers_that_no_file_holds_are_drawn(tmp_path) -> None:
    file = save_weights(Noisy(), tmp_path / "model.safetensors")
    assert build_with_weights(Noisy, file)[0].noise.isfinite().all()
