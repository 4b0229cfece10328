"""The weights and numbers of ``golden/blip_tiny.json``: what the published BLIP computes.

salesforce/BLIP at 056a169 ran at a tiny size (torch 2.8, fp32, CPU, ``eval()``) on weights that are
a function of their names. Each model's ``layout`` maps a state-dict key to its shape; a key in
``alias`` shares the tensor of the key that it names.

Size: image 64, patch 16; ViT width 64, depth 3, 4 heads; MED width 64, 3 layers, 4 heads,
feed-forward 128, 30,524 words. Images: ``images(n, seed)``, used as they are.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

NUMBERS = Path(__file__).resolve().parents[1] / "golden" / "blip_tiny.json"
INTEGER_BUFFERS = re.compile(r"position_ids$|queue_ptr$|ptr_queue$")
NORM_WEIGHT = re.compile(r"(LayerNorm|norm)\.weight$|\.norm[12]\.weight")
MOMENTUM = re.compile(r"^(visual_encoder|text_encoder|vision_proj|text_proj)_m\.")


def golden_numbers() -> dict[str, Any]:
    """``caption``, ``itm`` and ``pretrain``: layout, alias, inputs and results of each."""
    return json.loads(NUMBERS.read_text(encoding="utf-8"))


def golden_state(layout: dict[str, list[int]], alias: dict[str, str]) -> dict[str, Tensor]:
    """The float tensors of a layout; integer buffers are left to the model's constructor."""
    return {
        key: golden_tensor(MOMENTUM.sub(r"\1.", alias.get(key, key)), shape)
        for key, shape in layout.items()
        if not INTEGER_BUFFERS.search(key)
    }


def golden_tensor(key: str, shape: list[int]) -> Tensor:
    """The tensor named ``key``: normal numbers seeded by the name, scaled by what they are."""
    if key == "temp":
        return torch.tensor(0.07)
    x = normal(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"), shape)
    if key in ("image_queue", "text_queue"):
        return torch.nn.functional.normalize(x, dim=0)
    if NORM_WEIGHT.search(key):
        return 1 + 0.1 * x
    if key.endswith("bias"):
        return 0.05 * x
    if "word_embeddings" in key:
        return 0.4 * x
    if len(shape) > 1:
        return x * 1.2 / math.sqrt(math.prod(shape[1:]))
    return 0.1 * x


def images(count: int, seed: int) -> Tensor:
    """(count, 3, 64, 64) normal pixels."""
    return normal(seed, [count, 3, 64, 64])


def normal(seed: int, shape: list[int]) -> Tensor:
    numbers = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
    return torch.from_numpy(np.asarray(numbers, dtype=np.float32))
