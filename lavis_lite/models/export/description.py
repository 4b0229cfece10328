"""``export.json``, which says what an exported folder holds. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lavis_lite
from lavis_lite.errors import CheckpointError

FILE, TOKENIZER = "export.json", "tokenizer.json"
FORMAT = 1  # of export.json; a reader refuses a higher one


@dataclass(frozen=True)
class Value:
    """An input or output of a part.

    Attributes:
        name: as the ONNX file has it.
        shape: a number, or the name of an axis of any length.
        dtype: as numpy names it.
    """

    name: str
    shape: list[int | str]
    dtype: str


@dataclass(frozen=True)
class PartFile:
    """An exported part.

    Attributes:
        file: its name in the folder.
        inputs, outputs: in their order.
        difference: the largest one from the live model, on arrays of random numbers, before the
            weights went into 8 bits.
    """

    file: str
    inputs: list[Value]
    outputs: list[Value]
    difference: float


@dataclass(frozen=True)
class Description:
    """The content of ``export.json``.

    Attributes:
        model: its ``name``, ``type`` and ``checkpoint``.
        format: ``onnx`` or ``torch``.
        int8: whether the weights of matrix products are in 8 bits.
        parts: name -> part.
        left_out: what the model cannot do, or what could not be exported -> the reason.
        tokenizer: ``file``, which the library tokenizers reads, None where there is none; the ids
            ``pad_id`` and ``end_id``; ``max_length``, to which texts are cut and, if
            ``pads_to_max``, padded; ``appends_end``, whether ``end_id`` must still be put behind
            what the file gives; ``drops``, ids that are no part of a text that is read back.
        preprocessing: the image processor's recipe, see ``pictures.py``; None where it tells none.
        captions: ``prompt_ids``, with which a text begins; ``prompt``, how it reads; ``depth``,
            layers with a cache; ``max_positions``. None without captions.
        scores: ``temperature``, what cosine similarities are divided by, and ``logit_bias``.
        versions: of the packages that wrote the files.
    """

    model: Mapping[str, str | None]
    format: str
    int8: bool
    parts: Mapping[str, PartFile]
    left_out: Mapping[str, str]
    tokenizer: Mapping[str, Any]
    preprocessing: Mapping[str, Any] | None
    captions: Mapping[str, Any] | None
    scores: Mapping[str, float]
    versions: Mapping[str, str | None]


def write(description: Description, folder: Path) -> None:
    """Write ``export.json`` into the folder."""
    head = {"lavis_lite": {"format": FORMAT, "version": lavis_lite.__version__}}
    content = json.dumps({**head, **asdict(description)}, indent=2, ensure_ascii=False)
    (folder / FILE).write_text(f"{content}\n", encoding="utf-8")


def read(folder: str | Path) -> Description:
    """Read the ``export.json`` of a folder.

    Raises:
        CheckpointError: there is none, it is damaged, or of a later format than is known here.
    """
    path = Path(folder).expanduser() / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = int(content.pop("lavis_lite")["format"])
        parts = {name: _part(part) for name, part in content.pop("parts").items()}
        description = Description(parts=parts, **content)
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror}; `lavis-lite export MODEL --out FOLDER` writes such a folder"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: is damaged ({type(error).__name__}: {error})") from None
    if version > FORMAT:
        raise CheckpointError(
            f"{path}: has format {version}, this lavis_lite reads up to {FORMAT}; update it"
        )
    return description


def _part(content: Mapping[str, Any]) -> PartFile:
    values = {side: [Value(**value) for value in content[side]] for side in ("inputs", "outputs")}
    return PartFile(**{**content, **values})
