"""BERT's embeddings of tokens and positions, without token types."""

from __future__ import annotations

from torch import Tensor, nn


class Embeddings(nn.Module):
    """Word plus position embeddings, normalised.

    Args:
        vocab_size: number of words. None: there are none, and only ``normalize`` works.
        max_length: number of positions.
        width: width D.
        dropout: probability.
        eps: epsilon of the LayerNorm.
    """

    def __init__(
        self, vocab_size: int | None, max_length: int, width: int, dropout: float, eps: float
    ) -> None:
        super().__init__()
        if vocab_size is not None:
            self.word_embeddings = nn.Embedding(vocab_size, width)
            self.position_embeddings = nn.Embedding(max_length, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor, start: int = 0, positions: Tensor | None = None) -> Tensor:
        """Embed ids (R, T) at ``positions`` (R, T), or from ``start`` on, as (R, T, D)."""
        limit = self.position_embeddings.num_embeddings
        if positions is not None:
            assert ids.shape[1] <= limit or int(positions.max()) < limit, "a text is too long"
            at_positions = self.position_embeddings(positions)  # (R, T, D)
        else:
            end = start + ids.shape[1]
            assert end <= limit, f"{end} tokens, but the text tower holds {limit}"
            at_positions = self.position_embeddings.weight[start:end]  # (T, D)
        return self.normalize(self.word_embeddings(ids) + at_positions)  # (R, T, D)

    def normalize(self, states: Tensor) -> Tensor:
        """Return sums of embeddings (..., D) as the layers take them, with dropout in training."""
        return self.dropout(self.LayerNorm(states))  # (..., D)

    def _load_from_state_dict(
        self, state_dict: dict[str, object], prefix: str, *rest: object
    ) -> None:
        state_dict.pop(f"{prefix}position_ids", None)  # a buffer 0, 1, 2... of older checkpoints
        super()._load_from_state_dict(state_dict, prefix, *rest)
