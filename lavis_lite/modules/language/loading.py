"""``hf/*``: any causal or encoder-decoder language model of transformers, by folder or hub id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from lavis_lite import registry
from lavis_lite.errors import CheckpointError, ConfigError
from lavis_lite.io.hub import hub_client, offline
from lavis_lite.io.packages import naming_torchvision
from lavis_lite.modules.language.causal import CausalLanguage
from lavis_lite.modules.language.encoder_decoder import EncoderDecoderLanguage
from lavis_lite.modules.language.memory import check_memory
from lavis_lite.modules.language.tokens import LanguageTokens
from lavis_lite.modules.text.config_checks import path_problem
from lavis_lite.modules.text.hub_files import first_line, hub_error

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Language = CausalLanguage | EncoderDecoderLanguage
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def language_problems(spec: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of a language model's component, as far as local files tell."""
    if problem := path_problem(spec["name"].removeprefix("hf/")):
        yield f"{spec['name']}: {problem}"


@registry.register("language_model", "hf/*", check=language_problems)
def hf_language(
    name: str,
    pretrained: bool = False,
    revision: str | None = None,
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
    start: str | None = None,
    end: str | None = None,
    config: dict[str, Any] | None = None,
) -> Language:
    """Build any causal or encoder-decoder language model; code that comes with it is never run.

    Args:
        name: hub id or folder, with its tokenizer.
        pretrained: load its weights; otherwise only its config is used, for the shape.
        revision: commit or tag of the hub repository.
        dtype: format of its weights.
        start: the token in front of texts; None: the one that its tokenizer puts there, or none.
        end: what ends a text, such as a newline; None: the tokenizer's end token.
        config: values of its config that differ, such as ``{dense_act_fn: gelu}``.

    Raises:
        ConfigError: no such model, none that writes texts, a config without such a value, or more
            weights than there is free memory for.
        CheckpointError: weights without a head that their config says is their own.
        DownloadError: not in the local cache, and offline or the hub cannot be reached.
    """
    with naming_torchvision():
        from transformers import AutoConfig

    if problem := path_problem(name):
        raise ConfigError(f"hf/{name}: {problem}")
    options = {"revision": revision, "trust_remote_code": False, "local_files_only": offline()}
    try:
        with naming_torchvision(), hub_client():
            settings = AutoConfig.from_pretrained(name, **options)
            for key, value in (config or {}).items():
                if not hasattr(settings, key):
                    raise ConfigError(f"hf/{name}: config: it has no {key!r}")
                setattr(settings, key, value)
            if pretrained:
                _check_memory(name, settings, DTYPES[dtype])
                model = _class(f"hf/{name}", settings).from_pretrained(
                    name, config=settings, dtype=DTYPES[dtype], **options
                )
            else:
                model = build_from_config(f"hf/{name}", settings, DTYPES[dtype])
    except OSError as error:
        instead = "`hf/FOLDER` as name, a folder that holds its config, weights and tokenizer"
        raise hub_error(f"hf/{name}", name, error, instead) from None
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"hf/{name}: {first_line(error)}") from None
    _separate_head(f"hf/{name}", model, pretrained)
    tokens = LanguageTokens(name, start, end, revision)
    if len(tokens) > model.get_input_embeddings().num_embeddings:
        known = model.get_input_embeddings().num_embeddings
        raise ConfigError(f"hf/{name} knows {known} tokens, its tokenizer {len(tokens)}")
    adapter = EncoderDecoderLanguage if settings.is_encoder_decoder else CausalLanguage
    return adapter(model, tokens)


def _class(name: str, settings: PretrainedConfig) -> Any:
    """Return transformers' factory for a config's kind of language model."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    factories = (AutoModelForSeq2SeqLM, AutoModelForCausalLM)
    for factory in factories if settings.is_encoder_decoder else factories[1:]:
        if type(settings) in factory._model_mapping:
            return factory
    raise ConfigError(
        f"{name}: a {type(settings).__name__} of transformers is no language model that writes "
        "texts; take one such as hf/facebook/opt-2.7b or hf/google/flan-t5-xl"
    )


def build_from_config(
    name: str, settings: PretrainedConfig, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Build a language model with random weights.

    Args:
        name: of its component, for errors.
        settings: its config.
        dtype: of its weights.

    Raises:
        ConfigError: no language model, or values that it refuses.
    """
    try:
        model = _class(name, settings).from_config(settings, dtype=dtype)
    except (ValueError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{name}: {first_line(error)}") from None
    _separate_head(name, model, False)
    return model


def _check_memory(name: str, settings: PretrainedConfig, dtype: torch.dtype) -> None:
    with torch.device("meta"):
        empty = _class(f"hf/{name}", settings).from_config(settings)
    remedy = (
        "load it in half precision (`dtype: fp16` of the language model, bf16 for a T5), take a "
        "smaller one, or a machine with more"
    )
    count = sum(parameter.numel() for parameter in empty.parameters())
    check_memory(f"hf/{name}", count, dtype.itemsize, remedy)


def _separate_head(name: str, model: PreTrainedModel, pretrained: bool) -> None:
    """Give a T5 of version 1.1 (Flan-T5) its own head: transformers ties it to the embeddings.

    Raises:
        CheckpointError: its weights came without it.
    """
    shared, head = getattr(model, "shared", None), getattr(model, "lm_head", None)
    if shared is None or head is None or getattr(model.config, "scale_decoder_outputs", True):
        return
    if head.weight is shared.weight:
        if pretrained:
            raise CheckpointError(
                f"{name}: its weights have no lm_head.weight, and its config says that the head "
                "is its own; fetch them anew"
            )
        head.weight = nn.Parameter(head.weight.detach().clone())
