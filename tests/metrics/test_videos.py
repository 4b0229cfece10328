"""Retrieval of videos: several frames stand for one."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image

from lavis_lite import create_model, registry
from lavis_lite.data.loader import EvalData
from lavis_lite.data.reader import Processors
from lavis_lite.metrics.pairs import encode_frames
from lavis_lite.metrics.retrieval import Retrieval

RUNNER = SimpleNamespace(device=torch.device("cpu"), seed=0, autocast=contextlib.nullcontext)


def test_a_video_is_embedded_by_the_mean_of_its_frames_and_matched_with_all_of_them() -> None:
    model = create_model("blip_retrieval", "tiny").eval()
    frames = torch.randn(2, 3, 3, 64, 64)
    with torch.no_grad():
        tokens, to_embed = encode_frames(model, frames)
        # As published: the class token of each frame projected, the mean of that normalised.
        each = [model.encode_image(frames[:, place]) for place in range(3)]
        projected = torch.stack([model.vision_proj(one[:, 0]) for one in each]).mean(0)
        expected = torch.nn.functional.normalize(projected, dim=-1)
        torch.testing.assert_close(model.image_features(to_embed), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(tokens, torch.cat(each, dim=1), rtol=0, atol=1e-5)
        image_tokens, same = encode_frames(model, frames[:, 0])
    assert image_tokens is same
    torch.testing.assert_close(image_tokens, each[0], rtol=0, atol=1e-5)


def test_videos_are_retrieved_by_their_frames(tmp_path: Path) -> None:
    rows = []
    for video, colour in (("v1", "red"), ("v2", "blue"), ("v3", "green")):
        (tmp_path / video).mkdir()
        for frame in range(5):
            Image.new("RGB", (64, 64), colour).save(tmp_path / video / f"{frame}.png")
        rows.append({"clip_name": video, "caption": f"all is {colour}"})
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    spec = {"name": "msrvtt_retrieval", "images": str(tmp_path), "num_frames": 2}
    dataset = registry.build("dataset", {**spec, "annotations": str(tmp_path / "a.jsonl")})
    image = registry.build("processor", {"name": "blip_image_eval"}, image_size=64)
    processors = Processors(image=image, text=lambda text, rng=None: text)
    data = EvalData(dataset, processors, batch_size=2)
    model = create_model("blip_retrieval", "tiny")
    result = Retrieval(top_k=3).evaluate(model, data, RUNNER)
    assert result.metrics["txt_r5"] == result.metrics["img_r10"] == 100
    assert {row["image_id"] for row in result.predictions} == {"v1", "v2", "v3"}
