"""Every task that is a config trains and evaluates, on made samples in the published formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from published_samples import write_published

from lavis_lite import config, runners
from lavis_lite.config.files import config_root
from lavis_lite.config.schema import EvaluateConfig, TrainConfig
from lavis_lite.data.published import cards as dataset_cards
from lavis_lite.registry import cards
from lavis_lite.registry.component import Component
from lavis_lite.registry.weight_cards import weight_card

# Config -> figures that its run ends with. None: the test set's answers are not public.
TASKS: dict[str, list[str]] = {
    "pretrain_14m": [],
    "pretrain_129m": [],
    "caption_coco": ["caption_coco_caption_val/cider_d", "caption_coco_caption_test/bleu_4"],
    "caption_nocaps": ["caption/cider_d"],
    "retrieval_coco": ["retrieval_coco_retrieval_val/r_mean"],
    "retrieval_flickr": ["retrieval_flickr30k_test/txt_r1"],
    "retrieval_flickr_zero_shot": ["retrieval/r_mean"],
    "retrieval_msrvtt": ["retrieval/img_r1"],
    "vqa_coco": [],
    "vqa_coco_generate": ["vqa/accuracy", "vqa/accuracy_other"],
    "vqa_okvqa": ["vqa/accuracy"],
    "vqa_aokvqa": ["vqa_aok_vqa_val/accuracy"],
    "nlvr2": ["nlvr_nlvr_val/accuracy", "nlvr_nlvr_test/consistency"],
    "snli_ve": ["classification_snli_ve_test/accuracy_entailment"],
    "zero_shot_imagenet": ["zero_shot_classification/top1"],
}
TINY_VISION = "{name: timm/vit_base_patch16_224, embed_dim: 64, depth: 3, num_heads: 4}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("published") / "data")


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVIS_LITE_OFFLINE", "1")
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path / "cache"))


def datasets(loaded: Any) -> list[tuple[str, Component]]:
    """Every dataset of a config with its dotted key."""
    train = loaded.data.train
    return [
        *((f"data.train[{number}]", dataset) for number, dataset in enumerate(train)),
        *((f"evaluate[{n}].data", evaluator.data) for n, evaluator in enumerate(loaded.evaluate)),
    ]


def uses_published_data(path: Path) -> bool:
    loaded = config.load(path)
    if not isinstance(loaded, TrainConfig | EvaluateConfig):
        return False
    return any(dataset.name in dataset_cards.names() for _, dataset in datasets(loaded))


def test_every_config_of_published_data_is_tried_here() -> None:
    found = {
        path.stem for path in (config_root() / "blip").glob("*.yaml") if uses_published_data(path)
    }
    assert found == set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_starts_from_published_weights(task: str) -> None:
    loaded = config.load(f"blip/{task}.yaml")
    source = loaded.model.checkpoint
    if task.startswith("pretrain"):
        assert source is None
    elif isinstance(loaded, EvaluateConfig):
        assert source == cards.RELEASED
        assert cards.released_weights(loaded.model.name, loaded.model.type)
    else:
        card = weight_card(source)
        assert loaded.model.name in (*card.fills, *card.starts)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_trains_and_evaluates(task: str, data: Path, tmp_path: Path) -> None:
    plain = config.load(f"blip/{task}.yaml")
    overrides = [
        "model.type=tiny",
        "model.checkpoint=null",
        "data.batch_size=2",
        "data.num_workers=0",
        "run.device=cpu",
        "run.precision=fp32",
        f"run.output_dir={tmp_path / 'run'}",
        *(f"{where}.root={data}" for where, _ in datasets(plain)),
    ]
    if isinstance(plain, TrainConfig):
        overrides += ["run.max_steps=2", "run.eval_every=0", "run.log_every=1"]
    overrides += [  # tests/metrics has METEOR and SPICE, which take a while to start
        f"evaluate[{number}].java=[]"
        for number, evaluator in enumerate(plain.evaluate)
        if "java" in evaluator.args
    ]
    if task.startswith("pretrain"):  # these name towers of their own, with weights to start from
        overrides += [f"model.vision={TINY_VISION}", "model.text.pretrained=null"]
    loaded = config.load_and_bind(f"blip/{task}.yaml", overrides)
    summary = runners.run(loaded)
    assert set(TASKS[task]) <= set(summary["metrics"])
    records = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert len(losses) == (2 if isinstance(plain, TrainConfig) else 0)
    assert all(0 < loss < 100 for loss in losses)
    written = sorted((tmp_path / "run" / "predictions").glob("*.jsonl"))
    assert len(written) == len(plain.evaluate)
    assert all(path.read_text().strip() for path in written)
    assert not (tmp_path / "run" / "quarantine.jsonl").exists()


@pytest.mark.parametrize(
    ("task", "published"),
    [
        ("caption_coco", (384, 32, 1e-5, 0.05)),
        ("retrieval_coco", (384, 32, 1e-5, 0.05)),
        ("retrieval_flickr", (384, 32, 1e-5, 0.05)),
        ("vqa_coco", (480, 16, 2e-5, 0.05)),
        ("nlvr2", (384, 16, 3e-5, 0.05)),
    ],
)
def test_a_recipe_is_as_published(task: str, published: tuple[float, ...]) -> None:
    # Image size, samples per process, peak rate, weight decay, as in BLIP's configs.
    loaded: TrainConfig = config.load(f"blip/{task}.yaml")
    size = loaded.model.args["image_size"]
    assert (size, loaded.data.batch_size, loaded.optim.lr, loaded.optim.weight_decay) == published
    assert (loaded.optim.min_lr, loaded.optim.warmup_steps) == (0, 0)
