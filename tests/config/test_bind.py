"""Stage 2: arguments and capabilities, against the parts that a config names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from torch import nn

from lavis_lite import config, registry
from lavis_lite.config.bind import components
from lavis_lite.errors import ConfigError
from lavis_lite.registry.capabilities import has_capability
from lavis_lite.registry.component import Component

TRAIN = """
runner: {name: train}
model: {name: blip_pretrain, type: tiny}
data: {train: [{name: scenes}]}
run: {output_dir: out}
"""


class NeedyLoss(nn.Module):
    """Asks for what no model has."""

    requires: ClassVar = ("image_features", "telepathy", "clairvoyance")

    def __init__(self, strength: int, mode: Literal["a", "b"] = "a", *, model: Any) -> None:
        super().__init__()


class NeedyMetric:
    """Asks for what no model has."""

    requires: ClassVar = ("levitate",)

    def __init__(self, scale: float | None = None, names: list[str] | None = None) -> None:
        pass


@pytest.fixture(autouse=True)
def needy_names(leave_no_names: None) -> None:
    registry.register("loss", "needy_loss")(NeedyLoss)
    registry.register("metric", "needy_metric")(NeedyMetric)


def problems(tmp_path: Path, *overrides: str, text: str = TRAIN) -> list[str]:
    """The lines of the report, without the file's name."""
    path = tmp_path / "run.yaml"
    path.write_text(text)
    try:
        config.load_and_bind(path, overrides)
    except ConfigError as error:
        return [line.removeprefix(f"{path}: ") for line in str(error).splitlines()]
    return []


def test_a_sound_config_binds(tmp_path: Path) -> None:
    assert problems(tmp_path) == []


def test_an_argument_that_is_not_taken_is_named_with_the_nearest(tmp_path: Path) -> None:
    assert problems(tmp_path, "data.train[0].splt=web", "model.losses.itc.queue_siz=3") == [
        "on the command line: model.losses.itc: 'itc' takes no 'queue_siz'. "
        "Did you mean 'queue_size'? It takes: queue_size, alpha, ramp, negatives, "
        "same_image_positive",
        *problems(tmp_path, "data.train[0].splt=web"),
    ]
    (line,) = problems(tmp_path, "data.train[0].splt=web")
    assert line.startswith(
        "on the command line: data.train[0]: 'scenes' takes no 'splt'. Did you mean 'split'?"
    )


def test_the_file_that_wrote_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(TRAIN.replace("name: scenes", "name: scenes, splt: x"))
    with pytest.raises(ConfigError) as error:
        config.load_and_bind(path)
    assert str(error.value).startswith(f"{path}: data.train[0]: 'scenes' takes no 'splt'.")


def test_a_missing_argument_is_named(tmp_path: Path) -> None:
    lines = problems(tmp_path, "model.losses={x: {name: needy_loss}}")
    assert "on the command line: model.losses.x: 'needy_loss' needs 'strength'" in lines


def test_wrong_types_are_named(tmp_path: Path) -> None:
    lines = problems(
        tmp_path,
        "model.image_size=big",
        "model.losses.itc.alpha=true",
        "model.losses.itc.queue_size=1.5",
        "model.losses.itm.negatives=hrad",
        "model.text.dropout=none",
        "evaluate=[{name: needy_metric, scale: x, data: {name: scenes}}]",
    )
    assert [line.partition(". What it can")[0] for line in lines] == [
        "on the command line: model.image_size: int is expected, not str 'big'",
        "on the command line: model.text.dropout: float is expected, not str 'none'",
        "on the command line: model.losses.itc.queue_size: int is expected, not float 1.5",
        "on the command line: model.losses.itc.alpha: float is expected, not bool True",
        "on the command line: model.losses.itm.negatives: 'hrad' is not one of its values. "
        "Did you mean 'hard'? Values: hard, random, all",
        "on the command line: evaluate[0]: metric 'needy_metric' requires levitate, "
        "which model 'blip_pretrain' (BlipPretrain) lacks",
        "on the command line: evaluate[0].scale: float is expected, not str 'x'",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("model.image_size=[64,128]", None),
        ("model.image_size=[64,big]", "int is expected, not list [64, 'big']"),
        (
            "data.processors.image={train: {name: blip_image_train, ops: [1]}, eval: {name: "
            "blip_image_eval}}",
            "in the list: str is expected, not int 1",
        ),
        (
            "data.processors.image={train: {name: blip_image_train, mean: 1}, eval: {name: "
            "blip_image_eval}}",
            "a list is expected, not int 1",
        ),
    ],
)
def test_lists_are_checked_item_by_item(tmp_path, override, problem):
    found = [line.partition(": ")[2].partition(": ")[2] for line in problems(tmp_path, override)]
    assert found == ([problem] if problem else [])


def test_null_is_fine_where_the_builder_says_so_and_wrong_elsewhere(tmp_path: Path) -> None:
    assert problems(tmp_path, "model.tokenizer=null") == []
    assert problems(tmp_path, "model.image_size=null") == [
        "on the command line: model.image_size: int is expected, not NoneType None"
    ]


def test_arguments_that_the_program_supplies_need_not_be_written(tmp_path: Path) -> None:
    assert registry.everything.kinds["text_backbone"].runtime == ("vocab_size", "encoder_width")
    assert problems(tmp_path, "model.text={name: med, width: 32, num_heads: 2}") == []


def test_an_unknown_timm_model_or_argument_is_named(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, "model.vision={name: timm/resnt18}")[:1]
    assert "model.vision: no timm model 'resnt18'. Did you mean 'resnet18'?" in line
    (line,) = problems(tmp_path, "model.vision={name: timm/vit_base_patch16_224, dpeth: 2}")
    assert (
        "model.vision: 'timm/vit_base_patch16_224' takes no 'dpeth'. Did you mean 'depth'?" in line
    )


def test_a_part_without_a_name_is_an_error(tmp_path: Path) -> None:
    assert problems(tmp_path, "model.losses.new={alpha: 1}") == [
        "on the command line: model.losses.new: a component needs a `name`"
    ]


def test_what_a_loss_or_metric_requires_and_the_model_lacks_is_named(tmp_path: Path) -> None:
    lines = problems(
        tmp_path,
        "model={name: blip_caption, type: tiny, losses: {itc: {name: itc}}}",
        "model.losses.n={name: needy_loss, strength: 1}",
        "evaluate=[{name: retrieval, data: {name: scenes}}]",
    )
    where = "on the command line: "
    assert lines == [
        f"{where}model.losses.itc: loss 'itc' requires encode_text, image_features, "
        "text_features, temperature, momentum, embed_width, which model 'blip_caption' "
        "(BlipCaption) lacks. What it can be given: lm",
        f"{where}model.losses.n: loss 'needy_loss' requires image_features, telepathy, "
        "clairvoyance, which model 'blip_caption' (BlipCaption) lacks. What it can be given: lm",
        lines[2],
    ]
    assert lines[2].startswith(f"{where}evaluate[0]: metric 'retrieval' requires ")


def test_arguments_and_capabilities_are_reported_together(tmp_path: Path) -> None:
    lines = problems(
        tmp_path,
        "model.losses.itc.alfa=1",
        "model.losses.n={name: needy_loss, strength: 1}",
        "runner.speed=3",
    )
    assert [line.split(": ")[1] for line in lines] == [
        "runner",
        "model.losses.itc",
        "model.losses.n",
    ]


def test_a_broken_part_is_a_problem_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {("loss", "broken"): "lavis_lite.no_such_module", **registry.index._modules}
    monkeypatch.setattr(registry.index, "_modules", listed)
    monkeypatch.setattr(registry.index, "failures", {})
    lines = problems(tmp_path, "model.losses.b={name: broken}", "model.image_size=big")
    assert lines == [
        "on the command line: model.image_size: int is expected, not str 'big'",
        "on the command line: model.losses.b: loss 'broken' cannot be used: its module "
        "lavis_lite.no_such_module failed to import "
        "(ModuleNotFoundError: No module named 'lavis_lite.no_such_module')",
    ]


@pytest.mark.fault(42)
def test_nothing_is_built_or_written_before_both_stages_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was built")

    monkeypatch.setattr(registry.everything, "build", refuse)
    monkeypatch.setattr(nn.Module, "__init__", refuse)
    monkeypatch.chdir(tmp_path)
    assert problems(tmp_path, "model.vision={name: acme_missing}")
    assert problems(tmp_path, "model.losses.itc.alfa=1")
    assert problems(tmp_path) == []
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


def test_bind_without_a_source_gives_key_paths_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(TRAIN)
    loaded = config.load(path, ["model.losses.itc.alpha=x"])
    with pytest.raises(ConfigError) as error:
        config.bind(loaded)
    assert str(error.value) == "model.losses.itc.alpha: float is expected, not str 'x'"


def test_every_component_of_a_config_is_visited(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(TRAIN + "evaluate: [{name: retrieval, data: {name: scenes}}]")
    found = {(kind, c.name) for _, kind, c in components(config.load(path))}
    assert found == {
        ("runner", "train"),
        ("model", "blip_pretrain"),
        ("dataset", "scenes"),
        ("metric", "retrieval"),
        ("processor", "blip_image_train"),
        ("processor", "blip_image_eval"),
        ("processor", "blip_caption"),
    }
    assert list(components(Component("x"), kind="loss")) == [((), "loss", Component("x"))]


class Capable:
    annotated: int

    @property
    def computed(self) -> int:
        return 1

    def method(self) -> None: ...


class MoreCapable(Capable):
    pass


@pytest.mark.parametrize("name", ["annotated", "computed", "method"])
def test_a_capability_is_a_method_a_property_or_an_annotation(name: str) -> None:
    assert has_capability(MoreCapable, name)
    assert not has_capability(MoreCapable, f"{name}s")
