"""BLIP's pre-training losses written down plainly: the reference of the training benchmark.

As the published code does it: every text padded to the most tokens, the image's keys and values
computed anew for true pairs, for negatives and for the decoder, negatives as copies of the image
tokens, the momentum copy moved parameter by parameter. The same weights, the same draws of
negatives, the same numbers.

Reference: BLIP, https://arxiv.org/abs/2201.12086, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_lite.losses.matching import Pool
from lavis_lite.losses.shared import Shared
from lavis_lite.modules.med.model import Med
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.projects.blip.pretrain import BlipPretrain


def losses(model: BlipPretrain, samples: dict[str, Any]) -> dict[str, Tensor]:
    """``itc``, ``itm`` and ``lm`` of a batch, each ().

    Args:
        model: ``blip_pretrain`` with these three losses, on a single process.
        samples: ``image`` (B, 3, H, W) and ``text_input``, B texts.
    """
    image, device = samples["image"], samples["image"].device
    words = model.tokenizer
    text = words.encode(samples["text_input"], model.max_length, device=device, pad_to_max=True)
    with computing_padding(model):
        image_tokens = model.encode_image(image)  # (B, N, D)
        image_features = model.image_features(image_tokens)
        text_features = model.text_features(model.encode_text(text))
        return {
            "itc": contrast(model, image, text, image_features, text_features),
            "itm": matching(model, samples, text, image_tokens, image_features, text_features),
            "lm": language(model, text, image_tokens),
        }


@contextmanager
def computing_padding(model: BlipPretrain) -> Iterator[None]:
    """Let the text towers compute padding like any other token in this context."""
    towers = [module for module in model.modules() if isinstance(module, Med)]
    for tower in towers:
        tower.unpads = False
    try:
        yield
    finally:
        for tower in towers:
            del tower.unpads


def contrast(
    model: BlipPretrain,
    image: Tensor,
    text: TextBatch,
    image_features: Tensor,
    text_features: Tensor,
) -> Tensor:
    """() against the momentum copy's features of the batch and of the queue."""
    loss = model.losses["itc"]
    queue, temperature = loss.queue, model.temperature
    with torch.no_grad():
        if image_features.requires_grad:
            follow(model)
        copy = model.momentum
        image_m = copy.image_features(copy.encode_image(image))
        text_m = copy.text_features(copy.encode_text(text))
        image_columns = torch.cat([image_m.T, queue.image_queue.clone()], dim=1)  # (E, B + Q)
        text_columns = torch.cat([text_m.T, queue.text_queue.clone()], dim=1)
        own = torch.zeros(len(image), image_columns.shape[1], device=image.device)
        own.fill_diagonal_(1)
        to_text = loss.alpha * F.softmax(image_m @ text_columns / temperature, dim=1)
        to_image = loss.alpha * F.softmax(text_m @ image_columns / temperature, dim=1)
        to_text, to_image = (x + (1 - loss.alpha) * own for x in (to_text, to_image))
    with torch.autocast(image.device.type, enabled=False):
        sim_text = image_features @ text_columns / temperature
        sim_image = text_features @ image_columns / temperature
    i2t = -(F.log_softmax(sim_text, dim=1) * to_text).sum(dim=1).mean()
    t2i = -(F.log_softmax(sim_image, dim=1) * to_image).sum(dim=1).mean()
    if image_features.requires_grad:
        queue.push(image_m, text_m)
    return (i2t + t2i) / 2


def follow(model: BlipPretrain) -> None:
    """Move the momentum copy, a parameter at a time."""
    for name in model.momentum_pairs:
        pairs = zip(
            getattr(model, name).parameters(), getattr(model, f"{name}_m").parameters(), strict=True
        )
        for online, average in pairs:
            average.data = average.data * model.momentum.decay + online.data * (
                1.0 - model.momentum.decay
            )


def matching(
    model: BlipPretrain,
    samples: dict[str, Any],
    text: TextBatch,
    image_tokens: Tensor,
    image_features: Tensor,
    text_features: Tensor,
) -> Tensor:
    """() over true pairs, texts with a negative image, images with a negative text."""
    encoder, loss = model.text_encoder, model.losses["itm"]
    ids = text.replace_first(model.tokenizer.enc_id).ids
    true = read(encoder, ids, text.mask, image_tokens)
    with torch.no_grad(), torch.autocast(image_tokens.device.type, enabled=False):
        sim = text_features @ image_features.T / model.temperature
        to_images = F.softmax(sim, dim=1) + loss.epsilon
        to_texts = F.softmax(sim.T, dim=1) + loss.epsilon
        pool = Pool(Shared(model, samples), "local")
        image_index, text_index = pool.draw(to_images, 0), pool.draw(to_texts, 1)
    image_negative = torch.stack([image_tokens[number] for number in image_index])
    ids_negative = torch.stack([ids[number] for number in text_index])
    mask_negative = torch.stack([text.mask[number] for number in text_index])
    false = read(
        encoder,
        torch.cat([ids, ids_negative]),
        torch.cat([text.mask, mask_negative]),
        torch.cat([image_negative, image_tokens]),
    )
    states = torch.cat([true[:, 0], false[:, 0]])
    head = model.itm_head
    with torch.autocast(image_tokens.device.type, enabled=False):
        logits = F.linear(states.float(), head.weight, head.bias)
    labels = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    labels[: len(ids)] = 1
    return F.cross_entropy(logits, labels)


def read(encoder: Med, ids: Tensor, mask: Tensor, image_tokens: Tensor) -> Tensor:
    """(R, T, D) states of texts with the images of their rows, projected for this call alone."""
    return encoder(ids, mask, mode="multimodal", image_kv=encoder.project(image_tokens))


def language(model: BlipPretrain, text: TextBatch, image_tokens: Tensor) -> Tensor:
    """() cross-entropy of each next token."""
    decoder = model.text_decoder
    ids = text.replace_first(model.tokenizer.bos_id).ids
    logits = decoder(ids, text.mask, image_kv=decoder.bert.project(image_tokens))
    targets = ids.masked_fill(ids == model.tokenizer.pad_id, -100)
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),
        targets[:, 1:].flatten(),
        label_smoothing=model.losses["lm"].label_smoothing,
    )
