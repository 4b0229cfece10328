"""The parts of a model that can be exported, decided by its capabilities: tensors in, tensors out.

Dim letters: B images or texts, N image tokens, D width, T tokens, P tokens of the cache, h heads, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite.config.image_size import height_width
from lavis_lite.modules.interfaces import Embeds, EncodesImage, Generates, Matches
from lavis_lite.modules.med.attention import KeyValue
from lavis_lite.modules.med.model import MedDecoder
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.registry.capabilities import missing_from

Axes = Mapping[int, str]  # number of an axis -> its name, of those of any length
BATCH, LENGTH, PAST = "batch", "length", "past"
TEXT_AXES = {0: BATCH, 1: LENGTH}
CACHE_AXES = {0: BATCH, 2: PAST}
GROWN_AXES = {0: BATCH, 2: f"{LENGTH} + {PAST}"}
ROWS, TOKENS, CACHED = 3, 5, 4  # of the examples; no two alike, lest one is taken for another


@dataclass(frozen=True)
class Part:
    """A program to export.

    Attributes:
        name: of its file.
        module: takes the inputs' tensors, in their order, and gives a tuple of tensors.
        inputs: name -> an example and its axes of any length.
        outputs: name -> its axes of any length.
        longest: the largest number of each axis that has a limit.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, tuple[Tensor, Axes]]
    outputs: Mapping[str, Axes]
    longest: Mapping[str, int]

    @property
    def examples(self) -> tuple[Tensor, ...]:
        """The inputs' examples, in their order."""
        return tuple(example for example, _ in self.inputs.values())


class ImagePart(nn.Module):
    """Images (B, 3, H, W) -> tokens (B, N, D) and, with a joint space, features (B, E)."""

    def __init__(self, model: Any, embeds: bool) -> None:
        super().__init__()
        self.model, self.embeds = model, embeds

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        tokens = self.model.encode_image(image)
        return (tokens, self.model.image_features(tokens)) if self.embeds else (tokens,)


class TextPart(nn.Module):
    """Ids and mask (B, T) -> states (B, T, D) and features (B, E)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        states = self.model.encode_text(TextBatch(ids, mask))
        return states, self.model.text_features(states)


class MatchPart(nn.Module):
    """Image tokens (B, N, D), ids and mask (B, T) -> logits (B, 2): no match, match."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image_tokens: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor]:
        return (self.model.match(image_tokens, TextBatch(ids, mask)),)


class ContextPart(nn.Module):
    """Image tokens (B, N, D) -> keys, then values (B, h, N, D / h), of each fusion layer."""

    def __init__(self, decoder: MedDecoder) -> None:
        super().__init__()
        self.tower = decoder.bert

    def forward(self, image_tokens: Tensor) -> tuple[Tensor, ...]:
        projected = self.tower.project(image_tokens)
        return (*(kv.key for kv in projected), *(kv.value for kv in projected))


class StepPart(nn.Module):
    """A decoding step: one program reads the prompt (P = 0) and each token after it (T = 1)."""

    def __init__(self, decoder: MedDecoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.depth = len(decoder.bert.encoder.layer)

    def forward(self, ids: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Tokens (B, T) behind those of a cache -> logits (B, V) of the next, the cache with them.

        Args:
            ids: (B, T) the new tokens.
            tensors: the keys, then the values (B, h, P, D / h) of each layer; then what
                ``ContextPart`` gives.
        """
        tower, depth = self.decoder.bert, self.depth
        past = [KeyValue(*pair) for pair in zip(tensors[:depth], tensors[depth:], strict=False)]
        rest = tensors[2 * depth :]
        half = len(rest) // 2
        seen = [KeyValue(*pair) for pair in zip(rest[:half], rest[half:], strict=True)]
        before = past[0].key.shape[2]  # P
        places = torch.arange(before + ids.shape[1], device=ids.device)  # (P + T,)
        own = places[before:]  # (T,)
        mask = (places <= own[:, None])[None, None]  # (1, 1, T, P + T)
        x = tower.embeddings(ids, positions=own[None])  # (B, T, D)
        grown: list[KeyValue] = []
        for number, layer in enumerate(tower.encoder):

            def extend(new: KeyValue, old: KeyValue = past[number]) -> KeyValue:
                grown.append(KeyValue(*(torch.cat(pair, 2) for pair in zip(old, new, strict=True))))
                return grown[-1]

            image = seen[number - tower.fusion_layer] if number >= tower.fusion_layer else None
            x = layer(x, mask, False, image, None, extend)  # (B, T, D)
        logits = self.decoder.cls(x[:, -1])  # (B, V)
        return (logits, *(kv.key for kv in grown), *(kv.value for kv in grown))


def parts_of(model: Any) -> tuple[dict[str, list[Part]], dict[str, str]]:
    """Return what of a model can be exported, and why the rest cannot.

    Args:
        model: on the CPU, in evaluation mode.

    Returns:
        ``image``, ``text``, ``match``, ``caption`` -> their parts; and those that are not there ->
        the reason.
    """
    if missing := missing_from(model, [EncodesImage, "image_size", "tokenizer"]):
        return {}, {"image": f"it lacks {', '.join(missing)}"}
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(ROWS, 3, *height_width(model.image_size), generator=generator)
    with torch.no_grad():
        tokens = model.encode_image(image)
    without = {
        name: f"it lacks {', '.join(missing)}"
        for name, capability in (("text", Embeds), ("match", Matches), ("caption", Generates))
        if (missing := missing_from(model, [capability]))
    }
    embeds = "text" not in without
    features = {"image_features": {0: BATCH}} if embeds else {}
    outputs = {"image_tokens": {0: BATCH}, **features}
    found = {"image": [Part("image", ImagePart(model, embeds), _with(image=image), outputs, {})]}
    decoder = getattr(model, "text_decoder", None)
    if "caption" not in without and isinstance(decoder, MedDecoder):
        found["caption"] = [_context(decoder, tokens), _step(decoder, tokens)]
    elif "caption" not in without:
        without["caption"] = "its texts are not written by the decoder of a MED"
    return found | _of_texts(model, tokens, without), without


def _of_texts(model: Any, tokens: Tensor, without: Mapping[str, str]) -> dict[str, list[Part]]:
    """Return the parts that read texts: their tower by itself, and the matching head."""
    most = int(getattr(model, "max_length", 0) or 0)  # 0: the model does not say
    longest = {LENGTH: most} if most else {}
    ids = _some_ids(len(model.tokenizer), most)
    texts: dict[str, tuple[Tensor, Axes]] = {
        "ids": (ids, TEXT_AXES),
        "mask": (torch.ones_like(ids), TEXT_AXES),
    }
    found = {}
    if "text" not in without:
        # An image may be embedded by several vectors, and a text's own vector may go first.
        outputs = {"text_tokens": {0: BATCH, 1: "tokens"}, "text_features": {0: BATCH}}
        found["text"] = [Part("text", TextPart(model), texts, outputs, longest)]
    if "match" not in without:
        inputs = {**_with(image_tokens=tokens), **texts}
        found["match"] = [Part("match", MatchPart(model), inputs, {"logits": {0: BATCH}}, longest)]
    return found


def _context(decoder: MedDecoder, tokens: Tensor) -> Part:
    outputs = {name: {0: BATCH} for name in _names("image", len(decoder.bert.fusion_layers))}
    inputs = _with(image_tokens=tokens)
    return Part("caption_context", ContextPart(decoder), inputs, outputs, {})


def _step(decoder: MedDecoder, tokens: Tensor) -> Part:
    module, tower = StepPart(decoder), decoder.bert
    with torch.no_grad():
        seen = ContextPart(decoder)(tokens)
    heads, width = seen[0].shape[1], seen[0].shape[3]
    generator = torch.Generator().manual_seed(0)
    past = [
        torch.randn(ROWS, heads, CACHED, width, generator=generator)
        for _ in range(2 * module.depth)
    ]
    ids = _some_ids(tower.embeddings.word_embeddings.num_embeddings, tower.max_length - CACHED)
    cache = dict(zip(_names("past", module.depth), past, strict=True))
    context = dict(zip(_names("image", len(tower.fusion_layers)), seen, strict=True))
    inputs: dict[str, tuple[Tensor, Axes]] = {"ids": (ids, TEXT_AXES)}
    inputs |= {name: (value, CACHE_AXES) for name, value in cache.items()}
    inputs |= {name: (value, {0: BATCH}) for name, value in context.items()}
    grown = dict.fromkeys(_names("present", module.depth), GROWN_AXES)
    outputs: dict[str, Axes] = {"logits": {0: BATCH}, **grown}
    longest = {LENGTH: tower.max_length, PAST: tower.max_length - 1}
    return Part("caption_step", module, inputs, outputs, longest)


def _names(prefix: str, depth: int) -> list[str]:
    """Return the names of the keys, then the values, of so many layers."""
    return [f"{prefix}_{kind}_{n}" for kind in ("key", "value") for n in range(depth)]


def _with(**tensors: Tensor) -> dict[str, tuple[Tensor, Axes]]:
    return {name: (tensor, {0: BATCH}) for name, tensor in tensors.items()}


def _some_ids(vocabulary: int, longest: int) -> Tensor:
    """Return random ids (B, T) of a vocabulary, of at most ``longest`` tokens; 0 is no limit."""
    length = min(TOKENS, longest or TOKENS)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (ROWS, length), generator=generator)
