"""Small models of transformers, as their save_pretrained writes them."""

from __future__ import annotations

from pathlib import Path

import torch

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]


def save_blip(folder: Path) -> Path:
    """Write a random BLIP of transformers with its processor, for images of 32 x 32."""
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    (folder / "vocab.txt").write_text("\n".join(WORDS))
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2}
    torch.manual_seed(0)
    config = BlipConfig(
        vision_config={**shape, "image_size": 32, "patch_size": 16},
        text_config={
            **shape, "vocab_size": len(WORDS), "encoder_hidden_size": 32, "bos_token_id": 2,
            "max_position_embeddings": 64, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0,
        },
    )  # fmt: skip
    BlipForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, BertTokenizerFast(str(folder / "vocab.txt"))).save_pretrained(folder)
    return folder
