"""A few seconds of what tests/helpers/fuzz_readers.py does for as long as one likes."""

import random

import pytest
from fuzz_readers import Fuzzer, fuzz
from fuzz_targets import write_targets
from mutations import mutate

from lavis_lite.errors import ConfigError


@pytest.mark.filterwarnings("ignore")
def test_damaged_annotations_and_shards_lead_to_our_errors_or_to_quarantine(tmp_path):
    result = fuzz(tmp_path, seed=7, cases=70)
    assert result["findings"] == []
    assert result["outcomes"].keys() == {"read", "refused", "quarantined"}
    assert sum(result["outcomes"].values()) == result["cases"] == 70


def test_the_files_that_are_damaged_are_good_before(tmp_path, monkeypatch):
    monkeypatch.setattr("fuzz_readers.mutate", lambda data, kind, rng: data)
    fuzzer = Fuzzer(tmp_path, seed=0)
    outcomes = {fuzzer.target(n).name: fuzzer.case(n) for n in range(len(fuzzer.targets))}
    assert len(outcomes) > 30
    assert {name: o for name, o in outcomes.items() if o.kind == "refused"} == {}


def test_an_error_of_another_kind_is_found_and_comes_again(tmp_path, monkeypatch):
    monkeypatch.setattr("fuzz_readers.OURS", (ConfigError,))
    fuzzer = Fuzzer(tmp_path, seed=1)
    found = next(number for number in range(50) if fuzzer.case(number).kind == "finding")
    assert "DataError" in fuzzer.case(found).what


def test_a_hang_is_found(tmp_path, monkeypatch):
    def read(self, target):
        while True:
            pass

    monkeypatch.setattr(Fuzzer, "_read", read)
    monkeypatch.setattr("fuzz_readers.SECONDS_PER_CASE", 0.1)
    assert Fuzzer(tmp_path, seed=0).case(0).what.startswith("hang")


def test_a_case_is_a_function_of_seed_and_number(tmp_path):
    for target in write_targets(tmp_path):
        once, again = (mutate(target.data, target.kind, random.Random("0/1")) for _ in range(2))
        assert once == again
