"""Vision encoders: any timm model as an encoder to tokens, and defaults for your own encoders.

The timm model itself is returned, its class extended, so that its parameter names stay timm's.
BLIP's ViT is timm's, under the same names.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize, height_width
from lavis_lite.errors import ConfigError, DownloadError, UnknownName, suggest
from lavis_lite.io.packages import naming_torchvision
from lavis_lite.modules.layers.init import init_linear_
from lavis_lite.modules.position_embeddings import interpolate_pos_embed, resampler
from lavis_lite.modules.timm_weights import load_encoder, without_network
from lavis_lite.modules.vision_tokens import VisionTokens

__all__ = [
    "TimmTokens",
    "encode",
    "grid_of",
    "interpolate_pos_embed",
    "pool",
    "pool_tokens",
    "timm_encoder",
]
log = logging.getLogger(__name__)
Grid = tuple[int, int]


class TimmTokens(nn.Module):
    """A mixin for a timm model's class: forward returns tokens instead of class logits."""

    width: int
    grid: Grid | None
    num_prefix_tokens: int
    map_pool: Literal["head", "mean", "attention"] | None

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to tokens (B, N, D): prefix tokens, then patches row by row."""
        features = self.forward_features(image)  # type: ignore[operator]
        if features.ndim == 3:
            return features
        if getattr(self, "output_fmt", "NCHW") == "NHWC":
            return features.flatten(1, 2)
        return features.flatten(2).transpose(1, 2)

    def pooled(self, tokens: Tensor) -> Tensor:
        """Pool (B, N, D) to (B, D) as the timm model does, if that keeps the width; else the mean.

        Some timm models have a method ``pool`` that their head relies on, hence another name.
        """
        if self.map_pool is None:
            return self._head(tokens)
        if self.map_pool == "attention":  # CLIP's ResNets: it needs each token's position
            assert self.grid is not None
            return self._head(tokens.transpose(1, 2).unflatten(2, self.grid))  # (B, D, rows, cols)
        mean = tokens.mean(dim=1)
        return mean if self.map_pool == "mean" else self._head(as_map(mean, self))

    def _head(self, features: Tensor) -> Tensor:
        return self.forward_head(features, pre_logits=True).flatten(1)  # type: ignore[operator]


def as_map(pooled: Tensor, model: nn.Module) -> Tensor:
    """Return (B, D) as a map of one place, in the layout that the timm model's head takes."""
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        return pooled[:, None, None]
    return pooled[:, :, None, None]


def timm_names(pattern: str) -> list[str]:
    """List the names ``timm/...`` that match a shell pattern."""
    with naming_torchvision():
        import timm

    return [f"timm/{name}" for name in timm.list_models(pattern.removeprefix("timm/"))]


def timm_arguments(name: str) -> dict[str, inspect.Parameter]:
    """Return the arguments of the timm model's class, with those of ``timm_encoder``.

    Raises:
        UnknownName: timm has no such model; the message names the nearest.
    """
    extra = dict(inspect.signature(timm_encoder).parameters)
    ours = {k: p for k, p in extra.items() if k not in ("name", "args", "image_size")}
    parameters = _parameters(_timm_class(name))
    optional = {
        k: p.replace(default=None, annotation=p.empty)
        for k, p in parameters.items()
        if k not in ("num_classes", "img_size")
    }
    return {**optional, **ours, "image_size": extra["image_size"]}


@registry.register("vision_encoder", "timm/*", expand=timm_names, arguments=timm_arguments)
def timm_encoder(
    name: str,
    *,
    pretrained: bool | str = False,
    position_std: float | None = None,
    init_scale: float | None = None,
    final_norm: bool = True,
    antialias: bool = True,
    align_corners: bool = False,
    image_size: ImageSize = 224,
    **args: Any,
) -> TimmTokens:
    """Build any timm model as a vision encoder.

    Args:
        name: timm's name, with or without its pretrained tag.
        pretrained: start from timm's released weights; or from a file, folder, URL or
            ``hf://owner/repo`` with weights in timm's names, or from a model of the zoo (also by
            its ``name.type``), whose vision encoder is taken. Position embeddings are resampled
            to the image size.
        position_std: standard deviation to draw learned position embeddings with. timm's 0.02
            drowns position in tiny models, whose token embeddings are as small.
        init_scale: draw the matrices with deviation ``init_scale / sqrt(fan-in)``; for small
            models, which timm's fixed 0.02 keeps from learning. Both are of first weights alone:
            they change nothing of ``pretrained`` ones.
        final_norm: normalise the last block's tokens. Without it they are given as they are, by a
            tower that stops early: of the weights at ``pretrained``, the norm and the blocks after
            its last one are left out.
        antialias: smooth the position embeddings of the weights at ``pretrained`` where they are
            resampled, as timm does; off, as the published code of several towers does.
        align_corners: resample them so that the corner patches keep their embeddings.
        image_size: side, or (height, width), of the images.
        args: arguments of the timm model's class (``embed_dim``, ``depth``, ``drop_path_rate``...).

    Raises:
        UnknownName: no such timm model.
        ConfigError: timm cannot build it for these arguments or this image size.
        CheckpointError: weights at ``pretrained`` that do not fit.
    """
    size = height_width(image_size)
    options = {**_options(_timm_class(name), size), **args}
    with torch.device("meta"):
        probe = _create(name, False, options)
    tokens = _probe_shape(probe, name, size)
    model = _create(name, pretrained is True, options)
    prefix = _num_prefix_tokens(model, tokens)
    if not final_norm:
        _remove_final_norm(model, name)
    if isinstance(pretrained, str):
        plain = None if antialias and not align_corners else resampler(model, prefix, align_corners)
        load_encoder(model, pretrained, cut=not final_norm, resample=plain)
    # The class is swapped instead of wrapping the model: a wrapper would prefix all weight names.
    model.__class__ = _with_tokens(type(model))
    model.width = model.num_features
    model.num_prefix_tokens = prefix
    model.map_pool = _map_pool(probe, tokens)
    model.grid = _grid(model, tokens, prefix)
    _warn_of_cut(name, model, size)
    if not pretrained:
        _draw_first_weights(model, position_std, init_scale)
    return model


def _draw_first_weights(
    model: nn.Module, position_std: float | None, init_scale: float | None
) -> None:
    if init_scale is not None:
        init_linear_(model, init_scale)
    if position_std is not None and isinstance(getattr(model, "pos_embed", None), nn.Parameter):
        nn.init.normal_(cast(Tensor, model.pos_embed), std=position_std)


def _remove_final_norm(model: nn.Module, name: str) -> None:
    """Put an identity in the place of the norm after the last block.

    Raises:
        ConfigError: a model that has none under timm's name for it.
    """
    if not isinstance(getattr(model, "norm", None), nn.Module) or not hasattr(model, "blocks"):
        raise ConfigError(f"timm/{name} has no blocks with a norm after them: drop `final_norm`")
    model.norm = nn.Identity()


def _uncut(model: Any, size: tuple[int, ...]) -> tuple[int, ...] | None:
    """Sides of a patch where it does not divide an image of this size, whose rest is not seen.

    Patches that overlap (a kernel wider than its stride, as PVT's) reach the border all the same.
    """
    patches = getattr(model, "patch_embed", None)
    sides = getattr(patches, "patch_size", None)
    if not isinstance(sides, tuple | list) or getattr(patches, "dynamic_img_pad", False):
        return None
    if tuple(getattr(getattr(patches, "proj", None), "stride", sides)) != tuple(sides):
        return None
    cut = any(length % side for length, side in zip(size, sides, strict=True))
    return tuple(sides) if cut else None


def _warn_of_cut(name: str, model: Any, size: tuple[int, ...]) -> None:
    if sides := _uncut(model, size):
        rest = [length % side for length, side in zip(size, sides, strict=True)]
        log.warning(
            "timm/%s: patches of %s pixels do not divide image_size %s: the last %s pixels are cut "
            "off unseen; %s divides",
            name,
            " x ".join(map(str, sides)),
            " x ".join(map(str, size)),
            " x ".join(map(str, rest)),
            " x ".join(str(a - b) for a, b in zip(size, rest, strict=True)),
        )


_with_tokens_of: dict[type, type[TimmTokens]] = {}  # timm's class -> ours


def _with_tokens(timm_class: type) -> type[TimmTokens]:
    """A timm class that gives tokens; no module has it, so that pickles make it anew."""
    if timm_class not in _with_tokens_of:
        name = f"Timm{timm_class.__name__}"
        made = type(name, (TimmTokens, timm_class), {"__reduce_ex__": _reduce_tokens})
        _with_tokens_of[timm_class] = cast(type[TimmTokens], made)
    return _with_tokens_of[timm_class]


def _reduce_tokens(model: TimmTokens, protocol: int) -> tuple[Any, ...]:
    timm_class = type(model).__mro__[2]
    return _unpickled, (timm_class,), model.__getstate__()


def _unpickled(timm_class: type[nn.Module]) -> TimmTokens:
    made = _with_tokens(timm_class)
    return made.__new__(made)


def grid_of(encoder: nn.Module) -> Grid | None:
    """Return rows and columns of an encoder's patch tokens; None if it has no ``grid``."""
    return getattr(encoder, "grid", None)


def encode(encoder: nn.Module, image: Tensor) -> Tensor:
    """Encode images (B, 3, H, W), in any floating-point dtype, as tokens (B, N, D).

    Tokens that are known already (``VisionTokens``) come back in the dtype of the encoder.

    Raises:
        ConfigError: a size that the encoder was not built for (many take any), or an encoder that
            gives no such tokens.
    """
    if isinstance(image, VisionTokens):
        return image.plain().to(next(encoder.parameters(), image).dtype)
    patches: Any = getattr(encoder, "patch_embed", None)  # timm's; strict if the size is fixed
    fixed = patches.img_size if getattr(patches, "strict_img_size", False) else None
    if fixed is not None and tuple(image.shape[-2:]) != tuple(fixed):
        seen, built = (" x ".join(map(str, size)) for size in (image.shape[-2:], fixed))
        raise ConfigError(
            f"image: {seen} pixels; the vision encoder takes {built} (model.image_size)"
        )
    if fixed is None and (sides := _uncut(encoder, tuple(image.shape[-2:]))):
        seen, side = (" x ".join(map(str, size)) for size in (image.shape[-2:], sides))
        raise ConfigError(f"image: {seen} pixels; patches of {side} do not divide them")
    weight = next(encoder.parameters(), None)
    if weight is not None and image.is_floating_point():  # integers stay, so that they fail
        image = image.to(weight.dtype)
    tokens = encoder(image)
    width = getattr(encoder, "width", None)
    if tokens.ndim != 3 or tokens.shape[-1] != width:
        raise ConfigError(
            f"model.vision: {type(encoder).__name__} gives {tuple(tokens.shape)} for images of "
            f"{tuple(image.shape)}; the contract of a vision encoder is tokens (B, N, D), where D "
            f"is its `width`, {width}"
        )
    return tokens


def pool(encoder: nn.Module, tokens: Tensor) -> Tensor:
    """Pool (B, N, D) to (B, D) by the encoder's own ``pool``, else class token, else mean."""
    if isinstance(encoder, TimmTokens):
        return encoder.pooled(tokens)
    method = getattr(encoder, "pool", None)
    if callable(method):
        return method(tokens)
    return pool_tokens(tokens, getattr(encoder, "num_prefix_tokens", 0))


def pool_tokens(tokens: Tensor, num_prefix_tokens: int) -> Tensor:
    """Pool (B, N, D) to (B, D): the first token if there are prefix tokens, else the mean."""
    return tokens[:, 0] if num_prefix_tokens else tokens.mean(dim=1)


@functools.cache
def _timm_class(name: str) -> type:
    """Return the class behind a timm name, found by building it without storage."""
    with naming_torchvision():
        import timm

    if not timm.is_model(name.partition(".")[0]):
        known = timm.list_models()
        raise UnknownName(
            f"no timm model {name!r}.{suggest(name, known)} "
            "`lavis-lite list --kind vision_encoder 'timm/*'` lists them"
        )
    with torch.device("meta"):
        return type(timm.create_model(name, num_classes=0))


def _parameters(model_class: type) -> dict[str, inspect.Parameter]:
    """Return a model class's parameters, with its bases' if it passes ``**kwargs`` on."""
    known: dict[str, inspect.Parameter] = {}
    for base in model_class.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        known = {
            p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        } | known
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    known.pop("self", None)
    return known


def _options(model_class: type, size: tuple[int, ...]) -> dict[str, Any]:
    """Return the options of every timm model: no class logits, and the image size if it has one."""
    known = _parameters(model_class)
    options: dict[str, Any] = {"num_classes": 0}
    if "img_size" in known:
        options["img_size"] = size[0] if size[0] == size[1] else size
    return options


def _create(name: str, pretrained: bool, options: dict[str, Any]) -> Any:
    with naming_torchvision():
        import timm

    if pretrained and (changes := without_network(name)):
        options = {**options, "pretrained_cfg_overlay": changes}
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except OSError as error:
        raise DownloadError(f"timm/{name}: its weights cannot be fetched: {error}") from error
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        given = ", ".join(f"{k}={v!r}" for k, v in options.items())
        raise ConfigError(f"timm/{name} cannot be built with {given}: {error}") from error


def _probe_shape(probe: Any, name: str, size: tuple[int, ...]) -> torch.Size:
    """Compute the shape of the features of one image, without storage or arithmetic."""
    try:
        features = probe.eval().forward_features(torch.zeros(1, 3, *size, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(f"timm/{name} does not take images of {size}: {error}") from error
    if not isinstance(features, Tensor):
        raise ConfigError(f"timm/{name} gives several feature maps, not one sequence of tokens")
    return features.shape


def _map_pool(probe: Any, shape: torch.Size) -> Literal["head", "mean", "attention"] | None:
    """Find out how a model pools a feature map; None if its features are a sequence."""
    if len(shape) != 4:
        return None
    if "AttentionPool2d" in type(getattr(probe, "head", None)).__name__:
        return "attention"
    width = probe.num_features
    try:
        one = as_map(torch.zeros(1, width, device="meta"), probe)
        pooled = probe.forward_head(one, pre_logits=True)
    except (RuntimeError, ValueError):  # a head that does not take a map of one place, as VGG's
        return "mean"
    return "head" if pooled.flatten(1).shape == (1, width) else "mean"


def _num_prefix_tokens(model: nn.Module, shape: torch.Size) -> int:
    """Return the model's number, else 1 for a class token in a sequence (VOLO), else 0."""
    said = getattr(model, "num_prefix_tokens", None)
    has_class = isinstance(getattr(model, "cls_token", None), nn.Parameter) and len(shape) == 3
    return int(has_class if said is None else said)


def _grid(model: nn.Module, shape: torch.Size, num_prefix_tokens: int) -> Grid | None:
    if len(shape) == 4:
        rows_first = 1 if getattr(model, "output_fmt", "NCHW") == "NHWC" else 2
        return int(shape[rows_first]), int(shape[rows_first + 1])
    patches = shape[1] - num_prefix_tokens
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if grid is not None and math.prod(grid) == patches:
        return int(grid[0]), int(grid[1])
    side = math.isqrt(patches)
    return (side, side) if side * side == patches else None
