"""The embedded datasets: drawn scenes with captions, questions, statements and classes."""

from lavis_lite.data.scenes.captions import Scenes

__all__ = ["Scenes"]
