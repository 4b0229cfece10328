"""Text encoders of transformers, by hub id or folder: ``hf/bert-base-uncased``, ``hf//my/folder``.

For models that encode texts alone. BLIP needs cross-attention, which is ``med``'s.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.errors import ConfigError, DownloadError
from lavis_lite.io import offline


class HfEncoder(nn.Module):
    """A transformers model as ids (B, T) and mask (B, T) -> states (B, T, D).

    Args:
        model: any transformers text encoder; of an encoder-decoder the encoder is taken.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.get_encoder() if model.config.is_encoder_decoder else model
        self.width: int = model.config.hidden_size
        self.vocab_size: int = model.config.vocab_size

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T) ids, mask 1 for real tokens -> (B, T, D) states of the last layer."""
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state


@registry.register("text_backbone", "hf/*")
def hf_encoder(
    name: str,
    pretrained: bool = True,
    revision: str | None = None,
    *,
    vocab_size: int | None = None,
) -> HfEncoder:
    """Any transformers text encoder; code that comes with a checkpoint is never run.

    Args:
        name: hub id or folder.
        pretrained: load its weights; without, its config alone gives the shape.
        revision: commit or tag of the hub repository.
        vocab_size: of the tokenizer in use; must not be larger than the model's.

    Raises:
        ConfigError: no such model, one that needs code of its own, or too small a vocabulary.
        DownloadError: offline, and not in the local cache.
    """
    from transformers import AutoConfig, AutoModel

    options = {"revision": revision, "trust_remote_code": False, "local_files_only": offline()}
    try:
        if pretrained:
            model = AutoModel.from_pretrained(name, dtype=torch.float32, **options)
        else:
            model = AutoModel.from_config(AutoConfig.from_pretrained(name, **options))
    except OSError as error:
        failure = DownloadError if offline() else ConfigError
        raise failure(f"hf/{name}: {_first_line(error)} A folder works too: hf//path/to") from None
    except ValueError as error:
        raise ConfigError(f"hf/{name}: {_first_line(error)}") from None
    encoder = HfEncoder(model)
    if vocab_size is not None and vocab_size > encoder.vocab_size:
        raise ConfigError(
            f"hf/{name} knows {encoder.vocab_size} tokens, the tokenizer {vocab_size}: "
            f"take the model's own tokenizer (`tokenizer: {name}`)"
        )
    return encoder


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
