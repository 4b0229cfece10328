"""Models with a language model as folders that transformers loads, and their weights from there."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

from lavis_lite.config.image_size import ImageSize, height_width
from lavis_lite.errors import CheckpointError, ConfigError
from lavis_lite.models.published_weights import fill
from lavis_lite.modules.language.loading import Language
from lavis_lite.modules.language.tokens import LanguageTokens
from lavis_lite.projects.blip2 import names
from lavis_lite.projects.blip2.qformer import QFormer, QueryLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

IMAGE = "<image>"

_BIAS = ".attn.qkv.bias"


class PatchEmbed(Protocol):
    """The part of a timm tower that cuts images into patches."""

    patch_size: tuple[int, int]


class EvaTower(Protocol):
    """A timm tower as far as it is read here."""

    width: int
    blocks: Sequence[Any]
    patch_embed: PatchEmbed


class QueriedParts(Protocol):
    """The parts of a model with a language model that are read and written here."""

    visual_encoder: nn.Module
    Qformer: QFormer
    language: Language
    image_size: ImageSize

    def state_dict(self) -> dict[str, Tensor]:
        """Return its tensors by key."""
        ...


def apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of transformers' BLIP-2 under our keys; others as they are.

    The bias of a tower's keys, which is trained there, adds the same to all attention scores of a
    query: it has no effect, and our towers have none.
    """
    found: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        name = names.from_transformers(key)
        if key.startswith("vision_model.") and name.endswith(_BIAS):
            query, _, value = tensor.chunk(3)
            block = name.removesuffix(_BIAS)
            found |= {f"{block}.attn.q_bias": query, f"{block}.attn.v_bias": value}
        else:
            found[name] = tensor
    return found


def check_config(model: QueriedParts, config: Mapping[str, object], source: str) -> None:
    """Compare a model with the ``config.json`` of the folder that its weights come from.

    Heads, activations and the kind of language model don't show in the shapes of weights.

    Raises:
        CheckpointError: a BLIP-2 or InstructBLIP of transformers that is another model.
    """
    if config.get("model_type") not in ("blip-2", "instructblip"):
        return
    ours: dict[str, dict[str, Any]] = {
        "vision_config": {"num_attention_heads": _heads(model), "hidden_act": "gelu"},
        "qformer_config": {"num_attention_heads": qformer_config(model)["num_attention_heads"]},
        "text_config": {"model_type": model.language.model.config.model_type},
    }
    theirs: dict[str, dict[str, Any]] = {
        "vision_config": {"num_attention_heads": 16, "hidden_act": "gelu"},
        "qformer_config": {"num_attention_heads": 12},
        "text_config": {"model_type": "opt"},
    }
    for section, wanted in ours.items():
        given = {**theirs[section], **cast("dict[str, Any]", config.get(section) or {})}
        for key, value in wanted.items():
            if given[key] != value:
                raise CheckpointError(
                    f"{source}: {section}.{key} in its config.json is {given[key]!r}, of this "
                    f"model {value!r}: the same weights mean something else. Build the model so"
                )


def save(model: QueriedParts, folder: str | Path) -> Path:
    """Write a model as transformers' ``from_pretrained`` reads it, with its processor.

    The language model gets one more word where it has none to spare: ``<image>``, in whose places
    transformers puts the queries.

    Args:
        model: with a tower of EVA's kind and a language model of ``hf/*``.
        folder: where to; made if it is not there.

    Raises:
        ConfigError: transformers' BLIP-2 cannot be this model; the message says why.
    """
    tokens = model.language.tokens
    if not isinstance(tokens, LanguageTokens):
        raise ConfigError(
            "transformers' BLIP-2 needs a language model with files of its own, hf/*; this one is "
            "a new/*"
        )
    tokenizer = copy.deepcopy(tokens.tokenizer)
    tokenizer.add_tokens([IMAGE], special_tokens=True)
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    exported = as_transformers(model, image_id)
    exported.save_pretrained(folder)
    _processor(model, tokenizer).save_pretrained(folder)
    return Path(folder)


def as_transformers(model: QueriedParts, image_id: int) -> PreTrainedModel:
    """Return a model of transformers with the weights of ours, on the CPU, in evaluation mode.

    Args:
        model: as of ``save``.
        image_id: id of the word in whose places queries go.

    Raises:
        ConfigError: transformers' BLIP-2 cannot be this model; the message says why.
    """
    import transformers

    instructed = hasattr(model, "tokenizer")
    text = model.language.model.config.to_dict()
    embeddings = cast(nn.Embedding, model.language.model.get_input_embeddings())
    text["vocab_size"] = max(embeddings.num_embeddings, image_id + 1)
    name = "InstructBlip" if instructed else "Blip2"
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision_config(model),
        qformer_config=qformer_config(model),
        text_config=text,
        num_query_tokens=model.Qformer.num_queries,
        image_token_index=image_id,
    )
    exported = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    head = getattr(model.language.model, "lm_head", None)
    if head is not None and head.weight is not embeddings.weight:  # tied by transformers' config
        exported.language_model.lm_head.weight = nn.Parameter(
            exported.language_model.lm_head.weight.detach().clone()
        )
    weights, places = exportable(model, instructed), exported.state_dict()
    for key in (key for key in set(weights) & set(places) if key.startswith("language_model.")):
        tensor, place = weights[key], places[key]
        if tensor.ndim and tensor.shape[1:] == place.shape[1:] and len(tensor) < len(place):
            more = tensor.new_zeros(len(place) - len(tensor), *tensor.shape[1:])
            weights[key] = torch.cat([tensor, more])
    fill(exported, weights, type(model).__name__)
    return exported


def exportable(model: QueriedParts, instructed: bool) -> dict[str, Tensor]:
    """Return the weights under transformers' keys; those without a place there under ours."""
    kept: dict[str, Tensor] = {}
    state = model.state_dict()
    for key, tensor in state.items():
        if key.endswith("attn.q_bias"):
            value = state[key.replace("q_bias", "v_bias")]
            bias = torch.cat([tensor, torch.zeros_like(tensor), value])
            kept[names.to_transformers(key.replace("q_bias", "qkv.bias")) or key] = bias
        elif not key.endswith(("attn.v_bias", "attn.k_bias")):
            kept[names.to_transformers(key, instructed) or key] = tensor.clone()
    return kept


def _heads(model: QueriedParts) -> int | None:
    blocks = getattr(model.visual_encoder, "blocks", None)
    return None if blocks is None else blocks[0].attn.num_heads


def vision_config(model: QueriedParts) -> dict[str, object]:
    """Return the arguments of transformers' vision config.

    Raises:
        ConfigError: a tower that is no ViT of EVA's kind, or images that are not square.
    """
    encoder = cast("EvaTower", model.visual_encoder)
    height, width = height_width(model.image_size)
    try:
        first = encoder.blocks[0]
        config = {
            "hidden_size": encoder.width,
            "intermediate_size": first.mlp.fc1.out_features,
            "num_hidden_layers": len(encoder.blocks),
            "num_attention_heads": first.attn.num_heads,
            "image_size": height,
            "patch_size": encoder.patch_embed.patch_size[0],
            "layer_norm_eps": first.norm1.eps,
            "initializer_range": 0.02,
        }
    except AttributeError as error:
        raise ConfigError(
            f"transformers' BLIP-2 has a ViT of EVA's kind; this model has "
            f"{type(encoder).__name__} ({error})"
        ) from None
    if height != width or type(first).__name__ != "EvaBlock":
        raise ConfigError(
            "transformers' BLIP-2 has a ViT of EVA's kind and takes square images; this model has "
            f"a {type(encoder).__name__} and images of {height} x {width}"
        )
    return config


def qformer_config(model: QueriedParts) -> dict[str, Any]:
    """Return the arguments of transformers' Q-Former config."""
    qformer = model.Qformer
    layers = cast("list[QueryLayer]", list(qformer.bert.encoder.layer))
    crossing = [number for number, layer in enumerate(layers) if hasattr(layer, "crossattention")]
    embeddings = qformer.bert.embeddings
    words = getattr(embeddings, "word_embeddings", None)
    return {
        "hidden_size": qformer.width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": layers[0].attention.self.num_heads,
        "intermediate_size": layers[0].output_query.dense.in_features,
        "max_position_embeddings": qformer.max_length,
        "layer_norm_eps": embeddings.LayerNorm.eps,
        "cross_attention_frequency": crossing[1] if len(crossing) > 1 else len(layers),
        **({} if words is None else {"vocab_size": words.num_embeddings}),
    }


def _processor(model: QueriedParts, tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin:
    import transformers

    from lavis_lite.data.image_processors import MEAN, STD

    side = dict.fromkeys(("height", "width"), height_width(model.image_size)[0])
    images = transformers.BlipImageProcessorPil(
        size=side, image_mean=list(MEAN), image_std=list(STD)
    )
    queries = model.Qformer.num_queries
    words = getattr(model, "tokenizer", None)
    if words is None:
        return transformers.Blip2Processor(images, tokenizer, num_query_tokens=queries)
    reader = transformers.BertTokenizer(vocab=words.vocab, do_lower_case=words.lowercase)
    return transformers.InstructBlipProcessor(images, tokenizer, reader, num_query_tokens=queries)
