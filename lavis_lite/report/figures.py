"""How figures are called and written, by metric."""

from __future__ import annotations

from collections.abc import Iterable

from lavis_lite.report.page import Headline
from lavis_lite.report.tables import Column

_TEXTS, _IMAGES = "texts by image", "images by text"
_COLUMNS: dict[str, list[Column]] = {
    "retrieval": [
        Column("txt_r1", "R@1", _TEXTS),
        Column("txt_r5", "R@5", _TEXTS),
        Column("txt_r10", "R@10", _TEXTS),
        Column("img_r1", "R@1", _IMAGES),
        Column("img_r5", "R@5", _IMAGES),
        Column("img_r10", "R@10", _IMAGES),
        Column("r_mean", "mean"),
    ],
    "caption": [
        *(Column(f"bleu_{order}", f"BLEU-{order}", digits=3) for order in range(1, 5)),
        Column("rouge_l", "ROUGE-L", digits=3),
        Column("cider_d", "CIDEr-D", digits=3),
        Column("meteor", "METEOR", digits=3),
        Column("spice", "SPICE", digits=3),
        Column("match", "fits", digits=3),
    ],
    "facts": [
        Column("exact", "all right", digits=3),
        Column("parsed", "readable", digits=3),
    ],
    "itm": [
        Column("accuracy", "accuracy", digits=3),
        Column("auc", "AUC", digits=3),
        Column("matched", "true pairs", "mean probability", digits=3),
        Column("mismatched", "false pairs", "mean probability", digits=3, better=-1),
        Column("generated", "generated", "mean probability", digits=3),
    ],
    "vqa": [
        Column("accuracy", "all"),
        Column("accuracy_yes_no", "yes or no"),
        Column("accuracy_number", "numbers"),
        Column("accuracy_other", "others"),
    ],
    "nlvr": [Column("accuracy", "accuracy"), Column("consistency", "consistency")],
    "classification": [Column("accuracy", "accuracy")],
    "zero_shot_classification": [Column("top1", "top 1"), Column("top5", "top 5")],
}
_HIDDEN = {"retrieval": {"txt_r_mean", "img_r_mean"}}
_TITLES = {
    "retrieval": "Retrieval, R@k in %",
    "caption": "Captions",
    "facts": "Facts in captions, shares",
    "itm": "Matching images with texts",
    "vqa": "Answers to questions, accuracy in %",
    "nlvr": "Statements about two images, in %",
    "classification": "Classes of images with texts, in %",
    "zero_shot_classification": "Classes by their names alone, accuracy in %",
}
# The figure that stands for a metric: key, factor, digits, unit, what it is.
_CHIEF = {
    "retrieval": ("r_mean", 1, 1, "%", "mean of R@1, 5, 10, both ways"),
    "caption": ("cider_d", 1, 2, "", "CIDEr-D of generated captions"),
    "facts": ("exact", 100, 1, "%", "captions with every fact right"),
    "itm": ("auc", 100, 1, "%", "AUC, true against false pairs"),
    "vqa": ("accuracy", 1, 1, "%", "questions answered right"),
    "nlvr": ("accuracy", 1, 1, "%", "statements judged right"),
    "classification": ("accuracy", 1, 1, "%", "classes found"),
    "zero_shot_classification": ("top1", 1, 1, "%", "classes found by their names alone"),
}


def title_of(metric: str) -> str:
    """What a table of this metric is called."""
    return _TITLES.get(metric, metric.replace("_", " "))


def columns_for(metric: str, keys: Iterable[str]) -> list[Column]:
    """The columns of a metric's table: known figures in their order, then all others."""
    present = list(dict.fromkeys(keys))
    known = [column for column in _COLUMNS.get(metric, []) if column.key in present]
    named = {column.key for column in known} | _HIDDEN.get(metric, set())
    # Attributes of facts are shares like the others; of an unknown metric nothing is known.
    better = 1 if metric == "facts" else 0
    others = [
        Column(key, key.replace("_", " "), digits=3, better=better)
        for key in present
        if key not in named
    ]
    return known + others


def chief_of(metric: str) -> str | None:
    """Key of the figure that stands for a metric."""
    return _CHIEF[metric][0] if metric in _CHIEF else None


def headline_of(metric: str, figures: dict[str, float], where: str) -> Headline | None:
    """The figure that stands for a metric, for the top of the page."""
    if metric not in _CHIEF or _CHIEF[metric][0] not in figures:
        return None
    _, _, _, unit, label = _CHIEF[metric]
    value = figure_of(metric, figures)
    return Headline(value, f"{label} ({where})" if where else label, unit)


def figure_of(metric: str, figures: dict[str, float]) -> str:
    """The figure that stands for a metric, written; a dash where it is missing."""
    if metric not in _CHIEF or figures.get(_CHIEF[metric][0]) is None:
        return "–"
    key, factor, digits, _, _ = _CHIEF[metric]
    return f"{factor * figures[key]:.{digits}f}"
