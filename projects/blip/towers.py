"""The capabilities that BLIP's models are composed of, each with the parts that it needs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lavis_lite import registry, vision
from lavis_lite.errors import ConfigError
from lavis_lite.generation import generate
from lavis_lite.interfaces import Samples
from lavis_lite.model import LossSpecs, VisionLanguageModel, unit
from lavis_lite.modes import eval_mode
from lavis_lite.projects.blip.formats import Formats
from lavis_lite.text.bert import load_bert
from lavis_lite.text.decoding import GroundedDecoder
from lavis_lite.text.med import Med, MedDecoder
from lavis_lite.text.tokenizer import TextBatch, WordPiece, load_tokenizer
from lavis_lite.vision import encode

T = TypeVar("T")
Spec = Mapping[str, Any]
Texts = list[str] | TextBatch


class Blip(Formats, VisionLanguageModel):
    """An image tower and a tokenizer: what all of BLIP's models start from.

    Args:
        vision: the vision encoder's component.
        image_size: side of the square input.
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        max_length: tokens that a text is cut to.
    """

    visual_encoder: nn.Module

    def __init__(
        self, vision: Spec, image_size: int, tokenizer: str | None, max_length: int
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.max_length = max_length
        self.tokenizer: WordPiece = load_tokenizer(tokenizer)
        self.visual_encoder = registry.build("vision_encoder", vision, image_size=image_size)
        if not isinstance(getattr(self.visual_encoder, "width", None), int):
            raise ConfigError(
                f"model.vision: {vision['name']!r} has no integer `width` (D of its tokens)"
            )

    def build_text(self, text: Spec, source_width: int | None = None) -> Med:
        """A text tower that can look at this model's images, or at states of another width."""
        tower = registry.build(
            "text_backbone",
            text,
            vocab_size=len(self.tokenizer),
            encoder_width=source_width or self.visual_encoder.width,
        )
        if not isinstance(tower, Med):
            raise ConfigError(
                f"model.text: BLIP needs a text backbone with cross-attention, such as 'med'; "
                f"{text['name']!r} has none"
            )
        return tower

    def build_decoder(self, text: Spec, source_width: int | None = None) -> MedDecoder:
        """A text tower that writes; where it starts from a BERT, its head starts from BERT's."""
        decoder = MedDecoder(self.build_text(text, source_width))
        if text["name"] == "med" and text.get("pretrained"):
            load_bert(decoder, text["pretrained"])
        return decoder

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D) tokens."""
        return encode(self.visual_encoder, image)

    def tokenize(self, texts: list[str]) -> TextBatch:
        """B texts to ids and mask (B, T), [CLS] first."""
        return self.tokenizer.encode(texts, self.max_length, device=self.device)


class JointSpace:
    """Images and texts as unit vectors of one space; online towers or their momentum copy.

    Needs ``visual_encoder``, ``text_encoder``, ``vision_proj``, ``text_proj``, ``tokenize``.
    """

    visual_encoder: nn.Module
    text_encoder: Med
    vision_proj: nn.Linear
    text_proj: nn.Linear
    tokenize: Any

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D) tokens."""
        return encode(self.visual_encoder, image)

    def encode_text(self, text: Texts) -> Tensor:
        """B texts -> (B, T, D) states of the text alone."""
        batch = text if isinstance(text, TextBatch) else self.tokenize(text)
        return self.text_encoder(batch.ids, batch.mask, mode="text")

    def image_embeds(self, image_tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, E) unit length, fp32."""
        return unit(self.vision_proj(vision.pool(self.visual_encoder, image_tokens)))

    def text_embeds(self, text_tokens: Tensor) -> Tensor:
        """(B, T, D) -> (B, E) unit length, fp32."""
        return unit(self.text_proj(text_tokens[:, 0]))


class Captioning:
    """Texts about images: the image-grounded text decoder.

    Needs ``text_decoder``, ``encode_image``, ``tokenizer``, ``prompt``.
    """

    text_decoder: MedDecoder
    tokenizer: WordPiece
    encode_image: Any
    prompt: str
    device: torch.device

    def prompt_ids(self) -> list[int]:
        """[DEC] and the prompt's tokens."""
        ids = self.tokenizer.encode([self.prompt], 512).ids[0].tolist()
        return [self.tokenizer.bos_id, *ids[1:-1]]

    @torch.no_grad()
    def generate(
        self,
        samples: Samples,
        use_nucleus_sampling: bool = False,
        num_beams: int = 3,
        max_length: int = 30,
        min_length: int = 10,
        top_p: float = 0.9,
        repetition_penalty: float = 1.0,
        num_captions: int = 1,
        *,
        method: str | None = None,
        temperature: float = 1.0,
        length_penalty: float = 1.0,
        seeds: list[int] | None = None,
    ) -> list[str]:
        """Captions, the prompt removed; without dropout, whatever mode the model is in.

        Args:
            samples: ``image`` (B, 3, H, W); or ``image_tokens`` (B, N, D) where they are known.
            use_nucleus_sampling: sample instead of searching beams (LAVIS's switch).
            num_beams: beams per image; 1 is greedy.
            max_length: most tokens of a text, the prompt's included.
            min_length: fewest tokens of a text, the prompt's included.
            top_p: smallest probability mass that sampling draws from, in (0, 1].
            repetition_penalty: divides the scores of tokens that were there before; 1 is none.
            num_captions: texts per image; those of beam search differ from each other.
            method: ``beam``, ``greedy`` or ``nucleus``; wins over ``use_nucleus_sampling``.
            temperature: of sampling.
            length_penalty: exponent of the length that beam scores are divided by.
            seeds: one per image; sampled texts depend on it and not on the batch.

        Returns:
            B * num_captions texts, image-major.

        Raises:
            ConfigError: options that contradict each other, or more tokens than the tower holds.
        """
        positions = self.text_decoder.bert.max_length
        if max_length > positions:
            raise ConfigError(
                f"generate.max_length: {max_length}; the text tower has {positions} positions "
                f"(model.text.max_length)"
            )
        prompt = self.prompt_ids()
        with eval_mode(self):
            tokens = samples.get("image_tokens")
            if tokens is None:
                tokens = self.encode_image(samples["image"].to(self.device))
            ids = generate(
                GroundedDecoder(self.text_decoder, self.text_decoder.bert.project(tokens)),
                torch.tensor([prompt] * len(tokens), device=tokens.device),
                method=method or ("nucleus" if use_nucleus_sampling else "beam"),
                num_beams=num_beams,
                num_return=num_captions,
                max_length=max_length,
                min_length=min_length,
                top_p=top_p,
                temperature=temperature,
                repetition_penalty=repetition_penalty,
                length_penalty=length_penalty,
                eos_id=self.tokenizer.sep_id,
                pad_id=self.tokenizer.pad_id,
                seeds=seeds,
            )
        return [self.tokenizer.decode(row[len(prompt) :]) for row in ids]


def texts_of(samples: Samples, num_images: int) -> list[str]:
    """The texts of a batch, one per image; a single str goes with every image.

    Raises:
        ConfigError: more or fewer texts than images.
    """
    texts = samples["text_input"]
    if isinstance(texts, str):
        return [texts] * num_images
    if len(texts) != num_images:
        raise ConfigError(
            f"text_input: {len(texts)} texts for {num_images} images; it takes one for each"
        )
    return list(texts)


def add_joint_space(model: Any, text: Spec, embed_width: int) -> None:
    """Give a Blip the text encoder and the projections of a JointSpace, and a matching head."""
    model.embed_width = embed_width
    model.text_encoder = model.build_text(text)
    model.vision_proj = nn.Linear(model.visual_encoder.width, embed_width)
    model.text_proj = nn.Linear(model.text_encoder.width, embed_width)
    model.itm_head = nn.Linear(model.text_encoder.width, 2)


def add_momentum(model: Any, losses: LossSpecs | None) -> None:
    """Give a model with ``momentum_pairs`` its momentum copy, if one of its losses asks for it."""
    named = [spec["name"] for spec in (losses or {}).values() if "name" in spec]
    wanted = [registry.result("loss", name) for name in named]
    if any("momentum" in getattr(loss, "requires", ()) for loss in wanted):
        copy_towers(model)


def copy_towers(model: Any) -> None:
    """Give a model its momentum copy: what ``momentum_pairs`` names, frozen, as ``<name>_m``."""
    for name in model.momentum_pairs:
        frozen = copy.deepcopy(getattr(model, name))
        setattr(model, f"{name}_m", frozen.requires_grad_(False))


def momentum_view(capability: type[T], model: Any) -> T:
    """A model's momentum copy as something that has a capability.

    Args:
        capability: a class without a constructor, such as ``JointSpace``.
        model: it has copies of what ``momentum_pairs`` names.
    """
    view = capability()
    for name in model.momentum_pairs:
        setattr(view, name, getattr(model, f"{name}_m"))
    for shared in ("tokenizer", "tokenize"):
        setattr(view, shared, getattr(model, shared))
    return view
