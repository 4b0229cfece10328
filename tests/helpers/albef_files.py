"""Files in the layouts of ALBEF's released checkpoints, at the size of the type `tiny`.

Written down from the published code (salesforce/ALBEF, models/xbert.py and model_*.py), not from
ours; and what that code computes from such a file, one text at a time and without padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WORDS, WIDTH, MLP, HEADS, PLACES = 1062, 64, 128, 4, 512
VISION_DEPTH, DEPTH, FUSION, EMBED, QUEUE = 3, 4, 2, 32, 8
IMAGE_PLACES = 17
EPS = 1e-12
Shapes = dict[str, tuple[int, ...]]
Weights = dict[str, Tensor]


def linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str) -> Shapes:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def vit(name: str) -> Shapes:
    found: Shapes = {
        f"{name}.cls_token": (1, 1, WIDTH),
        f"{name}.pos_embed": (1, IMAGE_PLACES, WIDTH),
        f"{name}.patch_embed.proj.weight": (WIDTH, 3, 16, 16),
        f"{name}.patch_embed.proj.bias": (WIDTH,),
        **norm(f"{name}.norm"),
    }
    for number in range(VISION_DEPTH):
        block = f"{name}.blocks.{number}"
        found |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
        found |= linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH)
        found |= linear(f"{block}.attn.proj", WIDTH, WIDTH)
        found |= linear(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH)
        found |= linear(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH)
    return found


def bert(name: str, depth: int, fusion: int) -> Shapes:
    found: Shapes = {
        f"{name}.embeddings.position_ids": (1, PLACES),
        f"{name}.embeddings.word_embeddings.weight": (WORDS, WIDTH),
        f"{name}.embeddings.position_embeddings.weight": (PLACES, WIDTH),
        f"{name}.embeddings.token_type_embeddings.weight": (2, WIDTH),
        **norm(f"{name}.embeddings.LayerNorm"),
    }
    for number in range(depth):
        layer = f"{name}.encoder.layer.{number}"
        for part in ("attention", "crossattention")[: 1 + (number >= fusion)]:
            for heads in ("query", "key", "value"):
                found |= linear(f"{layer}.{part}.self.{heads}", WIDTH, WIDTH)
            found |= linear(f"{layer}.{part}.output.dense", WIDTH, WIDTH)
            found |= norm(f"{layer}.{part}.output.LayerNorm")
        found |= linear(f"{layer}.intermediate.dense", MLP, WIDTH)
        found |= linear(f"{layer}.output.dense", WIDTH, MLP) | norm(f"{layer}.output.LayerNorm")
    return found


def word_head(name: str) -> Shapes:
    start = f"{name}.cls.predictions"
    return {
        f"{start}.bias": (WORDS,),
        **linear(f"{start}.transform.dense", WIDTH, WIDTH),
        **norm(f"{start}.transform.LayerNorm"),
        **linear(f"{start}.decoder", WORDS, WIDTH),
    }


def class_head(name: str, classes: int) -> Shapes:
    return linear(f"{name}.0", WIDTH, WIDTH) | linear(f"{name}.2", classes, WIDTH)


def layout(kind: str) -> Shapes:
    """Key -> shape of a file of one kind: ``pretrain``, ``retrieval``, ``vqa``, ``nlvr``..."""
    found: Shapes = {}
    for m in ("", "_m"):
        found |= vit(f"visual_encoder{m}")
        encoder = f"text_encoder{m}"
        if kind == "pretrain":
            found |= bert(f"{encoder}.bert", DEPTH, FUSION) | word_head(encoder)
        elif kind in ("nlvr", "two_images"):
            found |= bert(encoder, FUSION + 2 * (DEPTH - FUSION), FUSION)
        else:
            found |= bert(encoder, DEPTH, FUSION)
        if kind in ("pretrain", "retrieval"):
            found |= linear(f"vision_proj{m}", EMBED, WIDTH) | linear(f"text_proj{m}", EMBED, WIDTH)
        if kind == "vqa":
            decoder = f"text_decoder{m}"
            found |= bert(f"{decoder}.bert", DEPTH - FUSION, 0) | word_head(decoder)
        if kind in ("nlvr", "classification"):
            found |= class_head(f"cls_head{m}", 2 if kind == "nlvr" else 3)
    if kind in ("pretrain", "retrieval"):
        found |= {"temp": (), "queue_ptr": (1,), **linear("itm_head", 2, WIDTH)}
        found |= {"image_queue": (EMBED, QUEUE), "text_queue": (EMBED, QUEUE)}
    if kind == "retrieval":
        found["idx_queue"] = (1, QUEUE)
    if kind == "two_images":
        found |= linear("ta_head", 3, WIDTH)
    return found


def file(kind: str, seed: int = 0) -> Weights:
    """A file of one kind: every number drawn, large enough to tell texts apart, ties equal."""
    generator = torch.Generator().manual_seed(seed)
    made: Weights = {}
    for key, shape in layout(kind).items():
        x = torch.randn(shape, generator=generator)
        if key.endswith("position_ids"):
            x = torch.arange(PLACES)[None]
        elif key in ("idx_queue", "queue_ptr"):
            x = torch.full(shape, 3)
        elif key == "temp":
            x = torch.tensor(0.07)
        elif key.endswith("_queue"):
            x = F.normalize(x, dim=0)
        elif "orm" in key.rsplit(".", 2)[-2]:
            x = 0.1 * x + (1 if key.endswith("weight") else 0)
        elif "embeddings" in key or key.endswith(("bias", "cls_token", "pos_embed")):
            x = 0.3 * x
        else:
            x = x * 1.5 / (x[0].numel() ** 0.5)
        made[key] = x
    return tied(made)


def tied(made: Weights) -> Weights:
    for name in [k.removesuffix("decoder.weight") for k in made if k.endswith("s.decoder.weight")]:
        tower = f"{name.partition('.')[0]}.bert"
        made[f"{name}decoder.weight"] = made[f"{tower}.embeddings.word_embeddings.weight"]
        made[f"{name}decoder.bias"] = made[f"{name}bias"]
    for name in ("text_encoder", "text_encoder_m"):
        if f"{name}.encoder.layer.5.output.dense.bias" in made:  # `share_cross_attention`
            for first in range(FUSION, FUSION + 2 * (DEPTH - FUSION), 2):
                for part in ("key.weight", "key.bias", "value.weight", "value.bias"):
                    keys = [
                        f"{name}.encoder.layer.{n}.crossattention.self.{part}"
                        for n in (first, first + 1)
                    ]
                    made[keys[0]] = made[keys[1]]
    return made


# ---- what the published code computes


def dense(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"], EPS)


def attended(w: Weights, name: str, x: Tensor, source: Tensor, causal: bool = False) -> Tensor:
    """(T, D) states that looked at (N, D), with residual and norm."""
    query, key, value = (
        dense(w, f"{name}.self.{part}", states)
        for part, states in (("query", x), ("key", source), ("value", source))
    )
    size, out = WIDTH // HEADS, []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / size**0.5
        if causal:
            scores = scores + torch.full(scores.shape, -1e4).triu(1)
        out.append(scores.softmax(-1) @ value[:, part])
    found = dense(w, f"{name}.output.dense", torch.cat(out, dim=1))
    return layer_norm(w, f"{name}.output.LayerNorm", found + x)


def states(
    w: Weights, name: str, ids: Tensor, sources: Sequence[Tensor | None], causal: bool = False
) -> Tensor:
    """(T,) ids to (T, D): one layer per source, which it looks at unless that is None."""
    start = f"{name}.embeddings"
    x = w[f"{start}.word_embeddings.weight"][ids] + w[f"{start}.token_type_embeddings.weight"][0]
    x = layer_norm(
        w, f"{start}.LayerNorm", x + w[f"{start}.position_embeddings.weight"][: len(ids)]
    )
    for number, source in enumerate(sources):
        layer = f"{name}.encoder.layer.{number}"
        x = attended(w, f"{layer}.attention", x, x, causal)
        if source is not None:
            x = attended(w, f"{layer}.crossattention", x, source)
        inner = F.gelu(dense(w, f"{layer}.intermediate.dense", x))
        x = layer_norm(w, f"{layer}.output.LayerNorm", dense(w, f"{layer}.output.dense", inner) + x)
    return x


def word_logits(w: Weights, name: str, x: Tensor) -> Tensor:
    """(T, D) to (T, V)."""
    start = f"{name}.cls.predictions"
    x = layer_norm(
        w, f"{start}.transform.LayerNorm", F.gelu(dense(w, f"{start}.transform.dense", x))
    )
    return dense(w, f"{start}.decoder", x)
