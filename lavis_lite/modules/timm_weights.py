"""Weights of timm encoders from files: released ones without a network, and a user's own."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.checkpoint.load_state import load_state
from lavis_lite.checkpoint.weights import read_weights
from lavis_lite.errors import DownloadError
from lavis_lite.io.hub import offline, why_no_hub
from lavis_lite.io.paths import cache_dir
from lavis_lite.modules.efficientnet_names import in_timms_names, is_efficientnet_pytorch
from lavis_lite.registry import cards

TOWER = "visual_encoder."  # where models of the zoo keep their vision encoder
_POSITIONS = ("pos_embed", "positional_embedding", "visual.positional_embedding")


def load_encoder(
    model: nn.Module,
    source: str,
    cut: bool = False,
    resample: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Start a timm model from a file in timm's names, or from a whole model of the zoo.

    timm's own filter of the model's family renames old spellings (OpenAI's CLIP among them, also
    without its prefix ``visual.``) and resamples position embeddings (bicubic, antialiased); a
    classifier that the model was built without is left out. An EfficientNet also starts from
    weights in the names of ``efficientnet_pytorch``.

    Args:
        model: as ``timm.create_model`` builds it, without a classifier.
        source: a file, a folder, a run's output folder, a URL or ``hf://owner/repo``; or the
            ``name.type`` of a model with released weights. From a model of the zoo, such as a
            BLIP checkpoint, its vision encoder is taken.
        cut: the model stops early: blocks after its last one, and what follows on the last, are
            left out too.
        resample: fits position embeddings (1, N, D) to the model, in place of timm's way.

    Raises:
        CheckpointError: nothing readable there, or weights that do not fit; none is loaded then.
        DownloadError: ``source`` cannot be fetched.
    """
    weights = read_weights(released_or(source))
    if tower := {k.removeprefix(TOWER): w for k, w in weights.items() if k.startswith(TOWER)}:
        weights = tower
    if is_efficientnet_pytorch(weights):
        weights = in_timms_names(weights, model, source)
    if "class_embedding" in weights:
        weights = {f"visual.{key}": weight for key, weight in weights.items()}
    if resample is not None:
        weights |= {
            key: resample(weight.reshape(1, *weight.shape[-2:])).reshape(
                *weight.shape[:-2], -1, weight.shape[-1]
            )
            for key, weight in weights.items()
            if key in _POSITIONS
        }
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is not None:
        weights = dict(adapt(weights, model))
    weights = _without_classifier(model, weights)
    weights = _without_the_end(model, weights) if cut else weights
    load_state(model, weights, adapt=False, source=source)


def released_or(source: str) -> str:
    """Return the address of a model type's released weights, ``name.type``; any other as it is."""
    name, _, type = source.partition(".")
    if Path(source).exists() or registry.problem("model", name) is not None:
        return source
    return cards.released_weights(name, type) if type in cards.types(name) else source


def _without_the_end(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights but those of blocks, norms and projections after the model's last block.

    They must be of as many blocks at least: a file with fewer lacks keys, and is refused.
    """
    depth = len(cast(Any, model).blocks)
    kept = {}
    for key, weight in weights.items():
        block = re.match(r"blocks\.(\d+)\.", key)
        behind = key.startswith(("norm.", "fc_norm.", "head."))
        if not (behind or (block and int(block[1]) >= depth)):
            kept[key] = weight
    return kept


def _without_classifier(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights but those of the classifier, which the model's timm config names."""
    named = cast(Any, model).pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([named] if isinstance(named, str) else named))
    kept = set(model.state_dict())
    return {k: w for k, w in weights.items() if k in kept or not heads or not k.startswith(heads)}


def without_network(name: str) -> dict[str, Any]:
    """Return changes to timm's pretrained config that read a file instead of the network.

    timm asks the hub without looking at our environment variables, and the hub's client reads its
    own only on import; it also repeats requests for half a minute. If the weights can be fetched,
    there are no changes.

    Args:
        name: timm's name of the model.

    Raises:
        DownloadError: offline, or the hub cannot be reached, and the weights are not cached;
            names their URL and the place to put them.
    """
    import timm

    released = timm.models.get_pretrained_cfg(name)
    if released is None or not (released.hf_hub_id or released.url):
        return {}
    reason = why_no_hub() if offline() or released.hf_hub_id else None
    if reason is None:
        return {}
    named = f"{released.architecture}.{released.tag}" if released.tag else released.architecture
    target = cache_dir() / "timm" / f"{named}.safetensors"
    file = target if target.is_file() else _cached(released)
    if file is None:
        hub = released.hf_hub_id
        address = f"https://huggingface.co/{hub}/resolve/main/model.safetensors"
        raise DownloadError(
            f"timm/{name}: its weights are not in the cache, and {reason}; "
            f"fetch {address if hub else released.url} elsewhere and put it at "
            f"{target if hub else target.with_name(Path(str(released.url)).name)}"
        )
    return {"file": str(file), "custom_load": file.suffix == ".npz"}


def _cached(released: Any) -> Path | None:
    """Find the file in our cache, in the hub's or in torch's."""
    import torch
    from huggingface_hub import try_to_load_from_cache

    if released.hf_hub_id:
        for file in ("model.safetensors", "pytorch_model.bin"):
            cached = try_to_load_from_cache(released.hf_hub_id, file)
            if isinstance(cached, str):
                return Path(cached)
    if released.url:
        base = Path(str(released.url)).name
        for path in (cache_dir() / "timm" / base, Path(torch.hub.get_dir(), "checkpoints", base)):
            if path.is_file():
                return path
    return None
