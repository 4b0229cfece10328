"""One tensor's key in each dialect: salesforce/BLIP and LAVIS ("published"), ours, transformers.

Text towers and heads have the same keys everywhere; the vision encoder is transformers' own.
"""

from __future__ import annotations

import re

_TOWER = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm": "post_layernorm",
}
_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_BACK = {theirs: ours for ours, theirs in (_TOWER | _BLOCK).items()}
_TEXT = ("text_encoder.", "text_decoder.", "vision_proj.", "text_proj.", "itm_head.")


def from_transformers(key: str) -> str:
    """A key of a transformers BLIP file as published; any other key as it is."""
    if not key.startswith("vision_model."):
        return key
    block, part, leaf = _split(key.removeprefix("vision_model."), "encoder.layers.")
    known = part in _BACK and (_BACK[part] in _BLOCK) == bool(block)
    return f"visual_encoder.{block and f'blocks.{block}.'}{_BACK[part]}{leaf}" if known else key


def to_transformers(key: str) -> str | None:
    """A published key as transformers' BLIP spells it; None for what it has no place for."""
    if key.startswith(_TEXT):
        return key
    if not key.startswith("visual_encoder."):
        return None
    block, part, leaf = _split(key.removeprefix("visual_encoder."), "blocks.")
    spelled = (_BLOCK if block else _TOWER).get(part)
    return spelled and f"vision_model.{block and f'encoder.layers.{block}.'}{spelled}{leaf}"


def _split(key: str, blocks: str) -> tuple[str, str, str]:
    """The block's number or nothing, the part, and ``.weight``, ``.bias`` or nothing."""
    found = re.fullmatch(rf"(?:{re.escape(blocks)}(\d+)\.)?(.+?)(\.weight|\.bias)?", key)
    assert found is not None
    return found[1] or "", found[2], found[3] or ""
