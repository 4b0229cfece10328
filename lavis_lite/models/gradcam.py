"""Grad-CAM over cross-attention: the places in an image of the words of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lavis_lite.config.calls import checked_options
from lavis_lite.errors import ConfigError
from lavis_lite.models.images import as_images
from lavis_lite.models.texts import matched
from lavis_lite.modules import vision
from lavis_lite.modules.layers.modes import eval_mode, full_precision
from lavis_lite.modules.med.attention import Attention, KeyValue
from lavis_lite.modules.text.text_batch import TextBatch


@checked_options
def compute_gradcam(
    model: Any,
    visual_input: Tensor,
    text_input: str | Sequence[str],
    tokenized_text: TextBatch | None = None,
    block_num: int | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Weigh each image patch by how much it speaks, through each token, for a match.

    A patch's attention weight, times the gradient of the match logit with respect to it where that
    is positive, averaged over heads. Any number of heads, any grid. No gradient is left behind in
    the model.

    Args:
        model: a matching model; what it does with a text is looked at without dropout.
        visual_input: (B, 3, H, W).
        text_input: B texts; a single str goes with every image.
        tokenized_text: the same texts as ``model.tokenizer(...)`` gives them, for callers of LAVIS;
            by default they are tokenised here.
        block_num: the layer, counted from 0; by default the one after the middle of those that
            look at the image, 6 of 12, but never the last of several.

    Returns:
        Of each image the maps (1 + T, rows, columns): that of ``[ENC]``, the mean over the text's
        tokens, then each token after ``[ENC]``, with ``[SEP]`` and zeros for padding. And the
        (B, 2) matching logits.

    Raises:
        ConfigError: no such layer, not as many texts as images, or an encoder whose tokens are no
            grid.

    Reference: Grad-CAM, https://arxiv.org/abs/1610.02391; ALBEF, https://arxiv.org/abs/2107.07651,
    section 5.
    """
    tower = model.match_tower
    layers, first = tower.fusion_layers, tower.fusion_layer
    # After the last layer only [ENC] counts: what its words look at there has no gradient.
    middle = min(len(layers) // 2, max(len(layers) - 2, 0))
    number = middle if block_num is None else block_num - first
    if not 0 <= number < len(layers):
        raise ConfigError(
            f"block_num: {block_num}; the text tower looks at the image in its layers {first} "
            f"to {first + len(layers) - 1}"
        )
    if (grid := vision.grid_of(model.visual_encoder)) is None:
        raise ConfigError("Grad-CAM: the vision encoder has no `grid` (rows, columns) of patches")
    images = as_images(visual_input, model, "visual_input").to(model.device)
    given = text_input if tokenized_text is None else tokenized_text
    text = matched(given, len(images), model, "Grad-CAM").to(model.device)
    with eval_mode(model):
        with torch.no_grad():
            kv = tower.project(model.encode_image(images))
        maps = _weighted_attention(model, kv, text, layers[number].crossattention, kv[number])
    prefix = getattr(model.visual_encoder, "num_prefix_tokens", 0)
    patches = (maps.weights[..., prefix:] * text.mask[:, :, None]).unflatten(-1, grid)
    return [_rows(image, text.mask[row]) for row, image in enumerate(patches)], maps.logits


class _Maps(NamedTuple):
    weights: Tensor  # (B, T, N), mean over heads
    logits: Tensor  # (B, 2)


def _weighted_attention(
    model: Any, kv: list[KeyValue], text: TextBatch, attention: Attention, own: KeyValue
) -> _Maps:
    """Attention times its positive gradient, from what enters and leaves one layer's attention.

    Attention's output is weights @ values: the gradient of the weights is that of the output times
    the values. So the fast kernel stays, and what is below this layer needs no gradient.
    """
    seen: dict[str, Tensor] = {}

    def keep_query(module: object, inputs: object, output: Tensor) -> None:
        seen["query"] = output.detach()

    def cut_here(module: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        seen["output"] = inputs[0].detach().requires_grad_()
        return (seen["output"],)

    hooks = [
        attention.self.query.register_forward_hook(keep_query),
        attention.output.dense.register_forward_pre_hook(cut_here),
    ]
    try:
        # Compiled layers would run without hooks that were not there when they were compiled.
        with torch.compiler.set_stance("force_eager"), torch.enable_grad():
            # `match_pairs` would read the last layer at the first token alone.
            logits = model.judge(model.read(kv, text)[:, 0])
            (gradient,) = torch.autograd.grad(logits[:, 1].sum(), seen["output"])
    finally:
        for hook in hooks:
            hook.remove()

    def heads(states: Tensor) -> Tensor:
        return states.unflatten(-1, (own.key.shape[1], -1)).transpose(1, 2)  # (B, heads, T, .)

    key, value = own.key.detach().float(), own.value.detach().float()
    query = heads(seen["query"].float()) * key.shape[-1] ** -0.5
    with full_precision(key.device):
        weights = (query @ key.transpose(-1, -2)).softmax(-1)  # (B, heads, T, N)
        gradients = heads(gradient.float()) @ value.transpose(-1, -2)
    return _Maps((weights * gradients.clamp(min=0)).mean(1), logits.detach())


def _rows(maps: Tensor, mask: Tensor) -> Tensor:
    """(T, rows, columns) maps of tokens -> (1 + T, ...): the first, the mean of words, the rest."""
    num_words = int(mask.sum()) - 2  # without [ENC] and [SEP]
    mean = maps[1 : 1 + num_words].sum(0, keepdim=True) / max(num_words, 1)
    return torch.cat([maps[:1], mean, maps[1:]]).cpu()
