"""METEOR and SPICE: asked of pycocoevalcap's programs, or n/a with the reason."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from lavis_lite.errors import ConfigError
from lavis_lite.metrics.caption import Caption
from lavis_lite.metrics.captioning import java

needs_pycocoevalcap = pytest.mark.skipif(
    importlib.util.find_spec("pycocoevalcap") is None, reason="pycocoevalcap is not installed"
)
# Answers as METEOR's program does: a line of counts per pair, then every score and the mean.
METEOR = """#!{python}
import sys
open({log!r}, "w").write(" ".join(sys.argv) + "\\n")
for line in sys.stdin:
    open({log!r}, "a").write(line)
    if line.startswith("SCORE"):
        print("1 2 3", flush=True)
    else:
        count = line.count("|||")
        print("\\n".join(["0.25"] * count + ["0.375"]), flush=True)
"""


@pytest.fixture
def fake_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    log = tmp_path / "log.txt"
    program = tmp_path / "java"
    program.write_text(METEOR.format(python=sys.executable, log=str(log)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return log


@needs_pycocoevalcap
def test_meteor_gets_words_and_all_references(fake_java: Path) -> None:
    found, missing = java.java_scores(
        ["meteor"], ["A dog runs.", "two men"], [["The dog's here!", "A dog."], ["men"]]
    )
    assert (found, missing) == ({"meteor": 0.375}, {})
    command, *lines = fake_java.read_text().splitlines()
    assert "meteor-1.5.jar" in command
    assert lines == [
        "SCORE ||| the dog 's here ||| a dog ||| a dog runs",
        "SCORE ||| men ||| two men",
        "EVAL ||| 1 2 3 ||| 1 2 3",
    ]


@needs_pycocoevalcap
@pytest.mark.skipif(shutil.which("java") is None, reason="there is no java")
def test_the_real_meteor_prefers_a_caption_that_says_what_the_references_say() -> None:
    references = [["a dog runs through the tall grass", "a dog is running in a field"]]
    scores = []
    for caption in ("a dog runs through the tall grass", "the dog ran", "two red buses"):
        found, missing = java.java_scores(["meteor"], [caption], references)
        assert missing == {}
        scores.append(found["meteor"])
    assert scores[0] == pytest.approx(1.0)
    assert scores[0] > scores[1] > scores[2] >= 0.0


@needs_pycocoevalcap
def test_a_program_that_fails_is_a_reason(fake_java: Path) -> None:
    (fake_java.parent / "java").write_text(f"#!{sys.executable}\nprint('no such thing')\n")
    found, missing = java.java_scores(["meteor"], ["a dog"], [["a dog"]])
    assert found == {}
    assert missing["meteor"].startswith("meteor failed: ")


@pytest.mark.fault(52)
def test_without_java_figures_are_not_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: pytest)  # anything there
    monkeypatch.setenv("PATH", str(tmp_path))
    found, missing = java.java_scores(["meteor", "spice"], ["a dog"], [["a dog"]])
    assert found == {}
    assert all("there is no java on the PATH" in reason for reason in missing.values())
    assert "caption: spice is n/a: there is no java" in caplog.text


@pytest.mark.fault(52)
def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'lavis_lite[metrics]'" in (java.why_not("meteor") or "")


@needs_pycocoevalcap
def test_spice_needs_a_parser_that_is_fetched_apart(
    fake_java: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Package:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: Package)
    assert "Stanford's CoreNLP is not there" in (java.why_not("spice") or "")
    (tmp_path / "spice" / "lib").mkdir(parents=True)
    (tmp_path / "spice" / "lib" / "stanford-corenlp-3.6.0.jar").touch()
    assert java.why_not("spice") is None


def test_an_unknown_figure_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"caption\.java: 'metor'\. Did you mean 'meteor'"):
        Caption(java=["metor"])
