"""One tensor's key in each dialect: LAVIS's files ("published"), ours, and transformers'.

Ours differ from the published ones in four places: the queries belong to the Q-Former, the
projection and the language model have the same names whatever the model is, and a vision tower of
CLIP has timm's names.
"""

from __future__ import annotations

import re

# Published prefix -> ours. Of the first two some files have one, some another.
_PROJECTIONS = ("opt_proj.", "t5_proj.", "llm_proj.")
_LANGUAGE = ("opt_model.", "t5_model.", "llm_model.")
PROJECTION, LANGUAGE, TOWER = "language_proj.", "language.model.", "visual_encoder."
_CLIP = {
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "conv1": "patch_embed.proj",
    "ln_pre": "norm_pre",
}
_CLIP_BLOCK = {
    "ln_1": "norm1",
    "ln_2": "norm2",
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj": "attn.proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_THEIR_TOWER = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding": "pos_embed",
    "embeddings.patch_embedding": "patch_embed.proj",
}
_THEIR_BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.qkv": "attn.qkv",
    "self_attn.projection": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_HEADS = {"vision_projection.": "vision_proj.", "text_projection.": "text_proj."}


def ours(key: str) -> str:
    """A key of LAVIS's files as our models spell it; any other key as it is."""
    if key == "query_tokens":
        return "Qformer.query_tokens"
    for prefixes, own in ((_PROJECTIONS, PROJECTION), (_LANGUAGE, LANGUAGE)):
        for prefix in prefixes:
            if key.startswith(prefix):
                return own + key.removeprefix(prefix)
    if key.startswith(TOWER):
        return TOWER + _from_clip(key.removeprefix(TOWER))
    return key


def _from_clip(key: str) -> str:
    """A key of a vision tower in OpenAI's names as timm spells it; any other key as it is."""
    if found := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", key):
        for theirs, timm in _CLIP_BLOCK.items():
            if found[2].startswith(theirs):
                return f"blocks.{found[1]}.{timm}{found[2].removeprefix(theirs)}"
        return key
    for theirs, timm in _CLIP.items():
        if key == theirs or key.startswith(f"{theirs}."):
            return timm + key.removeprefix(theirs)
    return key


def from_transformers(key: str) -> str:
    """A key of transformers' BLIP-2 or InstructBLIP as our models spell it; others as they are.

    The biases of a tower's queries, keys and values are one tensor there (``attn.qkv.bias``).
    """
    if key.startswith("language_projection."):
        return PROJECTION + key.removeprefix("language_projection.")
    if key.startswith("language_model."):
        return LANGUAGE + key.removeprefix("language_model.")
    if key == "query_tokens":
        return "Qformer.query_tokens"
    for theirs, own in _HEADS.items():
        if key.startswith(theirs):
            return own + key.removeprefix(theirs)
    if key.startswith("vision_model."):
        return _tower_of_transformers(key.removeprefix("vision_model."), key)
    if key.startswith(("qformer.", "embeddings.")):
        return _qformer_of_transformers(key)
    return key


def _tower_of_transformers(key: str, whole: str) -> str:
    if key.startswith("post_layernorm."):
        return "ln_vision." + key.removeprefix("post_layernorm.")
    if found := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key):
        part = _THEIR_BLOCK.get(found[2])
        return f"{TOWER}blocks.{found[1]}.{part}.{found[3]}" if part else whole
    for theirs, timm in _THEIR_TOWER.items():
        if key == theirs or key.startswith(f"{theirs}."):
            return TOWER + timm + key.removeprefix(theirs)
    return whole


def _qformer_of_transformers(key: str) -> str:
    if key.startswith("embeddings."):  # of the classes for retrieval
        return f"Qformer.bert.{key}"
    key = key.removeprefix("qformer.")
    if key.startswith("layernorm."):
        return "Qformer.bert.embeddings.LayerNorm." + key.removeprefix("layernorm.")
    if key.startswith("embeddings.layernorm."):  # InstructBLIP's
        return "Qformer.bert.embeddings.LayerNorm." + key.removeprefix("embeddings.layernorm.")
    return "Qformer.bert." + re.sub(r"(attention)\.attention\.", r"\1.self.", key)


def to_transformers(key: str, instructed: bool = False) -> str | None:
    """Our key as transformers' BLIP-2 spells it; None for what it has no place for.

    The three tensors that make a tower's bias are left to the caller.

    Args:
        key: ours.
        instructed: as InstructBLIP spells it, whose Q-Former reads texts.
    """
    for own, theirs in (
        (PROJECTION, "language_projection."),
        (LANGUAGE, "language_model."),
        ("ln_vision.", "vision_model.post_layernorm."),
        *((own, theirs) for theirs, own in _HEADS.items()),
    ):
        if key.startswith(own):
            return theirs + key.removeprefix(own)
    if key == "Qformer.query_tokens":
        return "query_tokens"
    if key.startswith("itm_head."):
        return key
    if key.startswith(TOWER):
        return _tower_to_transformers(key.removeprefix(TOWER))
    if key.startswith("Qformer.bert."):
        return _qformer_to_transformers(key.removeprefix("Qformer.bert."), instructed)
    return None


def _tower_to_transformers(key: str) -> str | None:
    if found := re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", key):
        parts = {timm: theirs for theirs, timm in _THEIR_BLOCK.items()}
        part = parts.get(found[2])
        return f"vision_model.encoder.layers.{found[1]}.{part}.{found[3]}" if part else None
    for theirs, timm in _THEIR_TOWER.items():
        if key == timm or key.startswith(f"{timm}."):
            return f"vision_model.{theirs}{key.removeprefix(timm)}"
    return None


def _qformer_to_transformers(key: str, instructed: bool) -> str | None:
    if key.startswith("embeddings.LayerNorm."):
        leaf = key.removeprefix("embeddings.LayerNorm.")
        return f"qformer.{'embeddings.' if instructed else ''}layernorm.{leaf}"
    if key.startswith("embeddings."):
        return f"qformer.{key}" if instructed else key
    return "qformer." + re.sub(r"(attention)\.self\.", r"\1.attention.", key)
