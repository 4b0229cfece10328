"""Models: the base class, encoders, heads by task, and models by name.

base.py               what every model has: image size, losses, saving
encoders.py           image and text encoders, the joint space
multimodal.py         texts read with their image: matching, ranking, masked words
classification.py     the class of an image, or of several, with a text
vqa.py                answers to questions, generated and ranked
features.py           an image and a text as features, apart and together
retrieval.py          the joint space and matching, trained together
momentum.py           the momentum copy
gradcam.py            where in an image the words of a text are found
heatmap.py            that map laid over the image
published_weights.py  weights in published layouts
folder.py             save_pretrained and from_pretrained
zoo.py                models by name
"""

from lavis_lite.models.zoo import (
    create_model,
    load_model,
    load_model_and_preprocess,
    load_preprocess,
    model_zoo,
)

__all__ = [
    "create_model",
    "load_model",
    "load_model_and_preprocess",
    "load_preprocess",
    "model_zoo",
]
