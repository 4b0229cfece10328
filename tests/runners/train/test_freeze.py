"""Parts that are not trained: out of the optimizer, out of dropout, unchanged to the bit."""

from __future__ import annotations

import pytest
import torch
from toy_runs import build, run, run_in_process, toy_config, train, weights

from lavis_lite import create_model
from lavis_lite.errors import ConfigError
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.runners.train.freeze import fits, freeze


def test_frozen_parts_are_unchanged_and_not_in_the_optimizer(tmp_path):
    training = build(toy_config(tmp_path, optim__freeze=["inner", "norm.weight"]))
    before = {k: v.clone() for k, v in training.model.state_dict().items()}
    train(training)
    after = weights(tmp_path)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {"inner.weight", "inner.bias", "norm.weight"} <= same
    assert not same & {"norm.bias", "head.weight", "head.bias"}
    optimized = {id(p) for group in training.optimizer.param_groups for p in group["params"]}
    trained = {k for k, p in training.model.named_parameters() if id(p) in optimized}
    assert trained == {"norm.bias", "head.weight", "head.bias"}
    state = torch.load(tmp_path / "checkpoints/step-00000012/state.pt", weights_only=True)
    assert len(state["optimizer"]["state"]) == 3


def test_a_frozen_run_resumes_bit_for_bit(tmp_path):
    frozen = {"optim__freeze": ["inner"]}
    run(toy_config(tmp_path / "straight", **frozen))
    assert run_in_process(toy_config(tmp_path / "killed", **frozen), "kill:6")
    run(toy_config(tmp_path / "killed", **frozen))
    straight, killed = weights(tmp_path / "straight"), weights(tmp_path / "killed")
    assert all(torch.equal(straight[name], killed[name]) for name in straight)


def test_a_module_that_is_frozen_whole_stays_in_evaluation_mode():
    model = create_model("blip_caption", "tiny", vision={"drop_path_rate": 0.5}).train()
    freeze(model, ["visual_encoder", "text_decoder.bert.encoder.layer.0.attention"])
    layers = model.text_decoder.bert.encoder.layer
    for change in (lambda: None, model.train, model.eval, model.train):
        change()
        assert not any(part.training for part in model.visual_encoder.modules())
        assert not layers[0].attention.output.dropout.training
    assert layers[0].crossattention.output.dropout.training
    with eval_mode(model):
        pass
    assert not model.visual_encoder.training
    assert layers[1].training
    image = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.encode_image(image), model.encode_image(image))


def test_running_statistics_of_a_frozen_part_stand_still():
    model = create_model("blip_caption", "tiny", vision={"name": "timm/resnet10t"})
    freeze(model, ["visual_encoder"])
    before = {name: value.clone() for name, value in model.visual_encoder.state_dict().items()}
    model.train()
    model({"image": torch.randn(2, 3, 64, 64), "text_input": ["a cross", "a star"]}).loss.backward()
    after = model.visual_encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_pattern_means_a_name_a_module_around_it_or_what_a_shell_would_find():
    name = "visual_encoder.blocks.3.mlp.fc1.weight"
    meant = ["visual_encoder", "visual_encoder.blocks.[0-5]", "*.mlp", name, "visual_*"]
    assert [fits(name, pattern) for pattern in meant] == [True] * len(meant)
    others = ["visual", "visual_encoder.blocks.1", "blocks", "visual_encoder.blocks.[4-9]"]
    assert [fits(name, pattern) for pattern in others] == [False] * len(others)


def test_what_frozen_and_other_parts_share_is_frozen():
    model = create_model("blip_pretrain", "tiny")
    freeze(model, ["text_decoder"])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "text_encoder.encoder.layer.0.attention.self.query.weight" in trained
    assert "text_encoder.encoder.layer.0.crossattention.self.query.weight" not in trained
    assert "text_encoder.embeddings.word_embeddings.weight" not in trained


def test_a_pattern_that_fits_nothing_names_the_nearest_part():
    model = create_model("blip_caption", "tiny")
    with pytest.raises(ConfigError, match=r"freeze\[0\].*'visual_encodr'. Did you mean 'visual_en"):
        freeze(model, ["visual_encodr"])
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        freeze(model, ["visual_encoder", "text_decoder"])
