"""One step's shared view: computed once, without gradients where none belong."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from bench_models import batch, bench_model, feature_towers, features

from lavis_lite.losses.shared import Shared, global_mean
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.modules.layers.ema import momentum_update


def test_everything_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bench_model("blip_pretrain")
    calls: Counter[str] = Counter()

    def count(owner: object, name: str) -> None:
        inner = getattr(owner, name)

        def counted(*args: object, **kwargs: object) -> object:
            calls[name] += 1
            return inner(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    for name in ("encode_image", "encode_text", "image_features", "text_features", "tokenize"):
        count(model, name)
    count(model.text_encoder, "project")
    count(model.text_decoder.bert, "project")
    model(batch(4))
    # Encoder and decoder share their cross-attention: ITM and LM share its keys and values.
    assert calls == {
        "encode_image": 1,
        "encode_text": 1,
        "image_features": 1,
        "text_features": 1,
        "tokenize": 1,
        "project": 1,
    }


def test_nothing_is_computed_that_no_loss_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bench_model("blip_pretrain", losses={"itc": None, "itm": None})
    monkeypatch.setattr(model, "encode_text", None)
    assert list(model(batch(2)).losses) == ["lm"]


def test_the_momentum_copy_carries_no_gradients() -> None:
    model = feature_towers(4)
    shared = Shared(model, features(3, 4))
    assert shared.image_features.requires_grad
    assert not shared.momentum.image_features.requires_grad
    assert shared.momentum.text is shared.text
    assert not torch.equal(shared.momentum.image_features, shared.image_features)


def test_what_is_first_asked_for_under_no_grad_still_carries_gradients() -> None:
    shared = Shared(feature_towers(4), features(3, 4))
    with torch.no_grad():
        assert shared.text_features.requires_grad
    with torch.no_grad():
        assert not Shared(feature_towers(4), features(3, 4)).text_features.requires_grad


def test_what_the_runner_does_not_say_has_defaults() -> None:
    shared = Shared(None, {"image": torch.zeros(2, 1), "text_input": ["a", "b"]})
    assert (shared.progress, shared.step) == (1.0, 0)
    assert shared.image_ids.tolist() == [0, 1]


def test_a_batch_may_say_the_step_itself_and_a_step_info_goes_before_it() -> None:
    samples = {"progress": 0.25, "step": 3, "micro_step": 1, "seed": 4}
    assert Shared(None, samples).step_info == StepInfo(0.25, 3, 1, 4)
    assert Shared(None, samples, StepInfo(step=9)).step_info == StepInfo(step=9)


def test_random_numbers_depend_on_seed_step_and_stream_alone() -> None:
    def draw(stream: int = 0, **where: Any) -> float:
        generator = Shared(None, {}, StepInfo(**where)).generator(stream)
        return torch.rand((), generator=generator).item()

    assert draw(seed=1, step=2) == draw(seed=1, step=2, progress=0.5)
    different = [
        draw(seed=1, step=2),
        draw(seed=2, step=2),
        draw(seed=1, step=3),
        draw(seed=1, step=2, micro_step=1),
        draw(1, seed=1, step=2),
    ]
    assert len(set(different)) == 5


def test_the_mean_of_nothing_is_zero() -> None:
    assert global_mean(torch.tensor(0.0), torch.tensor(0)).item() == 0
    assert global_mean(torch.tensor(6.0), 3).item() == 2


def test_the_momentum_copy_moves_by_its_formula() -> None:
    online = [torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor(3.0))]
    copy = [torch.nn.Parameter(torch.tensor([5.0, 6.0])), torch.nn.Parameter(torch.tensor(7.0))]
    momentum_update(online, copy, 0.75)
    assert [p.tolist() for p in copy] == [[4.0, 5.0], 6.0]
    assert [p.tolist() for p in online] == [[1.0, 2.0], 3.0]
