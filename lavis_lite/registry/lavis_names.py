"""Names of LAVIS's models that have no counterpart here, so that an error can say so."""

from __future__ import annotations

NOT_HERE = {
    "alpro_qa": "questions about videos",
    "alpro_retrieval": "videos and texts",
    "blip_diffusion": "pictures from texts",
    "gpt_dialogue": "dialogue about videos",
    "img2prompt_vqa": "questions answered by a large language model from captions",
    "pnp_vqa": "questions answered from captions without training",
    "pnp_unifiedqav2_fid": "the reader of pnp_vqa",
}


def remark(name: str) -> str:
    """Return the sentence of an error about a model of LAVIS's that is not here; or nothing."""
    if name.partition(".")[0] not in NOT_HERE:
        return ""
    others = ", ".join(NOT_HERE)
    return f" It is a model of LAVIS's that is not in lavis_lite, as are all of: {others}."
