"""How large a part is and how much it computes; counted by fvcore, attention included."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.image_size import height_width
from lavis_lite.errors import DownloadError
from lavis_lite.models import zoo
from lavis_lite.modules.text.text_batch import ADDED, SPECIAL
from lavis_lite.registry import cards

ATTENTION = "aten::scaled_dot_product_attention"
VOCABULARY, WIDTH = 30524, 768  # of a text backbone that is built by itself: BERT's and BLIP's


class Count(NamedTuple):
    """Multiply-adds of one forward pass, and the operators that fvcore counts as nothing.

    Those are additions, activations and the like; ``ATTENTION`` is never among them.
    """

    multiply_adds: int
    uncounted: dict[str, int]


class Call(nn.Module):
    """A method of a module as a module of its own.

    Args:
        owner: whose method it is; its weights travel along.
        method: its name.
    """

    def __init__(self, owner: nn.Module, method: str = "__call__") -> None:
        super().__init__()
        self.owner = owner
        self.method = method

    def forward(self, *inputs: Tensor) -> Any:
        """What the method returns."""
        return getattr(self.owner, self.method)(*inputs)


def count(module: nn.Module, *inputs: Tensor) -> Count:
    """Multiply-adds of ``module(*inputs)``.

    Args:
        module: put into evaluation mode; it runs once.
        inputs: tensors.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore uses torch.jit; tracing warns of Python numbers
        from fvcore.nn import FlopCountAnalysis

        logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
        analysis = FlopCountAnalysis(module.eval(), inputs)
        analysis.set_op_handle(ATTENTION, attention_multiply_adds)
        with torch.no_grad():
            total = int(analysis.total())
        return Count(total, dict(analysis.unsupported_ops()))


def attention_multiply_adds(inputs: list[Any], outputs: list[Any]) -> float:
    """Of queries (..., L, D), keys (..., S, D) and values (..., S, V): both matrix products.

    Args:
        inputs: values of torch.jit's graph; the first three are queries, keys and values.
        outputs: not needed.
    """
    query, key, value = (shape.type().sizes() for shape in inputs[:3])
    return float(math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))


def of_tower(kind: str, name: str) -> str:
    """Parameters and multiply-adds of a vision encoder or text backbone with its default arguments.

    Images are as large as the tower's default, texts 32 tokens.
    """
    if kind == "vision_encoder":
        tower = registry.build(kind, {"name": name})
        default = registry.entry(kind, name).parameters.get("image_size")
        side = default.default if default and isinstance(default.default, int) else 224
        work = count(tower, torch.zeros(1, 3, side, side))
        return f"{_spell(tower, work.multiply_adds)} for an image of {side} x {side}"
    runtime = {"vocab_size": VOCABULARY, "encoder_width": WIDTH}
    tower = registry.build(kind, {"name": name}, **runtime)
    work = count(Call(tower, "forward"), torch.ones(1, 32, dtype=torch.long))
    return f"{_spell(tower, work.multiply_adds)} for a text of 32 tokens"


def of_model(name: str, type: str) -> str:
    """Parameters of a model, built without storage, and the multiply-adds of its image tower.

    Raises:
        DownloadError: its tokenizer would have to be fetched first, and no zoo.yaml says how many
            tokens it knows.
    """
    model: Any = _without_storage(name, type)
    vision, size = cards.preset(name, type).get("vision"), getattr(model, "image_size", None)
    if vision is None or size is None:
        return _parameters(model)
    tower = registry.build("vision_encoder", vision, image_size=size)
    height, width = height_width(size)
    work = count(tower, torch.zeros(1, 3, height, width))
    return f"{_spell(model, work.multiply_adds)} to encode an image of {height} x {width}"


def _without_storage(name: str, type: str) -> nn.Module:
    with _no_fetching(), torch.device("meta"):
        try:
            return zoo.create_model(name, type)
        except DownloadError:
            source = cards.preset(name, type).get("tokenizer")
            size = cards.vocabulary_size(str(source))
            if size is None:
                raise
        with tempfile.TemporaryDirectory() as folder:
            vocabulary = Path(folder) / "vocab.txt"
            # BLIP's own two tokens are among those of a tokenizer to which nothing is added.
            own = (*SPECIAL, *(ADDED if str(source).startswith("hf/") else ()))
            numbered = (f"token{number}" for number in range(size - len(own)))
            vocabulary.write_text("\n".join((*own, *numbered)))
            return zoo.create_model(name, type, tokenizer=str(vocabulary))


@contextmanager
def _no_fetching() -> Iterator[None]:
    before = os.environ.get("LAVIS_LITE_OFFLINE")
    os.environ["LAVIS_LITE_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LAVIS_LITE_OFFLINE"]
        else:
            os.environ["LAVIS_LITE_OFFLINE"] = before


def _spell(module: nn.Module, multiply_adds: int) -> str:
    return f"{_parameters(module)}, {multiply_adds / 1e9:.3g} G multiply-adds"


def _parameters(module: nn.Module) -> str:
    total = sum(p.numel() for p in module.parameters())
    return f"{total / 1e6:.3g} M parameters"
