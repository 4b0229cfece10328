"""BLIP's models as folders that transformers loads, and what such a folder says of its model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavis_lite.config.image_size import height_width
from lavis_lite.errors import CheckpointError, ConfigError
from lavis_lite.models.published_weights import fill, published
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.text.wordpiece import WordPiece
from lavis_lite.projects.blip.names import to_transformers

# Class of transformers -> (parts that it has, parts that it would lose).
CLASSES = {
    "BlipForConditionalGeneration": ({"text_decoder"}, {"text_encoder"}),
    "BlipForQuestionAnswering": ({"text_decoder", "text_encoder"}, {"itm_head"}),
    "BlipForImageTextRetrieval": ({"text_encoder", "itm_head"}, {"text_decoder"}),
}
CLOSE = 1e-3  # of tokens of order 1, whatever the order of summation


def save(model: Any, folder: str | Path) -> Path:
    """Write a model as transformers' ``from_pretrained`` reads it, with its processor.

    Left out is what serves training alone (momentum copy, queue, temperature): transformers has no
    place for it.

    Args:
        model: a captioner, matcher, retrieval or question-answering model.
        folder: where to; made if it is not there.

    Raises:
        ConfigError: transformers' BLIP cannot be this model; the message says why.
    """
    exported = as_transformers(model)
    check_images(model, exported)
    exported.save_pretrained(folder)
    processor_of(model).save_pretrained(folder)
    return Path(folder)


def as_transformers(model: Any) -> Any:
    """A model of transformers with the weights of ours, in evaluation mode, on the CPU, in fp32.

    Raises:
        ConfigError: transformers' BLIP cannot be this model; the message says why.
    """
    import transformers

    name = class_for(model)
    if not isinstance(model.tokenizer, WordPiece):
        raise ConfigError(
            f"transformers' BLIP has a WordPiece vocabulary; this model's tokenizer is a "
            f"{type(model.tokenizer).__name__}"
        )
    config = transformers.BlipConfig(**config_of(model))
    exported = getattr(transformers, name)(config).eval()
    fill(exported, exportable(model), type(model).__name__)
    return exported


def class_for(model: Any) -> str:
    """The class of transformers with the parts of this model.

    Raises:
        ConfigError: there is none.
    """
    parts = set(dict(model.named_children()))
    for name, (needed, lost) in CLASSES.items():
        if needed <= parts and not lost & parts and "cls_head" not in parts:
            return name
    raise ConfigError(
        f"transformers has no class for {type(model).__name__}: it has captioners, question "
        "answering and image-text retrieval. Load the weights into one of these models first"
    )


def config_of(model: Any) -> dict[str, Any]:
    """The arguments of transformers' BlipConfig for a model."""
    tower = getattr(model, "text_encoder", None) or model.text_decoder.bert
    return {
        "vision_config": vision_config(model),
        "text_config": text_config(model, tower),
        "image_text_hidden_size": getattr(model, "embed_width", 256),
        "initializer_range": 0.02,
    }


def vision_config(model: Any) -> dict[str, Any]:
    """A timm ViT in transformers' words.

    Raises:
        ConfigError: not a ViT.
    """
    encoder = model.visual_encoder
    try:
        first = encoder.blocks[0]
        return {
            "hidden_size": encoder.width,
            "intermediate_size": first.mlp.fc1.out_features,
            "num_hidden_layers": len(encoder.blocks),
            "num_attention_heads": first.attn.num_heads,
            "image_size": _side(model),
            "patch_size": encoder.patch_embed.patch_size[0],
            "layer_norm_eps": first.norm1.eps,  # 1e-6; transformers' own default is 1e-5
            "initializer_range": 0.02,  # its default draws a new encoder of nothing but zeros
        }
    except AttributeError as error:
        raise ConfigError(
            f"transformers' BLIP has a plain ViT as its vision encoder; this model has "
            f"{type(encoder).__name__} ({error})"
        ) from None


def text_config(model: Any, tower: Any) -> dict[str, Any]:
    """A MED in transformers' words."""
    first = tower.encoder.layer[0]
    dropout = tower.embeddings.dropout.p
    words, smoothing = (
        model.tokenizer,
        [
            loss.label_smoothing
            for loss in model.losses.values()
            if hasattr(loss, "label_smoothing")
        ],
    )
    return {
        "vocab_size": len(words),
        "hidden_size": tower.width,
        "intermediate_size": first.output.dense.in_features,
        "num_hidden_layers": len(tower.encoder.layer),
        "num_attention_heads": first.attention.self.num_heads,  # its default is 8
        "max_position_embeddings": tower.max_length,
        "layer_norm_eps": tower.embeddings.LayerNorm.eps,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "label_smoothing": smoothing[0] if smoothing else 0.0,
        "bos_token_id": words.bos_id,
        "eos_token_id": words.sep_id,
        "sep_token_id": words.sep_id,
        "pad_token_id": words.pad_id,
    }


def exportable(model: Any) -> dict[str, Tensor]:
    """The weights under transformers' keys, without what serves training alone."""
    kept = {}
    for key, value in model.state_dict().items():
        name = published(key)
        tower = name.partition(".")[0]
        if not (tower.endswith("_m") or "queue" in tower or tower == "temp"):
            kept[to_transformers(name) or name] = value
    return kept


@torch.no_grad()
def check_images(model: Any, exported: Any) -> None:
    """Compare the tokens of one image.

    A ViT may differ from transformers' in what its weights do not show: an activation, a norm.

    Raises:
        ConfigError: they differ.
    """
    side = _side(model)
    image = torch.rand(1, 3, side, side, generator=torch.Generator())
    with eval_mode(model):
        ours = model.encode_image(image.to(model.device)).float().cpu()
    theirs = exported.vision_model(image).last_hidden_state
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=CLOSE, atol=CLOSE):
        raise ConfigError(
            f"{type(model.visual_encoder).__name__} has the weights of transformers' BLIP vision "
            "encoder, but computes something else from them: it cannot be exported"
        )


def processor_of(model: Any) -> Any:
    """transformers' BlipProcessor with the model's vocabulary, image size and pixel statistics."""
    from transformers import BertTokenizer, BlipImageProcessorPil, BlipProcessor

    from lavis_lite.data.image_processors import MEAN, STD

    side = dict.fromkeys(("height", "width"), _side(model))
    images = BlipImageProcessorPil(size=side, image_mean=list(MEAN), image_std=list(STD))
    words = model.tokenizer
    tokens = BertTokenizer(
        vocab=words.vocab,
        do_lower_case=words.lowercase,
        bos_token="[DEC]",
        additional_special_tokens=["[ENC]"],
    )
    return BlipProcessor(images, tokens)


def _side(model: Any) -> int:
    height, width = height_width(model.image_size)
    if height != width:
        raise ConfigError(f"transformers' BLIP takes square images; this model {height} x {width}")
    return height


def check_config(model: Any, config: Mapping[str, Any], source: str) -> None:
    """Compare a model with the ``config.json`` of the folder that its weights come from.

    Heads and activations don't show in the shapes of weights: with others, the same weights mean
    something else.

    Raises:
        CheckpointError: a BLIP of transformers with other heads or another activation.
    """
    if config.get("model_type") != "blip":
        return
    ours = config_of(model)
    for section, default_heads in (("vision_config", 12), ("text_config", 8)):
        theirs = {"num_attention_heads": default_heads, "hidden_act": "gelu"}
        theirs |= config.get(section) or {}  # older files leave out what is transformers' default
        for key in ("num_attention_heads", "hidden_act"):
            wanted = {"hidden_act": "gelu", **ours[section]}[key]
            if theirs[key] != wanted:
                raise CheckpointError(
                    f"{source}: {section}.{key} in its config.json is {theirs[key]!r}, of this "
                    f"model {wanted!r}: the same weights mean something else. Build the model so; "
                    "or, where the config is wrong, give the file of weights instead of its folder"
                )
