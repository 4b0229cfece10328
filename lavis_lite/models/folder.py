"""A model as a folder that stands for itself: what it is, its weights, its vocabulary, its card.

``config.json`` names the model and its arguments, ``model.safetensors`` has the weights,
``vocab.txt`` or ``tokenizer/`` the vocabulary where it is not the package's, ``README.md`` says
what the model is and how to load it. The output folder of a training run is read in the same way.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

import lavis_lite
from lavis_lite import distributed, registry
from lavis_lite.checkpoint import directory
from lavis_lite.checkpoint.locate import repository_in
from lavis_lite.checkpoint.weights import save_weights
from lavis_lite.errors import CheckpointError, ConfigError, DownloadError
from lavis_lite.io import hub, hub_models
from lavis_lite.io.files import whole_file
from lavis_lite.io.redaction import redacted
from lavis_lite.registry import cards
from lavis_lite.registry.component import NESTED_KINDS, ModelComponent

CONFIG, WEIGHTS, VOCABULARY, CARD = "config.json", "model.safetensors", "vocab.txt", "README.md"
TOKENIZER = "hf/tokenizer"  # a folder of transformers' files, as configs spell it
FORMAT = 1  # of config.json; a reader refuses a higher one


@dataclass(frozen=True)
class SavedModel:
    """The description of a model that its folder holds.

    Attributes:
        name: the registered model.
        type: the type that it was made from.
        args: all arguments of its builder.
        processors: ``{"image": {"train", "eval"}, "text": ...}`` as components.
        metrics: figures that were measured with it, by name.
    """

    name: str
    type: str | None
    args: Mapping[str, Any]
    processors: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def save(model: nn.Module, folder: str | Path, metrics: Mapping[str, float] | None = None) -> Path:
    """Write a model as a folder; ``load_model(checkpoint=folder)`` gives it back to the bit.

    Args:
        model: made by ``load_model``, ``create_model`` or a run.
        folder: made if need be; files of these names in it are replaced.
        metrics: figures for the card; by default those that came with the model.

    Raises:
        ConfigError: nothing is known of how to build the model.
    """
    card = getattr(model, "card", None)
    if not card:
        raise ConfigError(
            f"{type(model).__name__}: only a model that load_model, create_model or a run has made "
            "can be saved; save_weights saves the weights of any"
        )
    folder = Path(folder)
    if not distributed.is_main():
        return folder
    args = redacted(_standing_alone(card["args"]))
    folder.mkdir(parents=True, exist_ok=True)
    if str(args.get("tokenizer")).startswith("hf/"):  # of any kind: its own files
        args["tokenizer"] = TOKENIZER
        words: Any = model.tokenizer
        words.save(folder / TOKENIZER.removeprefix("hf/"))
    elif args.get("tokenizer") is not None:
        args["tokenizer"] = VOCABULARY
        _save_vocabulary(model.tokenizer, folder)
    saved = SavedModel(
        card["name"],
        card["type"],
        args,
        redacted(card.get("processors") or cards.processors(card["name"], card["type"])),
        dict(metrics if metrics is not None else card.get("metrics", {})),
    )
    save_weights(model, folder / WEIGHTS)
    head = {"lavis_lite": {"format": FORMAT, "version": lavis_lite.__version__}}
    _write(folder / CONFIG, json.dumps({**head, **vars(saved)}, indent=2, ensure_ascii=False))
    _write(folder / CARD, describe(saved, model, card.get("checkpoint")))
    return folder


def push(
    model: nn.Module,
    repository: str,
    *,
    metrics: Mapping[str, float] | None = None,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> str:
    """Publish a model on the hub as ``save`` writes it; return the address of the commit.

    Args:
        model, metrics: as of ``save``.
        repository, private, revision, message, token: as of ``hub_models.push_folder``.

    Raises:
        ConfigError: nothing is known of how to build the model, or not a repository's name.
        DownloadError: the hub cannot be reached, or refuses.
    """
    hub_models.check_repository(repository)
    if reason := hub.why_no_hub():  # before anything is written
        raise DownloadError(f"{repository}: not published: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder, metrics)
        return hub_models.push_folder(
            folder, repository, private=private, revision=revision, message=message, token=token
        )


def at_hand(checkpoint: str | Path, revision: str | None = None) -> str:
    """Return the local folder of a model of ours on the hub; any other checkpoint as it is.

    Args:
        checkpoint: ``owner/name`` or ``hf://owner/name``, also with ``@revision``; or any other.
        revision: branch, tag or commit of the repository.

    Raises:
        ConfigError: a revision of what is no repository, or two revisions.
        DownloadError: the repository cannot be fetched.
    """
    text = str(checkpoint)
    found = repository_in(text)
    if found is None:
        if revision is not None:
            raise ConfigError(f"revision: {text} is no repository of the hub (owner/name)")
        return text
    if revision is not None and found["revision"] not in (None, revision):
        raise ConfigError(f"revision: {revision!r}, and {text} has one of its own")
    revision = revision or found["revision"]
    folder = hub_models.fetch_folder(found["repo"], revision)
    if folder is not None:
        return str(folder)
    return f"{found['scheme'] or ''}{found['repo']}{f'@{revision}' if revision else ''}"


def read(source: str | Path) -> SavedModel | None:
    """Read the description of the model at ``source``; None where it only holds weights.

    Args:
        source: a folder of ``save``, the output folder of a run, one of its step directories, or a
            file in one of these.

    Raises:
        CheckpointError: its description is damaged, or of a later format than is known here.
    """
    path = Path(source).expanduser()
    folder = path if path.is_dir() else path.parent
    if (folder / CONFIG).is_file():
        return _read_config(folder)
    is_step = (folder / directory.MANIFEST).is_file()
    found = [folder] if is_step else directory.present(folder / "checkpoints")
    return _read_run(folder, found[-1]) if found else None


def _read_config(folder: Path) -> SavedModel | None:
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "lavis_lite" not in content:  # transformers calls its file so too
            return None
        version = int(content.pop("lavis_lite")["format"])
        saved = SavedModel(**content)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is damaged ({type(error).__name__}: {error})") from error
    if version > FORMAT:
        raise CheckpointError(
            f"{path}: has format {version}, this lavis_lite reads up to {FORMAT}; update it"
        )
    inside = {
        VOCABULARY: str(folder / VOCABULARY),
        TOKENIZER: f"hf/{folder / TOKENIZER.removeprefix('hf/')}",
    }
    if (source := saved.args.get("tokenizer")) in inside:
        saved = SavedModel(**{**vars(saved), "args": {**saved.args, "tokenizer": inside[source]}})
    return saved


def _read_run(folder: Path, step: Path) -> SavedModel | None:
    manifest = directory.read_manifest(step)
    config = manifest.get("config") or {}
    if not isinstance(model := config.get("model"), dict):
        return None
    own = {"name", "type", "checkpoint"}
    args = {key: value for key, value in model.items() if key not in own}
    component = cards.whole(ModelComponent(model["name"], args, type=model.get("type")))
    complete = folder / "complete.json"
    summary = json.loads(complete.read_text(encoding="utf-8")) if complete.is_file() else {}
    return SavedModel(
        component.name,
        component.type,
        dict(component.args),
        (config.get("data") or {}).get("processors") or {},
        summary.get("metrics") or manifest.get("metrics") or {},
    )


def _standing_alone(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments without weights to start from, which the folder's own would replace at once."""
    result = dict(args)
    for key, kind in NESTED_KINDS.items():
        spec = result.get(key)
        if not isinstance(spec, Mapping):
            continue
        start = registry.entry(kind, spec["name"]).arguments.get("pretrained")
        rest = {k: v for k, v in spec.items() if k != "pretrained"}
        result[key] = rest | ({"pretrained": False} if start and start.default is True else {})
    return result


def _save_vocabulary(tokenizer: Any, folder: Path) -> None:
    tokens = sorted(tokenizer.vocab, key=tokenizer.vocab.__getitem__)
    _write(folder / VOCABULARY, "\n".join(tokens))
    if not tokenizer.lowercase:
        _write(folder / "tokenizer_config.json", json.dumps({"do_lower_case": False}))


def _write(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(f"{text.rstrip()}\n", encoding="utf-8")


def describe(saved: SavedModel, model: nn.Module, start: str | None) -> str:
    """The model card, in the form that the hub reads.

    Args:
        saved: what it is.
        model: for its size.
        start: the weights that it began with, where known.
    """
    what = f"{saved.name}, type {saved.type}" if saved.type else saved.name
    parts = {k: saved.args[k]["name"] for k in NESTED_KINDS if "name" in (saved.args.get(k) or {})}
    facts = {
        "Model": what,
        **{f"{key.capitalize()} tower": name for key, name in parts.items()},
        "Parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "Image size": getattr(model, "image_size", None),
        "Trained from": redacted(start),
    }
    rows = [f"| {key} | {value} |" for key, value in facts.items() if value is not None]
    measured = [f"| {name} | {value:.4g} |" for name, value in saved.metrics.items()]
    results = ["## Results", "", "| figure | value |", "|---|---|", *measured, ""]
    summary = cards.card(saved.name).get("summary")
    task = cards.card(saved.name).get("hub_task")
    return "\n".join(
        [
            *("---", "library_name: lavis_lite", f"tags: [vision-language, {saved.name}]"),
            *((f"pipeline_tag: {task}",) if task else ()),
            "---",
            *("", f"# {what}", ""),
            *((f"A model that {summary}.", "") if summary else ()),
            *("| | |", "|---|---|", *rows, ""),
            *("## Use", "", "```python", "from lavis_lite import load_model_and_preprocess", ""),
            "model, vis_processors, txt_processors = load_model_and_preprocess(",
            f'    checkpoint="{hub_models.PLACEHOLDER}", is_eval=True',
            *(")", "```", ""),
            *(results if measured else ()),
            f"Written by lavis_lite {lavis_lite.__version__}.",
        ]
    )
