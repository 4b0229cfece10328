"""Translation of weight keys to ours from OpenAI's (and open_clip's), Meta's and transformers'.

Ours: ``visual_encoder.`` and timm's names, ``text_encoder.`` with the same names for the blocks,
``vision_proj.``, ``text_proj.``, ``logit_scale``, ``logit_bias``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor

Rules = tuple[tuple[str, str], ...]

# Applied in this order, each wherever it fits.
TRANSFORMERS: Rules = (
    (r"^text_model\.head\.", "text_proj."),  # SigLIP's
    (r"^text_projection\.", "text_proj."),  # CLIP's
    (r"^visual_projection\.", "vision_proj."),
    (r"^vision_model\.", "visual_encoder."),
    (r"^text_model\.", "text_encoder."),
    (r"\.embeddings\.class_embedding$", ".cls_token"),
    (r"\.embeddings\.patch_embedding\.", ".patch_embed.proj."),
    (r"\.embeddings\.position_embedding\.weight$", ".pos_embed"),
    (r"\.embeddings\.token_embedding\.", ".token_embed."),
    (r"\.encoder\.layers\.", ".blocks."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.pre_layrnorm\.", ".norm_pre."),  # sic
    (r"\.(post_layernorm|final_layer_norm)\.", ".norm."),
    (r"^visual_encoder\.head\.probe$", "visual_encoder.attn_pool.latent"),
    (r"^visual_encoder\.head\.attention\.out_proj\.", "visual_encoder.attn_pool.proj."),
    (r"^visual_encoder\.head\.layernorm\.", "visual_encoder.attn_pool.norm."),
    (r"^visual_encoder\.head\.mlp\.", "visual_encoder.attn_pool.mlp."),
)
OPEN_CLIP: Rules = (
    (r"^text\.", ""),  # open_clip's, where the vision tower is timm's
    (r"^visual\.trunk\.head\.(weight|bias)$", r"vision_proj.\1"),  # where timm's head projects
    (r"^visual\.trunk\.", "visual_encoder."),
    (r"^visual\.head\.proj\.", "vision_proj."),
    (r"^visual\.proj$", "vision_proj.weight"),
    (r"^visual\.class_embedding$", "visual_encoder.cls_token"),
    (r"^visual\.positional_embedding$", "visual_encoder.pos_embed"),
    (r"^visual\.ln_pre\.", "visual_encoder.norm_pre."),
    (r"^visual\.ln_post\.", "visual_encoder.norm."),
    (r"^visual\.transformer\.resblocks\.", "visual_encoder.blocks."),
    (r"^transformer\.resblocks\.", "text_encoder.blocks."),
    (r"^token_embedding\.", "text_encoder.token_embed."),
    (r"^positional_embedding$", "text_encoder.pos_embed"),
    (r"^ln_final\.", "text_encoder.norm."),
    (r"^text_projection$", "text_proj.weight"),
    (r"^text_projection\.", "text_proj."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.attn\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
OPENAI_VIT: Rules = ((r"^visual\.conv1\.", "visual_encoder.patch_embed.proj."), *OPEN_CLIP)
# Perception Encoder's own files: OpenAI's names, and SigLIP's pooling.
PERCEPTION: Rules = (
    (r"^visual\.attn_pool\.probe$", "visual_encoder.attn_pool.latent"),
    (r"^visual\.attn_pool\.attn\.out_proj\.", "visual_encoder.attn_pool.proj."),
    (r"^visual\.attn_pool\.layernorm\.", "visual_encoder.attn_pool.norm."),
    (r"^visual\.attn_pool\.mlp\.", "visual_encoder.attn_pool.mlp."),
    *OPENAI_VIT,
)
OPENAI_RESNET: Rules = (
    (r"^visual\.attnpool\.c_proj\.", "vision_proj."),
    (r"^visual\.attnpool\.positional_embedding$", "visual_encoder.head.pos_embed"),
    (r"^visual\.attnpool\.([qkv])_proj\.", r"visual_encoder.head.\1."),
    (r"^visual\.conv(\d)\.", r"visual_encoder.stem.conv\1.conv."),
    (r"^visual\.bn(\d)\.", r"visual_encoder.stem.conv\1.bn."),
    (r"^visual\.layer(\d)\.(\d+)\.downsample\.0\.", r"visual.layer\1.\2.shortcut.conv.conv."),
    (r"^visual\.layer(\d)\.(\d+)\.downsample\.1\.", r"visual.layer\1.\2.shortcut.conv.bn."),
    (r"^(visual\.layer\d\.\d+)\.conv(\d)\.", r"\1.\2.conv."),
    (r"^(visual\.layer\d\.\d+)\.bn(\d)\.", r"\1.\2.bn."),
    (r"^(visual\.layer\d\.\d+)\.1\.", r"\1.conv1_1x1."),
    (r"^(visual\.layer\d\.\d+)\.2\.", r"\1.conv2_kxk."),
    (r"^(visual\.layer\d\.\d+)\.3\.", r"\1.conv3_1x1."),
    *((rf"^visual\.layer{n}\.", f"visual_encoder.stages.{n - 1}.") for n in range(1, 5)),
    *OPEN_CLIP,
)
# Matrices that the original multiplies from the right: x @ P.
_TRANSPOSED = ("visual.proj", "text_projection", "text.text_projection")
_PARTS = {"q": 0, "k": 1, "v": 2}
_OF_QKV = re.compile(r"(.*\.)self_attn\.([qkv])_proj\.(weight|bias)")
_OF_POOL = re.compile(
    r"(?:vision_model\.head\.attention|visual\.attn_pool\.attn)\.in_proj_(weight|bias)"
)
_ATTENTION_POOL = "visual_encoder.attn_pool."


def dialect(keys: Iterable[str]) -> Rules | None:
    """Return the rules that translate a file's keys to ours; None if they are ours or unknown."""
    keys = set(keys)
    if any(key.startswith(("vision_model.", "text_model.")) for key in keys):
        return TRANSFORMERS
    if "visual.attn_pool.probe" in keys:
        return PERCEPTION
    if "visual.class_embedding" in keys:
        return OPENAI_VIT
    if any(key.startswith("visual.attnpool.") for key in keys):
        return OPENAI_RESNET
    return OPEN_CLIP if any(key.startswith("visual.") for key in keys) else None


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under our keys and in our shapes; unknown keys stay as they are.

    Args:
        weights: of OpenAI, Perception Encoder, open_clip or transformers, or ours.
    """
    rules = dialect(weights)
    if rules is None:
        return weights
    apart: dict[str, dict[str, Tensor]] = {}  # query, key and value that are one tensor here
    found: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        if match := _OF_QKV.fullmatch(key):
            merged = f"{match[1]}attn.qkv.{match[3]}"
            apart.setdefault(translated(merged, rules), {})[match[2]] = tensor
        elif match := _OF_POOL.fullmatch(key):
            query, key_value = tensor.split([len(tensor) // 3, len(tensor) - len(tensor) // 3])
            found[f"{_ATTENTION_POOL}q.{match[1]}"] = query
            found[f"{_ATTENTION_POOL}kv.{match[1]}"] = key_value
        else:
            ours = translated(key, rules)
            found[ours] = shaped(ours, tensor.T if key in _transposed(tensor) else tensor)
    for key, parts in apart.items():
        found[key] = torch.cat([parts[part] for part in _PARTS if part in parts])
    return found


def translated(key: str, rules: Rules) -> str:
    """Apply all the rules that fit to a key."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def shaped(key: str, tensor: Tensor) -> Tensor:
    """Reshape a tensor to have exactly the dimensions of size 1 that our key's tensor has."""
    if key in ("visual_encoder.cls_token", f"{_ATTENTION_POOL}latent"):
        return tensor.reshape(1, 1, -1)
    if key == "visual_encoder.pos_embed":
        return tensor.reshape(1, *tensor.shape[-2:])
    if key in ("logit_scale", "logit_bias"):
        return tensor.reshape(())
    return tensor


def _transposed(tensor: Tensor) -> tuple[str, ...]:
    return _TRANSPOSED if tensor.ndim == 2 else ()
