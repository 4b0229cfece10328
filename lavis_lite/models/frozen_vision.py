"""The vision encoder of a model that does not train it: what it gives, and what that depends on."""

from __future__ import annotations

import hashlib
import logging

import torch
from torch import Tensor, nn

from lavis_lite.errors import ConfigError
from lavis_lite.modules import vision
from lavis_lite.modules.layers.modes import eval_mode

log = logging.getLogger(__name__)
TOWER = "visual_encoder"


def vision_encoder(model: nn.Module) -> nn.Module:
    """Return the vision encoder of a model.

    Raises:
        ConfigError: it has none.
    """
    encoder = getattr(model, TOWER, None)
    if not isinstance(encoder, nn.Module):
        raise ConfigError(
            f"data.vision_tokens: {type(model).__name__} has no vision encoder (`{TOWER}`) whose "
            "tokens could be kept; leave data.vision_tokens out"
        )
    return encoder


def encode(encoder: nn.Module, image: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, N, D) in evaluation mode, without gradients."""
    with eval_mode(encoder), torch.no_grad():
        return vision.encode(encoder, image)


def demand_frozen(model: nn.Module) -> None:
    """Refuse a model that trains whose vision encoder trains with it.

    Raises:
        ConfigError: with the way to freeze it.
    """
    trained = [n for n, p in vision_encoder(model).named_parameters() if p.requires_grad]
    if trained:
        more = f" and {len(trained) - 1} more" if len(trained) > 1 else ""
        raise ConfigError(
            f"data.vision_tokens: the vision encoder trains ({TOWER}.{trained[0]}{more}), so that "
            "its tokens change with every step; freeze it whole with "
            f"`optim.freeze: [{TOWER}]`, or leave data.vision_tokens out"
        )


def share_with_momentum(model: nn.Module) -> None:
    """Make the momentum copy of a frozen encoder equal to it: both have the same tokens then."""
    encoder, copy = getattr(model, TOWER, None), getattr(model, f"{TOWER}_m", None)
    if not isinstance(encoder, nn.Module) or not isinstance(copy, nn.Module):
        return
    if describe(encoder)["encoder weights"] != describe(copy)["encoder weights"]:
        copy.load_state_dict(encoder.state_dict())
        log.warning(
            "the momentum copy of the frozen vision encoder had other weights; it now has the "
            "encoder's"
        )


def describe(encoder: nn.Module) -> dict[str, str]:
    """Return the class of an encoder, and digests of its layers and of its weights."""
    weights = hashlib.blake2b(digest_size=16)
    for name, value in encoder.state_dict().items():
        weights.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        plain = value.detach().cpu().contiguous().flatten()
        weights.update(plain.view(torch.uint8).numpy().data)
    layers = hashlib.blake2b(repr(encoder).encode(), digest_size=16)
    return {
        "encoder": type(encoder).__name__,
        "encoder layers": layers.hexdigest(),
        "encoder weights": weights.hexdigest(),
    }
