"""Models of the first stage as folders that transformers loads, and Q-Formers by themselves.

transformers has the parts for matching and comparing; temperature and the head over words have no
place there, so a model that is read back cannot write before it is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import Tensor, nn

from lavis_lite.config.image_size import ImageSize, height_width
from lavis_lite.errors import CheckpointError, ConfigError
from lavis_lite.models.published_weights import fill
from lavis_lite.modules.text.wordpiece import WordPiece
from lavis_lite.projects.blip2 import huggingface, names

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lavis_lite.projects.blip2.qformer import QFormer

HERE_ALONE = ("temp", "Qformer.cls.")  # what transformers has no place for
_TOWER, _THEIRS = "Qformer.bert.", "qformer."


class FirstStage(Protocol):
    """The parts of a model of the first stage that are read and written."""

    visual_encoder: nn.Module
    Qformer: QFormer
    tokenizer: WordPiece
    image_size: ImageSize
    embed_width: int
    kept_elsewhere: Mapping[str, str]

    def state_dict(self) -> dict[str, Tensor]:
        """Return its tensors by key."""
        ...


def save(model: FirstStage, folder: str | Path) -> Path:
    """Write a model as ``Blip2ForImageTextRetrieval.from_pretrained`` reads it, with its processor.

    Args:
        model: with a tower of EVA's kind.
        folder: where to; made if it is not there.

    Raises:
        ConfigError: transformers' BLIP-2 cannot be this model; the message says why.
    """
    import transformers

    from lavis_lite.data.image_processors import MEAN, STD

    words = model.tokenizer
    if not isinstance(words, WordPiece):
        raise ConfigError(
            "transformers' BLIP-2 reads texts with a WordPiece vocabulary; this model's tokenizer "
            f"is a {type(words).__name__}"
        )
    exported = as_transformers(model)
    side = dict.fromkeys(("height", "width"), height_width(model.image_size)[0])
    images = transformers.BlipImageProcessorPil(
        size=side, image_mean=list(MEAN), image_std=list(STD)
    )
    reader = transformers.BertTokenizer(
        vocab=words.vocab, do_lower_case=words.lowercase, bos_token="[DEC]"
    )
    exported.save_pretrained(folder)
    transformers.Blip2Processor(images, reader).save_pretrained(folder)
    return Path(folder)


def as_transformers(model: FirstStage) -> PreTrainedModel:
    """Return transformers' model for retrieval with the weights of ours, on the CPU.

    Raises:
        ConfigError: transformers' BLIP-2 cannot be this model; the message says why.
    """
    import transformers

    parts = cast("huggingface.QueriedParts", model)
    config = transformers.Blip2Config(
        vision_config=huggingface.vision_config(parts),
        qformer_config=_qformer_config(model.Qformer, reads_text=True),
        num_query_tokens=model.Qformer.num_queries,
        image_text_hidden_size=model.embed_width,
        image_token_index=None,
    )
    exported = transformers.Blip2ForImageTextRetrieval(config).eval()
    weights = huggingface.exportable(parts, instructed=False)
    kept = {key: w for key, w in weights.items() if not key.startswith(HERE_ALONE)}
    fill(exported, kept, type(model).__name__)
    return exported


def qformer_as_transformers(qformer: QFormer) -> PreTrainedModel:
    """Return a ``Blip2QFormerModel`` with the weights of a Q-Former, without its queries and words.

    Raises:
        ConfigError: transformers' Q-Former cannot be this one; the message says why.
    """
    import transformers

    reads_text = hasattr(qformer.bert.embeddings, "word_embeddings")
    config = transformers.Blip2QFormerConfig(**_qformer_config(qformer, reads_text))
    weights = {
        name.removeprefix(_THEIRS): tensor.clone()
        for key, tensor in qformer.state_dict().items()
        if (name := names.to_transformers(f"Qformer.{key}") or "").startswith(_THEIRS)
    }
    exported = transformers.Blip2QFormerModel(config).eval()
    fill(exported, weights, "QFormer")
    return exported


def qformer_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a ``Blip2QFormerModel`` under the keys of a ``QFormer`` (``bert.*``)."""
    found = {}
    for key, tensor in weights.items():
        name = names.from_transformers(key if key.startswith(_THEIRS) else _THEIRS + key)
        found[f"bert.{name.removeprefix(_TOWER)}"] = tensor
    return found


def check_config(model: FirstStage, config: Mapping[str, object], source: str) -> None:
    """Compare a model with the ``config.json`` of the folder that its weights come from.

    Raises:
        CheckpointError: a BLIP-2 of transformers whose Q-Former has other heads, or one without
            the texts' part.
    """
    if config.get("model_type") != "blip-2":
        return
    theirs = cast("Mapping[str, object]", config.get("qformer_config") or {})
    heads = _qformer_config(model.Qformer, reads_text=True)["num_attention_heads"]
    if (given := theirs.get("num_attention_heads", 12)) != heads:
        raise CheckpointError(
            f"{source}: qformer_config.num_attention_heads in its config.json is {given}, of this "
            f"model {heads}: the same weights mean something else (model.text.num_heads={given})"
        )
    if not theirs.get("use_qformer_text_input", False):
        raise CheckpointError(
            f"{source}: its Q-Former reads no texts (use_qformer_text_input in its config.json): "
            "it is of the second stage, and loads into blip2_opt or blip2_t5"
        )


def _qformer_config(qformer: QFormer, reads_text: bool) -> dict[str, Any]:
    holder = nn.Module()
    holder.Qformer = qformer
    config = huggingface.qformer_config(cast("huggingface.QueriedParts", holder))
    crossing = next(
        layer.crossattention for layer in qformer.bert.encoder if hasattr(layer, "crossattention")
    )
    return {
        **config,
        "encoder_hidden_size": crossing.self.key.in_features,
        "use_qformer_text_input": reads_text,
    }
