"""Answers to questions: trained with weights, written, ranked; never a matter of the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_lite import create_model
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.losses.answers import answer_losses, answers_of
from lavis_lite.modules.text.prefix_trie import PrefixTrie

QUESTIONS = [
    "is there a cross?",
    "how many small blue circles are above the large green triangle?",
    "what?",
    "what colour is the star on the left",
    "where is the red square and where is the yellow one",
    "how many",
    "is the circle blue",
    "which shape is large",
]
ANSWERS = ["yes", "no", "red", "blue", "two", "on the left", "a large green triangle", "left", "2"]


def strong(seed: int = 0, **overrides: Any) -> Any:
    """The tiny model with weights large enough to tell images and questions apart."""
    torch.manual_seed(seed)
    model = create_model("blip_vqa", "tiny", **overrides)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
        model.text_decoder.cls.predictions.bias.normal_()
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return strong()


@pytest.fixture(scope="module")
def samples() -> dict[str, Any]:
    image = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return {"image": image, "text_input": QUESTIONS}


def one(samples: dict[str, Any], row: int) -> dict[str, Any]:
    return {"image": samples["image"][row : row + 1], "text_input": [QUESTIONS[row]]}


def read(model: Any, samples: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """States and mask of the questions of samples, read with their images."""
    tokens = model.encode_image(samples["image"])
    return model.read_questions(tokens, model.tokenize(list(samples["text_input"])))


# ---- training


def by_hand(model: Any, image: Tensor, question: str, answer: str) -> Tensor:
    """The summed, smoothed cross-entropy of one answer, on its own and without padding."""
    text = model.tokenizer.encode([question], 35).replace_first(model.tokenizer.enc_id)
    kv = model.text_encoder.project(model.encode_image(image[None]))
    states = model.text_encoder(text.ids, mode="multimodal", image_kv=kv)
    ids = model.tokenizer.encode([answer], 35).replace_first(model.tokenizer.bos_id).ids
    logits = model.text_decoder(ids, image_kv=model.text_decoder.bert.project(states))
    logp = logits[0, :-1].log_softmax(-1)
    true = logp.gather(1, ids[0, 1:, None]).sum()
    return -(0.9 * true + 0.1 * logp.mean(-1).sum())


def test_the_loss_is_the_weighted_sum_over_answers_of_the_mean_question(
    model: Any, samples: dict[str, Any]
) -> None:
    answers = [["red", "on the left"], ["two", "2", "a large green triangle"], ["no"]]
    weights = [[0.7, 0.3], [0.2, 0.2, 0.6], [1.0]]
    batch = {"image": samples["image"][:3], "text_input": QUESTIONS[:3]}
    with torch.no_grad():
        output = model({**batch, "answers": answers, "weights": weights})
        parts = [
            weight * by_hand(model, batch["image"][row], QUESTIONS[row], answer)
            for row in range(3)
            for weight, answer in zip(weights[row], answers[row], strict=True)
        ]
    assert output.loss_lm.item() == pytest.approx(sum(parts).item() / 3, rel=1e-5)
    flat = {
        "answer": [text for row in answers for text in row],
        "weight": torch.tensor([weight for row in weights for weight in row]),
        "n_answers": torch.tensor([2, 3, 1]),
    }
    with torch.no_grad():
        assert model({**batch, **flat}).loss.item() == pytest.approx(output.loss.item())


def test_every_parameter_learns_and_the_loss_falls() -> None:
    model = create_model("blip_vqa", "tiny").train()
    batch = {"image": torch.randn(3, 3, 64, 64), "text_input": QUESTIONS[:3]}
    batch |= {"answers": [["red"], ["two", "2"], ["no"]], "weights": [[1.0], [0.5, 0.5], [1.0]]}
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = model(batch).loss
        loss.backward()
        assert [k for k, p in model.named_parameters() if p.grad is None] == []
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1


def test_answers_without_weights_count_one() -> None:
    two = {"text_input": ["a?", "b?"]}
    assert answers_of({**two, "answer": ["x", "y"]}).weights.tolist() == [1.0, 1.0]
    answers = answers_of({**two, "answers": [["x", "y"], "z"]})
    assert answers.texts == ["x", "y", "z"]
    assert answers.owners.tolist() == [0, 0, 1]
    stacked = {"answers": [["x"], ["y"]], "weights": torch.tensor([[0.5], [0.25]])}
    assert answers_of({**two, **stacked}).weights.tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no `answers`"),
        ({"answers": [["x"]]}, "1 of them with 1 weights for 2 questions that have"),
        ({"answer": ["x", "y", "z"], "n_answers": [1, 1]}, r"3 of them .* that have \[1, 1\]"),
        ({"answers": [["x"], ["y"]], "weights": [[1.0], [1.0, 0.5]]}, "2 of them with 3 weights"),
    ],
)
def test_answers_that_do_not_go_with_their_questions_are_refused(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        answers_of({"text_input": ["a?", "b?"], **given})


# ---- writing


@pytest.mark.fault(54)
def test_a_written_answer_does_not_depend_on_its_batch(model: Any, samples: Any) -> None:
    options = {"inference_method": "generate", "max_len": 8}
    together = model.predict_answers(samples, **options)
    assert together == [model.predict_answers(one(samples, r), **options)[0] for r in range(8)]
    assert len(set(together)) > 1  # or nothing would have been compared


def test_question_states_do_not_depend_on_padding(model: Any, samples: Any) -> None:
    with torch.no_grad():
        states, mask = read(model, samples)
        for row in range(8):
            alone, _ = read(model, one(samples, row))
            length = int(mask[row].sum())
            assert length == alone.shape[1]
            torch.testing.assert_close(states[row, :length], alone[0], atol=1e-5, rtol=0)


@pytest.mark.fault(54)
def test_the_scores_of_answers_do_not_depend_on_padding(model: Any, samples: Any) -> None:
    with torch.no_grad():
        states, mask = read(model, samples)
        kv = model.text_decoder.bert.project(states)
        answers = model.tokenize_answers([a for _ in range(8) for a in ANSWERS])
        together = answer_losses(model, kv, mask, answers, model.answer_smoothing).view(8, -1)
        for row in range(8):
            for number, answer in enumerate(ANSWERS):
                alone = by_hand(model, samples["image"][row], QUESTIONS[row], answer)
                assert together[row, number].item() == pytest.approx(alone.item(), abs=1e-4)


def test_the_published_habit_of_attending_to_padding_is_an_option(samples: Any) -> None:
    def answers(model: Any, batch: Any, **options: Any) -> list[str]:
        options |= {"inference_method": "generate", "max_len": 8}
        return model.predict_answers(batch, **options)

    # An answer then depends on what else is in the batch: for some weights it shows.
    for seed in range(5):
        model = strong(seed)
        alone = [answers(model, one(samples, r), attend_padding=True)[0] for r in range(8)]
        assert alone == answers(model, samples)  # alone, there is no padding
        if alone != answers(model, samples, attend_padding=True):
            return
    raise AssertionError("the padding was never attended to")


def test_lengths_are_kept(model: Any, samples: Any) -> None:
    options = {"inference_method": "generate"}
    for answer in model.predict_answers(samples, max_len=4, min_len=4, **options):
        assert len(model.tokenizer(answer).input_ids) - 2 <= 3
    with pytest.raises(ConfigError, match="max_len: 600; the text tower has 512 positions"):
        model.predict_answers(samples, max_len=600, **options)
    one_beam = model.predict_answers(samples, num_beams=1, **options)
    assert len(one_beam) == 8


# ---- ranking


def brute_force(model: Any, samples: Any, row: int, k: int) -> str:
    """One question at a time, one answer at a time, nothing padded, nothing shared."""
    image, question = samples["image"][row], QUESTIONS[row]
    first = []
    for answer in ANSWERS:
        text = model.tokenizer.encode([question], 35).replace_first(model.tokenizer.enc_id)
        kv = model.text_encoder.project(model.encode_image(image[None]))
        states = model.text_encoder(text.ids, mode="multimodal", image_kv=kv)
        start = torch.tensor([[model.tokenizer.bos_id]])
        logits = model.text_decoder(start, image_kv=model.text_decoder.bert.project(states))
        word = model.tokenizer.encode([answer], 35).ids[0, 1]
        first.append(logits[0, 0].softmax(-1)[word].item())
    chosen = sorted(range(len(ANSWERS)), key=lambda n: -first[n])[:k]
    losses = {n: by_hand(model, image, question, ANSWERS[n]).item() for n in chosen}
    return ANSWERS[min(losses, key=lambda n: losses[n])]


@pytest.mark.parametrize("k", [1, 3, 9])
def test_ranking_equals_scoring_each_answer_alone(model: Any, samples: Any, k: int) -> None:
    with torch.no_grad():
        expected = [brute_force(model, samples, row, k) for row in range(8)]
    found = model.predict_answers(samples, num_ans_candidates=k, answer_list=ANSWERS)
    assert found == expected


def test_losses_of_answers_in_a_tree_are_those_of_each_answer_alone(
    model: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [*ANSWERS, "on the right", "on", "a large green star", "red", "a large green"]
    chosen = torch.stack([torch.arange(len(listed)).roll(row) for row in range(3)])[:, 2:]
    chosen[1] = chosen[1].clamp(max=5)  # trees of different sizes
    with torch.no_grad():
        states, mask = read(model, {k: v[:3] for k, v in samples.items()})
        kv = model.text_decoder.bert.project(states)
        trees = PrefixTrie(model.tokenize_answers(listed)).select(chosen)
        expected = [
            [by_hand(model, samples["image"][row], QUESTIONS[row], listed[n]).item() for n in own]
            for row, own in enumerate(chosen.tolist())
        ]
        for at_once in (2048, 5):
            monkeypatch.setattr("lavis_lite.models.vqa.TOKENS_AT_ONCE", at_once)
            found = model._tree_losses(kv, mask, trees)
            torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-4)
    real_tokens = model.tokenize_answers(listed).mask[chosen, 1:].sum()
    assert trees.ids.numel() < 0.7 * real_tokens  # or nothing would have been shared


def test_a_ranked_answer_does_not_depend_on_batch_or_chunks(
    model: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = model.predict_answers(samples, answer_list=ANSWERS)
    for row in range(8):
        assert model.predict_answers(one(samples, row), answer_list=ANSWERS) == [together[row]]
    monkeypatch.setattr("lavis_lite.models.vqa.TOKENS_AT_ONCE", 7)
    assert model.predict_answers(samples, answer_list=ANSWERS) == together
    assert len(set(together)) > 1


def test_a_list_of_answers_is_tokenised_once(
    model: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenised = []
    tokenize = model.tokenize_answers
    monkeypatch.setattr(model, "tokenize_answers", lambda x: (tokenised.append(x), tokenize(x))[1])
    answers = ["yes", "no", "maybe"]
    first = model.predict_answers(samples, answer_list=answers)
    assert model.predict_answers(samples, answer_list=list(answers)) == first
    assert len(tokenised) == 1
    answers[:] = ["red"]  # changed in place
    assert model.predict_answers(samples, answer_list=answers) == ["red"] * 8


def test_neither_image_nor_question_is_repeated_for_the_candidates(
    model: Any, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, questions = [], []
    encode, project = model.encode_image, model.text_decoder.bert.project
    monkeypatch.setattr(model, "encode_image", lambda x: (images.append(len(x)), encode(x))[1])
    monkeypatch.setattr(
        model.text_decoder.bert, "project", lambda x: (questions.append(len(x)), project(x))[1]
    )
    model.predict_answers(samples, answer_list=ANSWERS)
    assert images == questions == [8]


def test_calls_are_those_of_lavis(model: Any, samples: Any) -> None:
    image = samples["image"]
    one_question = {"image": image[:2], "text_input": "how many?"}
    assert len(model.predict_answers(one_question, 3, "generate", 10, 1)) == 2
    assert model.predict_answers(samples, 3, "rank", 10, 1, 128, ["yes"]) == ["yes"] * 8
    tokens = model.encode_image(image)
    known = {"image_tokens": tokens, "text_input": QUESTIONS}
    assert model.predict_answers(known, answer_list=ANSWERS) == model.predict_answers(
        samples, answer_list=ANSWERS
    )
    modes = model.training
    model.train()
    assert model.predict_answers(samples, answer_list=ANSWERS) == model.predict_answers(
        samples, answer_list=ANSWERS
    )
    assert model.training
    model.train(modes)


def test_what_cannot_be_answered_says_why(model: Any, samples: Any) -> None:
    with pytest.raises(ConfigError, match="answer_list: `rank` chooses from it"):
        model.predict_answers(samples)
    with pytest.raises(ConfigError, match=r"method: 'generat'.* Did you mean 'generate'"):
        model.predict_answers(samples, inference_method="generat")
    with pytest.raises(ConfigError, match="text_input: 1 texts for 8 images"):
        model.predict_answers({**samples, "text_input": ["how many?"]}, answer_list=ANSWERS)


# ---- the published computation


def test_transformers_computes_the_same_where_it_is_right() -> None:
    """Encoder with ``[ENC]``, one question (its decoder ignores the mask), logits of an answer."""
    from transformers import BlipConfig, BlipForQuestionAnswering

    model = strong()
    vocab_size = len(model.tokenizer)
    text = {
        "vocab_size": vocab_size, "hidden_size": 64, "encoder_hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
        "max_position_embeddings": 512,
    }  # fmt: skip
    pixels = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3,
              "num_attention_heads": 4, "image_size": 64, "patch_size": 16,
              "layer_norm_eps": 1e-6}  # fmt: skip
    config = BlipConfig(text_config=text, vision_config=pixels, image_text_hidden_size=64)
    theirs = BlipForQuestionAnswering(config).eval()
    own = dict(model.state_dict())
    renamed = {their_name(key): value for key, value in own.items()}
    missing, unexpected = theirs.load_state_dict(renamed, strict=False)
    assert [k for k in missing if not k.endswith("position_ids")] == unexpected == []

    image = torch.randn(1, 3, 64, 64)
    question = model.tokenizer.encode([QUESTIONS[1]], 35).replace_first(model.tokenizer.enc_id)
    answer = model.tokenize_answers(["a large green triangle"])
    with torch.no_grad():
        tokens = theirs.vision_model(pixel_values=image).last_hidden_state
        states = theirs.text_encoder(
            input_ids=question.ids, attention_mask=question.mask, encoder_hidden_states=tokens
        ).last_hidden_state
        logits = theirs.text_decoder(
            input_ids=answer.ids, encoder_hidden_states=states, is_decoder=True
        ).logits
        ours, mask = read(model, {"image": image, "text_input": [QUESTIONS[1]]})
        kv = model.text_decoder.bert.project(ours)
        torch.testing.assert_close(ours, states, atol=1e-5, rtol=1e-4)
        mine = model.text_decoder(answer.ids, image_kv=kv, image_mask=mask)
        torch.testing.assert_close(mine, logits, atol=1e-4, rtol=1e-4)
        expected = F.cross_entropy(
            logits[0, :-1], answer.ids[0, 1:], label_smoothing=0.1, reduction="sum"
        )
        assert answer_losses(
            model, kv, mask, answer, model.answer_smoothing
        ).item() == pytest.approx(expected.item(), rel=1e-5)


NAMES = {
    "visual_encoder.cls_token": "vision_model.embeddings.class_embedding",
    "visual_encoder.pos_embed": "vision_model.embeddings.position_embedding",
    "visual_encoder.patch_embed.proj": "vision_model.embeddings.patch_embedding",
    "visual_encoder.blocks": "vision_model.encoder.layers",
    "visual_encoder.norm": "vision_model.post_layernorm",
    ".norm1": ".layer_norm1",
    ".norm2": ".layer_norm2",
    ".attn.qkv": ".self_attn.qkv",
    ".attn.proj": ".self_attn.projection",
}


def their_name(key: str) -> str:
    if key.startswith("visual_encoder."):
        for ours, theirs in NAMES.items():
            key = key.replace(ours, theirs)
    return key
