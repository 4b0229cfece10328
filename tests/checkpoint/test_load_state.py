"""Weights into a model: all that fits, an account of what does not, and ties respected."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lavis_lite.checkpoint.load_state import load_state
from lavis_lite.checkpoint.weights import read_weights, save_weights
from lavis_lite.errors import CheckpointError


class Small(nn.Module):
    """A decoder tied to its embedding, as BERT's is."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.norm = nn.LayerNorm(3)
        self.decoder = nn.Linear(3, 4)
        self.decoder.weight = self.embed.weight


def ones(model, leave_out=()):
    return {k: torch.ones_like(v) for k, v in model.state_dict().items() if k not in leave_out}


def untouched(model, before):
    return all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def copy_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_all_of_it_is_loaded_and_the_report_says_so():
    model = Small()
    report = load_state(model, ones(model))
    assert report.complete
    assert str(report) == "5 of 5 tensors loaded"
    assert all((value == 1).all() for value in model.state_dict().values())


@pytest.mark.fault(28)
def test_a_misfit_is_refused_whole_with_counts_and_the_likely_name():
    model = Small()
    before = copy_of(model)
    weights = ones(model, leave_out=["norm.weight", "norm.bias", "decoder.bias"])
    weights |= {"norms.weight": torch.ones(3), "decoder.bias": torch.ones(7), "x.y": torch.ones(1)}
    with pytest.raises(CheckpointError) as refused:
        load_state(model, weights, source="w.pth")
    assert str(refused.value).splitlines() == [
        "w.pth: do not fit Small: of its 5 tensors 2 fit, 2 are missing, 1 misshapen; "
        "2 are unexpected",
        "  missing: norm.weight, norm.bias",
        "  unexpected: norms.weight, x.y",
        "  misshapen: decoder.bias (7,) here, (4,) in the model",
        "  Did 'norms.weight' mean 'norm.weight'? Their shapes agree.",
    ]
    assert untouched(model, before)


@pytest.mark.fault(28)
def test_an_error_lists_the_first_ten_and_counts_the_rest():
    model = nn.ModuleList([nn.Linear(1, 1) for _ in range(8)])
    with pytest.raises(CheckpointError) as refused:
        load_state(model, {})
    assert "16 are missing" in str(refused.value)
    assert "4.weight, 4.bias, ... 6 more" in str(refused.value)
    assert "5.weight" not in str(refused.value)


@pytest.mark.fault(28)
def test_not_strict_loads_what_fits_and_reports_the_rest(caplog):
    model = Small()
    weights = ones(model, leave_out=["norm.weight"]) | {"new": torch.ones(1)}
    weights["decoder.bias"] = torch.ones(7)
    report = load_state(model, weights, strict=False)
    assert report.missing == ["norm.weight"]
    assert report.unexpected == ["new"]
    assert report.misshapen == {"decoder.bias": ((7,), (4,))}
    assert (report.loaded, report.total) == (3, 5)
    assert model.norm.bias.tolist() == [1, 1, 1]
    assert "3 of 5 tensors loaded; 1 missing (norm.weight); 1 unexpected (new)" in caplog.text


@pytest.mark.parametrize("stored", [["embed.weight"], ["decoder.weight"]])
def test_one_stored_copy_of_a_tied_tensor_is_enough(stored):
    model = Small()
    dropped = {"embed.weight", "decoder.weight"} - set(stored)
    report = load_state(model, ones(model, leave_out=dropped))
    assert report.complete
    assert report.loaded == report.total == 5
    assert model.decoder.weight is model.embed.weight
    assert (model.decoder.weight == 1).all()


@pytest.mark.parametrize("strict", [True, False])
def test_two_stored_copies_of_a_tied_tensor_must_agree(strict):
    model = Small()
    before = copy_of(model)
    weights = ones(model)
    load_state(Small(), {key: value.clone() for key, value in weights.items()})
    weights["decoder.weight"] = torch.zeros(4, 3)
    with pytest.raises(CheckpointError, match=r"'embed.weight' and 'decoder.weight' are one"):
        load_state(model, weights, strict=strict)
    assert untouched(model, before)


def test_a_tied_model_round_trips_through_its_file(tmp_path):
    model, other = Small(), Small()
    load_state(other, read_weights(save_weights(model, tmp_path / "w.safetensors")))
    assert untouched(other, model.state_dict())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_removed_and_reported(prefix):
    model = Small()
    report = load_state(model, {prefix + key: value for key, value in ones(model).items()})
    assert report.complete
    assert report.converted[0] in ("module.* -> *", "_orig_mod.* -> *")


def test_position_ids_of_older_bert_files_are_no_surprise():
    model = Small()
    assert load_state(model, ones(model) | {"a.position_ids": torch.arange(4)}).complete


def test_half_precision_files_fill_a_full_precision_model():
    model = Small()
    load_state(model, {key: value.half() for key, value in ones(model).items()})
    assert model.norm.weight.dtype == torch.float32


def test_something_else_than_a_tensor_is_named():
    with pytest.raises(CheckpointError, match="'epoch' is a int: weights are tensors"):
        load_state(Small(), {"epoch": 3})


class Adapting(Small):
    """Reads an older dialect and other sizes."""

    def rename_weights(self, weights):
        renamed = {"gamma": "norm.weight", "beta": "decoder.bias"}
        return {renamed.get(key, key): tensor for key, tensor in weights.items()}

    def adapt_weights(self, weights):
        weights["decoder.bias"] = weights["decoder.bias"][:4]
        weights["norm.bias"] = weights["norm.weight"]
        del weights["queue"]
        return weights


def test_what_a_model_converts_and_resizes_is_reported():
    model = Adapting()
    weights = ones(model, leave_out=["norm.weight", "norm.bias", "decoder.bias"])
    weights |= {"gamma": torch.ones(3), "queue": torch.ones(2), "beta": torch.ones(6)}
    report = load_state(model, weights)
    assert report.complete
    assert report.converted == [
        "gamma -> norm.weight",
        "beta -> decoder.bias",
        "-> norm.bias",
        "queue -> dropped",
    ]
    assert report.interpolated == ["decoder.bias"]
    assert "1 interpolated (decoder.bias); 4 converted (gamma -> norm.weight, " in str(report)
    assert set(weights) >= {"gamma", "queue", "beta"}, "the caller's weights were changed"
    with pytest.raises(CheckpointError, match="unexpected: gamma, queue, beta"):
        load_state(model, weights, adapt=False)


class Doubling(Small):
    """Fills two of its tensors from one of the file."""

    def adapt_weights(self, weights):
        weights["norm.weight"] = weights["norm.bias"] = weights.pop("norms")
        return weights


def test_one_tensor_of_the_file_in_two_places_is_reported_twice():
    model = Doubling()
    weights = ones(model, leave_out=["norm.weight", "norm.bias"]) | {"norms": torch.ones(3)}
    assert load_state(model, weights).converted == ["norms -> norm.weight", "norms -> norm.bias"]
