"""Tiny language models of transformers in folders of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

SENTENCE = (
    "a photo of the red dog runs on green grass two people standing near lake question answer what "
    "is it"
)
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "\n", *SENTENCE.split()]
SIZES = {
    "opt": transformers.OPTConfig(
        vocab_size=len(WORDS), hidden_size=32, word_embed_proj_dim=32, ffn_dim=48,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64, dropout=0.0,
        bos_token_id=2, eos_token_id=2, pad_token_id=1,
    ),
    "gpt2": transformers.GPT2Config(
        vocab_size=len(WORDS), n_embd=32, n_layer=2, n_head=2, n_positions=64,
        bos_token_id=2, eos_token_id=2,
    ),
    "llama": transformers.LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, bos_token_id=2, eos_token_id=2,
        pad_token_id=1,
    ),
    "t5": transformers.T5Config(
        vocab_size=len(WORDS), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=1,
        pad_token_id=1, eos_token_id=2, dropout_rate=0.0,
    ),
    "bart": transformers.BartConfig(
        vocab_size=len(WORDS), d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=48,
        decoder_ffn_dim=48, encoder_attention_heads=2, decoder_attention_heads=2,
        max_position_embeddings=64, dropout=0.0, bos_token_id=0, eos_token_id=2, pad_token_id=1,
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def language_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``language_folder(kind)``: a folder with config, tokenizer and weights, made once."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            words = {word: index for index, word in enumerate(WORDS)}
            tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
            tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
            transformers.PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="</s>"
            ).save_pretrained(made[kind])
            torch.manual_seed(0)
            encoder_decoder = SIZES[kind].is_encoder_decoder
            factory = (
                transformers.AutoModelForSeq2SeqLM
                if encoder_decoder
                else transformers.AutoModelForCausalLM
            )
            model = factory.from_config(SIZES[kind])
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
            if kind == "t5":  # version 1.1 has a head of its own
                model.lm_head.weight = torch.nn.Parameter(0.5 * torch.randn(len(WORDS), 32))
            model.save_pretrained(made[kind])
        return made[kind]

    return folder
