"""Parts of BLIP-2's models from a config."""

from __future__ import annotations

from typing import Any

from torch import nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError
from lavis_lite.models.base import Spec
from lavis_lite.models.build import width_of
from lavis_lite.modules.layers.init import init_linear_
from lavis_lite.modules.med.bert_weights import load_bert
from lavis_lite.modules.med.builder import med_problems
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.projects.blip2.qformer import QFormer
from lavis_lite.projects.blip2.towers import build_towers

ADDED_TOKENS = ("[DEC]",)  # texts that are read, also with an image, start with [CLS]


@registry.register("text_backbone", "qformer", check=med_problems)
def qformer(
    width: int = 768,
    depth: int = 12,
    num_heads: int = 12,
    mlp_width: int = 3072,
    num_queries: int = 32,
    cross_attention_every: int = 2,
    max_length: int = 512,
    dropout: float = 0.1,
    layer_norm_eps: float = 1e-12,
    head: bool = True,
    init_scale: float | None = None,
    pretrained: str | None = None,
    *,
    vocab_size: int | None = None,
    encoder_width: int,
) -> QFormer:
    """Build a Q-Former; beside the arguments of the class there are two for its first weights.

    Args:
        init_scale: draw the matrices with deviation ``init_scale / sqrt(fan-in)``; for small
            towers, which BERT's fixed 0.02 keeps from learning.
        pretrained: folder or hub id of a BERT to start from, whose feed-forward layers and head
            the queries' and the Q-Former's start from too.
    """
    built = QFormer(
        width=width,
        depth=depth,
        num_heads=num_heads,
        mlp_width=mlp_width,
        num_queries=num_queries,
        encoder_width=encoder_width,
        cross_attention_every=cross_attention_every,
        vocab_size=vocab_size,
        head=head,
        max_length=max_length,
        dropout=dropout,
        layer_norm_eps=layer_norm_eps,
    )
    if init_scale is not None:
        init_linear_(built.bert, init_scale)
    if pretrained is not None:
        load_bert(built, pretrained)
    if vocab_size is not None:
        built.start_from_text()
    return built


def build_qformer(text: Spec, vocab_size: int | None, encoder_width: int) -> QFormer:
    """Build the Q-Former of a model.

    Args:
        text: its component.
        vocab_size: number of words; None: it reads images alone.
        encoder_width: width of the image tokens.

    Raises:
        ConfigError: a text backbone without queries.
    """
    built = registry.build(
        "text_backbone", text, vocab_size=vocab_size, encoder_width=encoder_width
    )
    if not isinstance(built, QFormer):
        raise ConfigError(
            f"model.text: this model needs a text backbone with queries, 'qformer'; "
            f"{text['name']!r} has none"
        )
    return built


def stage1_parts(
    vision: Spec,
    text: Spec,
    *,
    image_size: ImageSize,
    tokenizer: str | None,
    embed_width: int,
    freeze_vision: bool,
) -> dict[str, Any]:
    """Build the parts of a model of the first stage, as arguments of its class.

    The arguments are those of ``blip2``.
    """
    words = load_tokenizer(tokenizer, ADDED_TOKENS)
    encoder, norm = build_towers(vision, image_size, freeze_vision)
    qformer = build_qformer(text, len(words), width_of(encoder))
    elsewhere = {}
    if source := vision.get("pretrained"):
        elsewhere["visual_encoder."] = str(vision["name"] if source is True else source)
    return {
        "visual_encoder": encoder,
        "ln_vision": norm,
        "qformer": qformer,
        "tokenizer": words,
        "vision_proj": nn.Linear(qformer.width, embed_width),
        "text_proj": nn.Linear(qformer.width, embed_width),
        "itm_head": nn.Linear(qformer.width, 2),
        "image_size": image_size,
        "kept_elsewhere": elsewhere,
    }
