import re
import subprocess
import sys
from pathlib import Path

import pytest

from lavis_lite import cli, registry
from lavis_lite.data.published import cards
from lavis_lite.errors import ConfigError, DataError, DownloadError, UnknownName

ISSUED = [
    *("coco_caption", "nocaps", "flickr30k", "flickr30k_caption", "coco_retrieval", "coco_vqa"),
    *("vg_vqa", "ok_vqa", "aok_vqa", "nlvr", "snli_ve", "cc3m", "cc12m", "sbu", "vg_caption"),
    *("laion", "imagenet", "msrvtt_retrieval", "flickr8k", "flickr8k_judgements"),
]


def test_every_card_is_a_registered_dataset_and_says_what_to_get():
    assert cards.names() == sorted(ISSUED)
    for name in cards.names():
        card, dataset = cards.card(name), registry.entry("dataset", name).result
        assert dataset.splits == card.splits
        assert card.site.startswith("https://")
        for field in ("summary", "task", "reference", "licence", "format"):
            assert len(getattr(card, field)) > 4, (name, field)
        assert card.images or card.shards
        text = str(card)
        assert f"name: {name}" in text
        assert max(map(len, text.splitlines())) < 170
        for files in card.annotations.values():
            for file in files:
                assert f"data/{file.file}" in text
                assert file.url is None or file.url.startswith("https://")
                assert file.md5 is None or re.fullmatch("[0-9a-f]{32}", file.md5)


def test_the_documentation_of_a_dataset_lists_its_arguments():
    for name in cards.names():
        entry = registry.entry("dataset", name)
        text = entry.result.__doc__
        assert all(argument.text for argument in entry.shared_arguments.values())
        for argument in entry.arguments:
            if argument not in entry.shared_arguments:
                assert re.search(rf"\b{argument}\b", text), (name, argument)


def test_a_file_is_taken_from_the_folder_then_from_its_address(tmp_path, monkeypatch):
    card = cards.card("coco_caption")
    fetched = []

    def fetch(url):
        fetched.append(url)
        (tmp_path / "cached.json").write_text("[]")
        return str(tmp_path / "cached.json")

    monkeypatch.setattr(cards.paths, "local_path", fetch)
    with pytest.raises(DataError, match=r"not the published coco_karpathy_val.json .*md5"):
        card.files("val", None, str(tmp_path))
    assert fetched == [card.annotations["val"][0].url]
    usual = tmp_path / card.annotations["val"][0].file
    usual.parent.mkdir(parents=True)
    usual.write_text("[]")
    assert card.files("val", None, str(tmp_path)) == [str(usual)]
    assert card.files("val", str(usual.parent), "nowhere") == [str(usual)]
    assert card.files("val", "mine.json", "nowhere") == ["mine.json"]
    assert len(fetched) == 1


def test_what_cannot_be_fetched_names_the_address_and_the_place(tmp_path, monkeypatch):
    monkeypatch.setenv("LAVIS_LITE_OFFLINE", "1")
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path))
    with pytest.raises(DownloadError) as caught:
        cards.card("nlvr").files("test", None, "mydata")
    message = str(caught.value)
    assert "datasets/nlvr_test.json" in message
    assert "or put it at mydata/nlvr/annotations/nlvr_test.json" in message
    assert "`lavis-lite data info nlvr`" in message


def test_unknown_names_and_splits_are_refused_with_the_nearest(tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'coco_vqa'"):
        cards.card("coco_vaq")
    with pytest.raises(ConfigError, match=r"nocaps: no split 'train'.*\['val', 'test'\]"):
        registry.build("dataset", {"name": "nocaps", "split": "train"})
    assert cards.card("conceptual_caption_3m").name == "cc3m"
    assert cards.registered_name("laion400M") == "laion"
    assert cards.registered_name("scenes") == "scenes"


@pytest.mark.parametrize("words", [["list"], ["info", "coco_vqa"], ["info", "laion400M"]])
def test_data_commands_load_no_torch(words):
    root = Path(__file__).resolve().parents[3]
    code = (
        "import sys; from lavis_lite import cli\n"
        f"assert cli.main(['data', *{words!r}]) == 0\n"
        "assert not {'torch', 'timm', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("laion" if "list" in words else words[-1].split("400")[0]) in done.stdout


def test_data_info_of_what_has_no_card_is_its_documentation(capsys):
    assert cli.main(["data", "info", "scenes_nlvr"]) == 0
    assert "Two pictures and a statement about them" in capsys.readouterr().out
    assert cli.main(["data", "info", "coco_vga"]) == 2
    assert "no dataset card 'coco_vga'. Did you mean 'coco_vqa'" in capsys.readouterr().err
