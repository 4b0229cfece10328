"""Models: the base class, encoders, heads by task, and models by name.

base.py               what every model has: image size, losses, saving
build.py              the steps of registered builders: towers and heads from components
formats.py            layouts of weights other than our own
momentum.py           the momentum copy
frozen_vision.py      a vision encoder that is not trained
multimodal.py         a vision encoder, and a text encoder that reads with it
joint_space.py        images and texts as unit vectors of one space
captioning.py         texts about images, whatever the decoder
dual_encoder.py       two towers that meet in one space, alone
build_dual.py         a dual encoder from its components
retrieval.py          the joint space and matching, trained together
classification.py     the class of an image, or of several, with a text
vqa.py                answers to questions, generated and ranked
features.py           an image and a text as features, apart and together
gradcam.py            where in an image the words of a text are found
heatmap.py            that map laid over the image
published_weights.py  weights in published layouts
folder.py             save_pretrained and from_pretrained
zoo.py                models by name
pipelines/            tasks in one line
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
