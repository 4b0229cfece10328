"""The smallest CLIP and SigLIP, over four patches and without timm, for tests of training."""

from __future__ import annotations

from typing import Any

import torch
from bench_models import SIZE, BenchPatches

from lavis_lite import create_model, registry

TEXT = {"width": 16, "depth": 2, "num_heads": 2, "mlp_width": 32}


def dual(name: str, **overrides: Any) -> Any:
    """The same for every call; its texts and images can be told apart."""
    if "bench_patches" not in registry.names("vision_encoder"):
        registry.register("vision_encoder", "bench_patches")(BenchPatches)
    torch.manual_seed(0)
    model = create_model(
        name,
        "tiny",
        vision={"name": "bench_patches"},
        image_size=SIZE,
        **{"text": TEXT, "embed_width": 16, **overrides},
    )
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
        if hasattr(model, "logit_bias"):
            model.logit_bias.fill_(-2.0)
    return model
