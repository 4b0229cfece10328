"""Generation: greedy, beam search and nucleus sampling over any decoder with a cache."""

from lavis_lite.modules.generation.decoder import Decoder
from lavis_lite.modules.generation.methods import generate

__all__ = ["Decoder", "generate"]
