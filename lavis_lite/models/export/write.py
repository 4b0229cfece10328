"""``export_model``: a folder with a program for each part of a model, and what they are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from lavis_lite.errors import ConfigError, suggest
from lavis_lite.io.packages import version
from lavis_lite.io.redaction import redacted
from lavis_lite.models.export import description, onnx_files
from lavis_lite.models.export.description import Description, PartFile, Value
from lavis_lite.models.export.parts import PAST, Axes, Part, parts_of
from lavis_lite.modules.layers.modes import eval_mode

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-4  # between an exported part and the live one, relative where numbers exceed 1
PACKAGES = ("torch", "timm", "tokenizers", "numpy", *onnx_files.PACKAGES)


def export_model(
    model: Any, folder: str | Path, format: str = "onnx", *, int8: bool = False
) -> Description:
    """Write the parts of a model as programs that run without its code.

    Which parts there are is decided by what the model can do: ``image``, its vision tower
    (``EncodesImage``); ``text``, its text tower (``Embeds``); ``match``, its matching head
    (``Matches``); ``caption_context`` and ``caption_step``, a decoding step with a cache
    (``Generates``, by the decoder of a MED). Batches and texts may have any length. Each program is
    run and compared with the live model before the folder gets its name.

    Args:
        model: of the zoo, in fp32 and on the CPU; it is exported as in evaluation mode.
        folder: must not exist.
        format: ``onnx``, or ``torch`` for files that ``torch.export.load`` reads.
        int8: put the weights of matrix products into 8 bits, after the comparison; ``onnx`` alone.

    Returns:
        What was written, and what was not with the reason; ``export.json`` in the folder.

    Raises:
        ConfigError: the folder exists, an unknown format, a package of the extra ``export`` is not
            installed, the model is in half precision or elsewhere, or nothing of it can be
            exported.
    """
    folder = check_target(folder, format, int8)
    check_weights(model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
        inside = Path(place) / folder.name
        inside.mkdir()
        with eval_mode(model):
            found = _write_parts(model, inside, format, int8)
        description.write(found, inside)
        inside.rename(folder)
    return found


def check_target(folder: str | Path, format: str, int8: bool) -> Path:
    """Return the folder's path; raise ConfigError where nothing can be written so.

    The arguments are those of ``export_model``.
    """
    folder = Path(folder).expanduser()
    if format not in SUFFIXES:
        raise ConfigError(
            f"format: {format!r}.{suggest(format, SUFFIXES)} Known: {', '.join(SUFFIXES)}"
        )
    if int8 and format != "onnx":
        raise ConfigError(f"int8: it is of ONNX files; with format {format!r} leave it out")
    if folder.exists():
        raise ConfigError(f"{folder}: is there already; name another folder, or remove it")
    if format == "onnx":
        onnx_files.check_installed(*onnx_files.PACKAGES)
    return folder


def check_weights(model: Any) -> None:
    """Raise ConfigError for a model whose weights are not in fp32 on the CPU."""
    for name, weight in model.named_parameters():
        if weight.dtype != torch.float32 or weight.device.type != "cpu":
            kind = str(weight.dtype).removeprefix("torch.")
            raise ConfigError(
                f"{name}: {kind} on {weight.device}; a model is exported from fp32 on the CPU: "
                "`model.float().cpu()`"
            )


def _write_parts(model: Any, folder: Path, format: str, int8: bool) -> Description:
    groups, left_out = parts_of(model)
    written: dict[str, PartFile] = {}
    for name, parts in groups.items():
        try:
            written |= {part.name: _write(part, folder, format) for part in parts}
        # The exporters raise these for code that they cannot follow and operators they do not have.
        except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError) as error:
            left_out[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            for part in parts:
                (folder / f"{part.name}{SUFFIXES[format]}").unlink(missing_ok=True)
                written.pop(part.name, None)
    if not written:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ConfigError(f"{type(model).__name__}: nothing of it can be exported: {reasons}")
    if int8:
        for part_file in written.values():
            onnx_files.to_int8(folder / part_file.file)
    card = redacted(dict(getattr(model, "card", {})))
    return Description(
        model={key: card.get(key) for key in ("name", "type", "checkpoint")},
        format=format,
        int8=int8,
        parts=written,
        left_out=left_out,
        tokenizer=_save_tokenizer(model, folder),
        preprocessing=_recipe(model),
        captions=_captions(model) if "caption_step" in written else None,
        scores=dict(_scores(model)),
        versions={name: version(name) for name in PACKAGES},
    )


def _write(part: Part, folder: Path, format: str) -> PartFile:
    program = exported(part)
    path = folder / f"{part.name}{SUFFIXES[format]}"
    with torch.no_grad():
        expected = part.module(*part.examples)
    if format == "onnx":
        onnx_files.write(program, part, path)
        arrays = {name: example.detach().numpy() for name, (example, _) in part.inputs.items()}
        by_name = onnx_files.Session(path)(arrays)
        found = [torch.from_numpy(by_name[name]) for name in part.outputs]
    else:
        torch.export.save(program, path)
        with torch.no_grad():
            found = torch.export.load(path).module()(*part.examples)
    difference = _difference(found, expected)
    examples = zip(part.outputs.items(), expected, strict=True)
    return PartFile(
        path.name,
        [_value(name, *pair) for name, pair in part.inputs.items()],
        [_value(name, example, axes) for (name, axes), example in examples],
        difference,
    )


def exported(part: Part) -> ExportedProgram:
    """Return a part as a program of ``torch.export``: strictly traced, without graph breaks.

    Weights that the part does not use are left out.
    """
    dims: dict[str, Dim] = {}
    axes_of = [axes for _, axes in part.inputs.values()]
    for name in {name for axes in axes_of for name in axes.values()}:
        dims[name] = Dim(name, min=0 if name == PAST else 1, max=part.longest.get(name))
    shapes = tuple({axis: dims[name] for axis, name in axes.items()} for axes in axes_of)
    first, *rest = shapes
    several = part.module.forward.__code__.co_flags & 0x04  # it takes *tensors
    dynamic = (first, tuple(rest)) if several else shapes
    program = torch.export.export(part.module, part.examples, dynamic_shapes=dynamic, strict=True)
    used = {spec.target for spec in program.graph_signature.input_specs}
    for name in [name for name in program.state_dict if name not in used]:
        del program.state_dict[name]
    return program


def _difference(found: Any, expected: tuple[Tensor, ...]) -> float:
    """Return the largest difference, relative where numbers exceed 1.

    Raises:
        RuntimeError: it is above the tolerance.
    """
    largest = max(
        float(((a - b).abs() / b.abs().clamp(min=1)).max())
        for a, b in zip(found, expected, strict=True)
    )
    if not largest <= TOLERANCE:
        raise RuntimeError(f"the exported part differs from the model by {largest:.2g}")
    return largest


def _value(name: str, example: Tensor, axes: Axes) -> Value:
    shape = [axes.get(axis, length) for axis, length in enumerate(example.shape)]
    return Value(name, shape, str(example.dtype).removeprefix("torch."))


def _save_tokenizer(model: Any, folder: Path) -> dict[str, Any]:
    """Write the tokenizer's file, and return what else a reader of it needs."""
    words = model.tokenizer
    rules = words.as_rules() if hasattr(words, "as_rules") else None
    if rules is not None:
        rules.save(str(folder / description.TOKENIZER))
    return {
        "file": None if rules is None else description.TOKENIZER,
        "pad_id": words.pad_id,
        "end_id": words.sep_id,
        "max_length": getattr(model, "max_length", None),
        "pads_to_max": bool(getattr(getattr(model, "text_encoder", 0), "reads_padding", False)),
        "appends_end": not getattr(words, "ends_texts", True),
        "drops": sorted(getattr(words, "special_ids", ())),
    }


def _recipe(model: Any) -> Mapping[str, Any] | None:
    from lavis_lite.models import zoo

    card = getattr(model, "card", None)
    processors = zoo.processors_of(card, model.image_size)[0] if card else {}
    return getattr(processors.get("eval"), "recipe", None)


def _captions(model: Any) -> dict[str, Any]:
    return {
        "prompt": model.prompt,
        "prompt_ids": model.prompt_ids(),
        "depth": len(model.text_decoder.bert.encoder.layer),
        "max_positions": model.max_positions,
    }


def _scores(model: Any) -> Iterator[tuple[str, float]]:
    """Yield what similarities are made of logits with, where the model is trained by contrast."""
    for name in ("temperature", "logit_bias"):
        if name == "temperature" and getattr(model, "temp", 0) is None:
            continue  # made without one
        if isinstance(value := getattr(model, name, None), Tensor):
            yield name, float(value.detach())
