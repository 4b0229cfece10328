"""``new/*``: language models of transformers' architectures that are yet to be trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lavis_lite import registry
from lavis_lite.checkpoint.load_state import load_state
from lavis_lite.checkpoint.weights import read_weights
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.io.packages import naming_torchvision
from lavis_lite.modules.language.causal import CausalLanguage
from lavis_lite.modules.language.encoder_decoder import EncoderDecoderLanguage
from lavis_lite.modules.language.loading import Language, build_from_config
from lavis_lite.modules.language.tokens import WordPieceTokens
from lavis_lite.modules.text.load_tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_PART = "language."  # where models of the zoo keep their language model


@registry.register("language_model", "new/*")
def new_language(
    name: str,
    config: dict[str, Any] | None = None,
    tokenizer: str | None = None,
    pretrained: str | None = None,
) -> Language:
    """Build a small language model of an architecture of transformers, to be trained here.

    Args:
        name: the architecture as transformers calls it: ``opt``, ``gpt2``, ``llama``, ``t5`` ...
        config: values of its config that are not the default, its sizes above all.
        tokenizer: a WordPiece vocabulary's folder, file or hub id; None is that of the package.
        pretrained: weights of a model of the zoo with such a language model, such as the output
            folder of a run that trained it on texts alone.

    Raises:
        ConfigError: no such architecture, one that writes no texts, or values that it lacks.
        CheckpointError: weights that do not fit.
    """
    with naming_torchvision():
        from huggingface_hub.errors import StrictDataclassError
        from transformers import CONFIG_MAPPING

    if name not in CONFIG_MAPPING:
        known = list(CONFIG_MAPPING)
        raise ConfigError(f"new/{name}: transformers has no such model.{suggest(name, known)}")
    words = load_tokenizer(tokenizer)
    ids = {
        "bos_token_id": words.bos_id,
        "eos_token_id": words.sep_id,
        "pad_token_id": words.pad_id,
        "decoder_start_token_id": words.bos_id,
    }
    make: Callable[..., PretrainedConfig] = CONFIG_MAPPING[name]
    settings = make(vocab_size=len(words), **ids)
    known_keys = settings.to_dict()
    for key in config or {}:
        if key not in known_keys and not hasattr(settings, key):
            raise ConfigError(f"new/{name}: config: it has no {key!r}.{suggest(key, known_keys)}")
    try:
        settings = make(**{"vocab_size": len(words), **ids, **(config or {})})
    except StrictDataclassError as error:
        raise ConfigError(f"new/{name}: config: {error.__cause__ or error}") from None
    model = build_from_config(f"new/{name}", settings)
    adapter = EncoderDecoderLanguage if settings.is_encoder_decoder else CausalLanguage
    language = adapter(model, WordPieceTokens(words))
    if pretrained is not None:
        weights = read_weights(pretrained)
        own = {k.removeprefix(_PART): w for k, w in weights.items() if k.startswith(_PART)}
        load_state(language, own or weights, source=pretrained)
    return language
