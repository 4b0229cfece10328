"""EfficientNet starts from a file in the names of ``efficientnet_pytorch``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch

from lavis_lite import registry
from lavis_lite.errors import CheckpointError

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
IMAGE = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)


def names(num_blocks: int, squeeze: bool = False) -> Iterator[str]:
    """The keys of such a file in its order, which is that of timm's model too."""
    yield "_conv_stem.weight"
    yield from (f"_bn0.{leaf}" for leaf in NORM)
    for block in (f"_blocks.{n}" for n in range(num_blocks)):
        if block != "_blocks.0":
            yield f"{block}._expand_conv.weight"
            yield from (f"{block}._bn0.{leaf}" for leaf in NORM)
        yield f"{block}._depthwise_conv.weight"
        yield from (f"{block}._bn1.{leaf}" for leaf in NORM)
        if squeeze:
            for part in ("_se_reduce", "_se_expand"):
                yield from (f"{block}.{part}.{leaf}" for leaf in ("weight", "bias"))
        yield f"{block}._project_conv.weight"
        yield from (f"{block}._bn2.{leaf}" for leaf in NORM)
    yield "_conv_head.weight"
    yield from (f"_bn1.{leaf}" for leaf in NORM)
    yield from ("_fc.weight", "_fc.bias")


def written(path: Path, model: torch.nn.Module, squeeze: bool = False) -> str:
    """A file with a timm model's weights under those names."""
    state = model.state_dict()
    keys = list(names(16, squeeze))
    assert len(keys) == len(state)
    torch.save(dict(zip(keys, state.values(), strict=True)), path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "squeeze", "num_tensors"),
    [("tf_efficientnet_lite0", False, 247), ("efficientnet_b0", True, 311)],
)
def test_tokens_are_those_of_the_model_in_the_file(tmp_path, name, squeeze, num_tensors):
    theirs = timm.create_model(name).eval()
    counted = [key for key in theirs.state_dict() if not key.endswith("num_batches_tracked")]
    assert len(counted) == num_tensors
    file = written(tmp_path / "efficientnet.pth", theirs, squeeze)
    spec = {"name": f"timm/{name}", "pretrained": file}
    ours = registry.build("vision_encoder", spec, image_size=64).eval()
    with torch.no_grad():
        expected = theirs.forward_features(IMAGE).flatten(2).transpose(1, 2)
        assert torch.equal(ours(IMAGE), expected)
    assert expected.shape == (1, 4, 1280)


def test_a_model_with_other_blocks_is_refused_with_the_one_that_fits(tmp_path):
    file = written(tmp_path / "lite0.pth", timm.create_model("tf_efficientnet_lite0"))
    spec = {"name": "timm/resnet10t", "pretrained": file}
    with pytest.raises(CheckpointError, match=r"16 blocks.* timm/tf_efficientnet_lite0"):
        registry.build("vision_encoder", spec, image_size=64)


def test_weights_of_another_width_are_refused(tmp_path):
    file = written(tmp_path / "lite0.pth", timm.create_model("tf_efficientnet_lite0"))
    spec = {"name": "timm/mobilenetv2_100", "pretrained": file}
    with pytest.raises(CheckpointError):
        registry.build("vision_encoder", spec, image_size=64)
