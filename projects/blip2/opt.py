"""blip2_opt: a causal language model, OPT in the paper, that is told of an image by a Q-Former."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs, Spec
from lavis_lite.models.build import describe_arguments
from lavis_lite.projects.blip2.build_language import build_parts
from lavis_lite.projects.blip2.language import QueriedLanguage


class Blip2Opt(QueriedLanguage):
    """Images described, and questions about them answered, by a causal language model.

    Reference: BLIP-2, https://arxiv.org/abs/2301.12597, section 3.2.
    """


@registry.register("model", "blip2_opt")
@describe_arguments
def blip2_opt(
    vision: Spec,
    text: Spec,
    language: Spec,
    image_size: ImageSize = 224,
    prompt: str = "",
    answer_prompt: str = "",
    max_length: int = 32,
    freeze_vision: bool = True,
    freeze_language: bool = True,
    losses: LossSpecs | None = None,
) -> Blip2Opt:
    """A causal language model that is told of an image by a Q-Former.

    Args:
        text: the Q-Former's component.
        max_length: tokens that a text, and a prompt, are cut to.

    Reference: BLIP-2, https://arxiv.org/abs/2301.12597, section 3.2.
    """
    parts = build_parts(vision, text, language, image_size, freeze_vision, freeze_language)
    model = Blip2Opt(
        **parts._asdict(),
        prompt=prompt,
        answer_prompt=answer_prompt,
        max_length=max_length,
        max_prompt_length=max_length,
        image_size=image_size,
    )
    model.add_losses(losses)
    return model
