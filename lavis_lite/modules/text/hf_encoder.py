"""Text encoders of transformers, by hub id or folder: ``hf/bert-base-uncased``, ``hf//my/folder``.

They serve models that encode text alone. BLIP needs cross-attention, which ``med`` has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.errors import ConfigError
from lavis_lite.io.hub import hub_client, offline
from lavis_lite.io.packages import naming_torchvision
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.text.config_checks import length_problems, path_problem, tokenizer_problems
from lavis_lite.modules.text.hf_tokenizer import PREFIX
from lavis_lite.modules.text.hub_files import first_line, hub_error
from lavis_lite.modules.text.load_tokenizer import tokenizer_for
from lavis_lite.modules.text.pooling import Pooling, pool_states

POSITIONS = ("position_embeddings", "position_embedding", "embed_positions", "wpe")


class HfEncoder(nn.Module):
    """A transformers model that maps ids (B, T) and mask (B, T) to states (B, T, D).

    Args:
        model: any transformers text encoder; an encoder-decoder is reduced to its encoder.
        pooling: the state that represents a text; None chooses by the kind of model.

    Attributes:
        width: D.
        vocab_size: number of word embeddings.
        max_length: the most tokens that it takes; None if its positions have no limit.
        pooling: ``last`` for a causal model, ``first`` for one whose texts start with a class
            token, ``mean`` for an encoder-decoder's encoder, whose texts do not.
    """

    def __init__(self, model: Any, pooling: Pooling | None = None) -> None:
        super().__init__()
        config = model.config
        self.model = model.get_encoder() if config.is_encoder_decoder else model
        self.width: int = config.hidden_size
        self.vocab_size: int = config.vocab_size
        self.max_length = most_tokens(self.model)
        whole = "mean" if config.is_encoder_decoder else "first"
        self.pooling: Pooling = pooling or ("last" if is_causal(self.model) else whole)  # type: ignore[assignment]

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map ids (B, T), mask 1 for real tokens, to the last layer's states (B, T, D)."""
        if mask is None:  # without a mask some models treat the padding token's id as padding
            mask = torch.ones_like(ids)
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    def pool(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool states (B, T, D) with mask (B, T) to one vector per text, (B, D)."""
        return pool_states(states, mask, self.pooling)


def kind_problem(model: Any) -> str | None:
    """Say why a transformers model is not a text encoder (a whole CLIP, a ViT), or None."""
    sizes = (getattr(model.config, key, None) for key in ("hidden_size", "vocab_size"))
    if model.main_input_name == "input_ids" and all(isinstance(size, int) for size in sizes):
        return None
    return (
        f"a {type(model).__name__} of transformers is not a text encoder; take one such as "
        "hf/bert-base-uncased, hf/roberta-base or hf/gpt2"
    )


def most_tokens(model: Any) -> int | None:
    """Return the most tokens that a transformers model takes; None if it has no limit.

    RoBERTa-like models count positions from the one after the padding token's id, OPT from 2: their
    tables have that many rows more than texts can have tokens.
    """
    stated = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rsplit(".", 1)[-1] in POSITIONS:
            padding = getattr(module, "padding_idx", None)
            offset = getattr(module, "offset", 0 if padding is None else padding + 1)
            return module.num_embeddings - offset
    return stated if stated and stated > 0 else None  # XLNet says -1


def is_causal(model: Any) -> bool:
    """Try whether later tokens leave the states of earlier ones unchanged.

    The configs of models cannot be trusted (CLIP's text tower says that it is not causal). A model
    without storage cannot be tried: then the attributes of its attention decide.
    """
    if next(model.parameters()).is_meta:
        return any(getattr(module, "is_causal", False) for module in model.modules())
    device = next(model.parameters()).device
    ids = torch.tensor([[1, 2], [1, 3]], device=device) % model.config.vocab_size
    with torch.no_grad(), eval_mode(model):
        states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return bool(torch.allclose(states[0, 0], states[1, 0], rtol=0, atol=1e-6))


def hf_problems(spec: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of an ``hf/*`` component, as far as local files tell.

    Args:
        spec: the component.
        model: the arguments of the model around it.
    """
    name = spec["name"].removeprefix("hf/")
    yield from tokenizer_problems(model)
    try:
        with naming_torchvision(), hub_client(only_look=True):
            from transformers import AutoConfig, AutoModel

            config = AutoConfig.from_pretrained(
                name, revision=spec.get("revision"), trust_remote_code=False, local_files_only=True
            )
        with torch.device("meta"):
            encoder = AutoModel.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        if Path(name).exists():
            yield f"hf/{name}: {first_line(error)}"
        elif problem := path_problem(name):
            yield f"hf/{name}: {problem}"
        return  # not on this machine: checked when it is built
    if problem := kind_problem(encoder):
        yield f"hf/{name}: {problem}"
        return
    yield from length_problems(spec["name"], most_tokens(encoder), model)
    try:
        size = tokens_known_here(spec, model.get("tokenizer"))
    except ConfigError as error:
        yield str(error)
        return
    if size > config.vocab_size:
        yield (
            f"text_backbone {spec['name']!r} knows {config.vocab_size} tokens, the tokenizer "
            f"{size}: take the model's own (model.tokenizer={spec['name']})"
        )


def tokens_known_here(spec: Mapping[str, Any], source: str | None) -> int:
    """Return the vocabulary size of the tokenizer in use, 0 if it would have to be fetched."""
    tokenizer = spec["name"] if source is None else str(source)
    if not Path(tokenizer.removeprefix(PREFIX)).expanduser().exists():
        return 0
    return len(tokenizer_for(spec, source))


@registry.register("text_backbone", "hf/*", check=hf_problems)
def hf_encoder(
    name: str,
    pretrained: bool = False,
    revision: str | None = None,
    pooling: Pooling | None = None,
    *,
    vocab_size: int | None = None,
) -> HfEncoder:
    """Build any transformers text encoder; code that comes with a checkpoint is never run.

    Args:
        name: hub id or folder.
        pretrained: load its weights; otherwise only its config is used, for the shape.
        revision: commit or tag of the hub repository.
        pooling: ``first``, ``last`` or ``mean``; by default chosen by the kind of model.
        vocab_size: vocabulary size of the tokenizer in use; at most the model's.

    Raises:
        ConfigError: no such model, not a text encoder, a model that needs code from its
            checkpoint, or too small a vocabulary.
        DownloadError: not in the local cache, and offline or the hub cannot be reached.
    """
    with naming_torchvision():
        from transformers import AutoConfig, AutoModel

    options = {"revision": revision, "trust_remote_code": False, "local_files_only": offline()}
    try:
        with naming_torchvision(), hub_client(name):
            if pretrained:
                model = AutoModel.from_pretrained(name, dtype=torch.float32, **options)
            else:
                model = AutoModel.from_config(AutoConfig.from_pretrained(name, **options))
    except OSError as error:
        instead = "`hf/FOLDER` as name, a folder that holds config.json and model.safetensors"
        raise hub_error(f"hf/{name}", name, error, instead) from None
    except ValueError as error:
        raise ConfigError(f"hf/{name}: {first_line(error)}") from None
    if problem := kind_problem(model):
        raise ConfigError(f"hf/{name}: {problem}")
    encoder = HfEncoder(model, pooling)
    if vocab_size is not None and vocab_size > encoder.vocab_size:
        raise ConfigError(
            f"hf/{name} knows {encoder.vocab_size} tokens, the tokenizer {vocab_size}: "
            f"take the model's own tokenizer (`tokenizer: hf/{name}`)"
        )
    return encoder
