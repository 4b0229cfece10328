"""Every public method of every model, called wrongly in every way: an error that teaches, or it is
taken where the meaning is clear. A new model, method or argument needs a row in the tables here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import call_table as table
import numpy as np
import pytest
import torch
from call_table import ANSWERS, TEXTS, Kind, Wrong, arguments_of, methods_of, model_of

from lavis_lite import errors
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.modules.med.decoder import CachedDecoder
from lavis_lite.modules.output import ModelOutput, Named

OURS = tuple(x for x in vars(errors).values() if isinstance(x, type) and issubclass(x, Exception))


# ---- the table: an argument's kind, by its name; some depend on the method


def samples_of(model: Any, method: str) -> dict[str, Any]:
    """The batch that a method reads."""
    names = getattr(model, "image_names", ("image",))
    batch: dict[str, Any] = {name: table.pixels(model) for name in names}
    if method == "text_logits":  # reads the tokens that it is given
        batch = {}
    if method not in ("generate", "predict_class"):
        batch["text_input"] = list(TEXTS)
    if hasattr(model, "language_proj"):
        batch |= language_texts(method)
    if method in ("forward", "predict") and hasattr(model, "cls_head"):
        batch["label"] = torch.tensor([0, 1])
    if method == "forward" and hasattr(model, "text_decoder") and hasattr(model, "answer_states"):
        batch |= {"answers": [["red"], ["two", "blue"]], "weights": [[1.0], [0.5, 0.5]]}
    return batch


def language_texts(method: str) -> dict[str, Any]:
    """The texts that a language model is told, or learns, behind images."""
    if method in ("generate", "predict_class"):
        return {"prompt": list(TEXTS)}
    return {"text_output": list(TEXTS)} if method in ("forward", "text_logits") else {}


def wrong_samples(model: Any, method: str) -> dict[str, Wrong]:
    right = samples_of(model, method)
    images = [name for name in right if name.startswith("image")]
    wrong = {
        "None": Wrong(None, "samples: None"),
        "the images": Wrong(table.pixels(model), "samples: a tensor"),
        "a text": Wrong(TEXTS[0], "samples: a str"),
        "a list": Wrong([right], "samples: a list"),
    }
    joint_space = method == "extract_features" and hasattr(model, "logit_scale")
    for name in images[:1]:
        for label, (value, says) in table.wrong_images(model).items():
            if joint_space and value is None:  # one of the two is enough
                continue
            wrong[f"image: {label}"] = Wrong({**right, name: value}, says)
    for name in images[1:]:
        wrong["not as many"] = Wrong({**right, name: right[name][:1]}, f"1 of '{name}'")
    if "text_input" in right:
        texts = table.wrong_texts if joint_space else table.counted(table.wrong_texts)
        for label, (value, says) in texts(model).items():
            if value is not None:
                wrong[f"text: {label}"] = Wrong({**right, "text_input": value}, says)
    for name in {"prompt", "text_output"} & right.keys():
        for label, (value, says) in table.counted(table.wrong_texts)(model).items():
            if value is not None:
                wrong[f"{name}: {label}"] = Wrong({**right, name: value}, says)
    if "label" in right and method == "forward":
        for label in (["a", "b"], [0], [0, 99], [-1, 0], [0.5, 1], torch.eye(2), "01", None):
            wrong[f"label: {label}"] = Wrong({**right, "label": label}, "label")
    if "answers" in right:
        for answers in ([["red"]], [3, ["red"]], [["red"], [3]], 3, "red"):
            wrong[f"answers: {answers}"] = Wrong({**right, "answers": answers}, "answers")
    if method != "forward" or not hasattr(model, "losses") or len(model.losses):
        wrong |= misspelt(right, method)
    return wrong


def misspelt(right: dict[str, Any], method: str) -> dict[str, Wrong]:
    """Batches in which one entry has nearly its name."""
    found = {}
    for name, wrong in (("image", "imgs"), ("image0", "image_0"), ("text_input", "text_imput"),
                        ("prompt", "promt"), ("text_output", "text_ouput")):  # fmt: skip
        if name in right:
            rest = {key: value for key, value in right.items() if key != name}
            found[wrong] = Wrong({**rest, wrong: right[name]}, f"Did you mean {wrong!r}")
    return found


def same_samples(model: Any, method: str) -> dict[str, Any]:
    right = samples_of(model, method)
    same = {
        f"image: {label}": {**right, name: value}
        for name in [name for name in right if name.startswith("image")][:1]
        for label, value in table.same_images(model).items()
    }
    for name in [name for name in ("text_input", "prompt", "text_output") if name in right]:
        for label, value in table.same_texts(model).items():
            same[f"{name}: {label}"] = {**right, name: value}
    return same


def samples(model: Any, method: str) -> Kind:
    return Kind(
        lambda _: samples_of(model, method),
        lambda _: wrong_samples(model, method),
        lambda _: same_samples(model, method),
    )


TOKENS = Kind(table.tokens, table.wrong_tensors("(B, N, D)"))
PAIR_TOKENS = Kind(table.pair_tokens, table.wrong_tensors("(B, N, D)"))
STATES = Kind(table.states, table.wrong_tensors("(B, T, D)"))
ROWS = Kind(
    table.states,
    lambda model: {
        label: wrong
        for label, wrong in table.wrong_tensors("(..., ")(model).items()
        if label != "images"  # may be as wide
    },
)
FEATURES = Kind(  # one text of each image
    lambda model: model.text_features(table.states(model))[:, None],
    table.wrong_tensors("(B, K, E)"),
)
OPTIONAL = Kind(
    lambda model: None,
    lambda model: {k: w for k, w in table.wrong_tensors("")(model).items() if w.value is not None},
)
CONTEXT = Kind(table.context, table.wrong_contexts)
QUESTIONS = Kind(table.question_context, table.wrong_contexts)
BATCH = Kind(lambda model: TEXTS, table.counted(table.wrong_batches), table.same_batches)
FREE_BATCH = Kind(lambda model: TEXTS, table.wrong_batches, table.same_batches)
FREE_TEXTS = Kind(lambda model: TEXTS, table.wrong_texts, table.same_texts)
IMAGES = Kind(table.pixels, table.wrong_images, table.same_images)
PATH = Kind(lambda model: "nowhere/at/all", lambda model: table.TEXT)

KINDS: dict[str, Kind] = {
    "image": IMAGES,
    "image_tokens": TOKENS,
    "image_embeds": TOKENS,
    "image_inputs": TOKENS,
    "text_tokens": STATES,
    "forward_text.text_tokens": FREE_BATCH,
    "text_features": FEATURES,
    "text": BATCH,
    "answer_states.answers": Kind(
        lambda model: TEXTS, table.counted(table.wrong_batches), table.same_texts
    ),
    "tokenize_answers.answers": FREE_TEXTS,
    "encode_text.text": FREE_BATCH,
    "predict_words.text": FREE_BATCH,  # as many as `places`
    "tokenize.texts": FREE_TEXTS,
    "localize.texts": BATCH,
    "rank.texts": Kind(
        lambda model: [TEXTS, TEXTS],
        table.wrong_candidates,
        lambda model: {
            "one list": TEXTS,
            "a tuple": tuple(TEXTS),
            "tuples": (tuple(TEXTS), tuple(TEXTS)),
            "tokenised": model.tokenize([*TEXTS, *TEXTS]),
        },
    ),
    "classify.image_tokens": PAIR_TOKENS,
    "image_context.image_tokens": PAIR_TOKENS,
    "image_context": CONTEXT,
    "image_kv": CONTEXT,
    "context": QUESTIONS,
    "kv": QUESTIONS,
    "mask": Kind(table.question_mask, table.wrong_masks),
    "places": Kind(table.question_mask, table.wrong_masks),
    "question_context.states": STATES,
    "judge.states": ROWS,
    "word_logits.states": ROWS,
    "states": OPTIONAL,
    "query_positions": Kind(lambda model: None, table.wrong_ids),
    "encoder_input_ids": Kind(
        lambda model: model.tokenize([f"x y z {text}" for text in TEXTS]).ids, table.wrong_ids
    ),
    "image_atts": table.ANYTHING,
    "text_ids": Kind(lambda model: model.tokenize(TEXTS).ids, table.wrong_ids),
    "text_atts": Kind(table.question_mask, table.wrong_masks),
    "prefix.prompts": Kind(
        lambda model: TEXTS,
        lambda model: {
            label: wrong
            for label, wrong in table.counted(table.wrong_texts)(model).items()
            if wrong.value is not None  # without prompts
        },
        table.same_texts,
    ),
    "read.prompts": FREE_TEXTS,
    "prompt": Kind(lambda model: "what is {}?", lambda model: table.TEXT),
    "candidates": Kind(
        lambda model: ANSWERS, table.wrong_choices, lambda model: {"a tuple": tuple(ANSWERS)}
    ),
    "n_segments": table.numbers(1, 0, -1),
    "rank_answers.answers": Kind(lambda model: ANSWERS, table.wrong_answers),
    "answer_list": Kind(
        lambda model: ANSWERS, table.wrong_answers, lambda model: {"a tuple": tuple(ANSWERS)}
    ),
    "num_candidates": table.numbers(2, 0, -1),
    "num_ans_candidates": table.numbers(2, 0, -1),
    "num_beams": table.numbers(3, 0, -1),
    "num_captions": table.numbers(1, 0, 9),
    "num_texts": table.numbers(2),  # an estimate, as is the length beside it
    "decoder_of.max_length": table.numbers(8),
    "max_length": table.lengths(8),
    "min_length": table.numbers(2, 9),
    "max_len": table.lengths(6),
    "min_len": table.numbers(1, 9),
    "max_new_tokens": table.numbers(4, 0),
    "block_num": table.numbers(1, 9, -1)._replace(
        right=lambda model: model.match_tower.fusion_layer,
        same=lambda model: {"NumPy's": np.int64(model.match_tower.fusion_layer)},
    ),
    "top_p": table.numbers(0.875, 0.0, 1.5, -1.0, table.NAN),
    "temperature": table.numbers(1.0, 0.0, -1.0),
    "repetition_penalty": table.numbers(1.0, 0.0),
    "length_penalty": table.numbers(1.0),
    "weight_decay": table.numbers(0.5),
    "lr_scale": table.numbers(1.0),
    "use_nucleus_sampling": table.FLAG,
    "attend_padding": table.FLAG,
    "return_str": table.FLAG,
    "method": table.choices("beam", "bean", "beam"),
    "inference_method": table.choices("rank", "rnak", "rank"),
    "mode": table.choices("multimodal", "multimodel", "multimodal"),
    "match_head": table.choices("itm", "itn", "itm"),
    "seeds": Kind(
        lambda model: None,
        lambda model: {
            "a number": Wrong(3, "int 3"),
            "texts": Wrong(["a", "b"], "str 'a'"),
            "too many": Wrong([1, 2, 3], "3 of them for 2 images"),
        },
    ),
    "step_info": Kind(
        lambda model: StepInfo(step=3),
        lambda model: {"a dict": Wrong({"step": 3}, "dict"), "a number": Wrong(3, "int (3)")},
    ),
    "losses": Kind(
        lambda model: None,
        lambda model: {
            **table.MAPPING,
            "a name": Wrong({"lm": "lm"}, "str 'lm'"),
            "no name": Wrong({"lm": {"alpha": 1}}, "needs a `name`"),
            "misspelt": Wrong({"itc": {"name": "itcc"}}, "Did you mean 'itc'"),
        },
    ),
    "url_or_filename": PATH,
    "folder": PATH,
    "source": PATH,
    "repository": Kind(
        lambda model: "owner/name",
        lambda model: {**table.TEXT, "a word": Wrong("name", "owner/name")},
    ),
    "push_to_hub.metrics": table.ANYTHING,  # written with the model, as by save_pretrained
    "private": Kind(lambda model: None, lambda model: {"a word": Wrong("maybe", "'maybe'")}),
    "revision": Kind(lambda model: None, lambda model: table.TEXT),
    "message": Kind(lambda model: None, lambda model: table.TEXT),
    "token": Kind(lambda model: None, lambda model: table.TEXT),
    "metrics": Kind(lambda model: None, lambda model: table.MAPPING),
    "weights": Kind(lambda model: {}, lambda model: table.MAPPING),
    "adapt_weights.weights": Kind(lambda model: model.state_dict(), lambda model: table.MAPPING),
    "config": Kind(lambda model: {}, lambda model: table.MAPPING),
    "model_type": Kind(
        lambda model: "tiny",
        lambda model: {
            "a number": Wrong(3, "int 3"),
            "misspelt": Wrong("tinny", "no type 'tinny'"),
        },
    ),
}
# Called wrongly in each argument, but never rightly: they would write files or draw new weights.
NEVER_RIGHT = {"save_pretrained", "save_transformers", "load_checkpoint", "from_pretrained",
               "push_to_hub", "add_losses"}  # fmt: skip


def kind_of(model: Any, method: str, argument: str) -> Kind | None:
    """The kind of an argument; None of one that has no row."""
    if argument == "samples":
        return samples(model, method)
    return KINDS.get(f"{method}.{argument}", KINDS.get(argument))


def calls(name: str) -> Iterator[tuple[str, dict[str, Kind]]]:
    """Each public method of a model, with the kinds of its arguments."""
    model = model_of(name)
    for method in methods_of(name):
        kinds = {
            argument: kind_of(model, method, argument) for argument in arguments_of(model, method)
        }
        yield method, {argument: kind for argument, kind in kinds.items() if kind}


def call(model: Any, method: str, arguments: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        return getattr(model, method)(**arguments)


# ---- the tests


@pytest.mark.parametrize("name", table.MODELS)
def test_every_argument_of_every_public_method_has_a_row(name: str) -> None:
    model = model_of(name)
    missing = [
        f"{method}.{argument}"
        for method in methods_of(name)
        for argument in arguments_of(model, method)
        if kind_of(model, method, argument) is None
    ]
    assert missing == [], "add them to KINDS, with what they refuse"


@pytest.mark.parametrize("name", table.MODELS)
def test_a_wrong_argument_is_told_what_is_taken(name: str) -> None:
    model, faults = model_of(name), []
    for method, kinds in calls(name):
        right = {argument: kind.right(model) for argument, kind in kinds.items()}
        for argument, kind in kinds.items():
            for label, (value, says) in kind.wrong(model).items():
                where = f"{method}({argument}={label})"
                try:
                    found = call(model, method, {**right, argument: value})
                except OURS as error:
                    if says not in str(error):
                        faults.append(f"{where}: {says!r} is not in: {error}")
                except Exception as error:  # the fault that is looked for
                    faults.append(f"{where}: {type(error).__name__}: {error}")
                else:
                    faults.append(f"{where}: gives {type(found).__name__}")
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)


@pytest.mark.parametrize("name", table.MODELS)
def test_another_form_of_the_same_gives_the_same(name: str) -> None:
    model, faults = model_of(name), []
    for method, kinds in calls(name):
        if method in NEVER_RIGHT:
            continue
        right = {argument: kind.right(model) for argument, kind in kinds.items()}
        formal = plain(call(model, method, right))
        for argument, kind in kinds.items():
            for label, value in kind.same(model).items():
                try:
                    found = plain(call(model, method, {**right, argument: value}))
                except Exception as error:  # reported with the others
                    faults.append(f"{method}({argument}={label}): {error!r:.200}")
                    continue
                if not same(found, formal):
                    faults.append(f"{method}({argument}={label}): another result")
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)


def plain(value: Any) -> Any:
    """A result as numbers, texts and lists, to be compared."""
    if isinstance(value, ModelOutput | Named):
        return {name: plain(value[name]) for name in [*value.keys()]}
    if isinstance(value, CachedDecoder):  # what it says first
        return value.start(torch.ones(2, 1, dtype=torch.long), 1, 4)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or a is b or type(a) is type(b) is torch.nn.Parameter
