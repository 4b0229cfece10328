"""Large contrastive batches in little memory: embeddings are computed chunk by chunk, twice.

The forward pass keeps the embeddings alone. The backward pass takes the loss's gradient with
respect to them, and encodes each chunk again to carry it to the weights: the gradient of the whole
batch, with the activations of one chunk.

Reference: GradCache, https://arxiv.org/abs/2101.06983, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lavis_lite.errors import ConfigError
from lavis_lite.losses.shared import Shared
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.modules.interfaces import Embeds
from lavis_lite.modules.output import Samples
from lavis_lite.modules.text.text_batch import TextBatch


class CachedShared(Shared[Embeds]):
    """A step's view whose embeddings are computed by chunks; the same numbers and gradients.

    It serves losses that need embeddings alone: a loss that asks for tokens gets those of the whole
    batch, with their memory.

    Args:
        model: what encodes.
        samples: the batch.
        chunk_size: rows that are encoded, and whose activations exist, at a time.
        step_info: where the run stands; None reads it from the batch, see ``StepInfo.of``.
        grad: whether anything computed here may carry gradients.
    """

    def __init__(
        self,
        model: Embeds,
        samples: Samples,
        chunk_size: int,
        step_info: StepInfo | None = None,
        *,
        grad: bool = True,
    ) -> None:
        super().__init__(model, samples, step_info, grad=grad)
        self.chunk_size = chunk_size

    @cached_property
    def image_features(self) -> Tensor:
        """(B, E) unit length, fp32."""
        model = self.model

        def embed(image: Tensor) -> Tensor:
            return model.image_features(model.encode_image(image))

        image = self.samples["image"]
        return self._compute(lambda: by_chunks(embed, self.chunk_size, image))

    @cached_property
    def text_features(self) -> Tensor:
        """(B, E) unit length, fp32."""
        return self._compute(lambda: self._features_of(self.text))

    def _features_of(self, text: TextBatch) -> Tensor:
        model = self.model

        def embed(ids: Tensor, mask: Tensor) -> Tensor:
            return model.text_features(model.encode_text(TextBatch(ids, mask)))

        return by_chunks(embed, self.chunk_size, *text)


def by_chunks(embed: Callable[..., Tensor], chunk_size: int, *rows: Tensor) -> Tensor:
    """``embed(*rows)`` for rows (B, ...), of at most ``chunk_size`` rows at a time.

    Random numbers (dropout) are the same both times a chunk is encoded. Unlike in a loop with a
    backward pass per chunk, there is one graph: gradients are exchanged between processes once.
    """
    chunks = zip(*(tensor.split(chunk_size) for tensor in rows), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([embed(*chunk) for chunk in chunks])
    return torch.cat([checkpoint(embed, *chunk, use_reentrant=False) for chunk in chunks])


def check_cachable(model: nn.Module, chunk_size: int) -> None:
    """Refuse a model whose embeddings of a row depend on the other rows of its batch.

    Raises:
        ConfigError: it has batch statistics, or the size is negative.
    """
    if chunk_size < 0:
        raise ConfigError(f"model.gradient_cache: {chunk_size}; rows of a chunk, 0 for none")
    for name, module in model.named_modules():
        if chunk_size and getattr(module, "running_mean", None) is not None:
            raise ConfigError(
                f"model.gradient_cache: {name} ({type(module).__name__}) keeps statistics of the "
                "batch, which chunks would change; use 0, or a tower with layer norms"
            )
