"""A model of LAVIS's that is not here is an error that says so, and stands on its page."""

from __future__ import annotations

from pathlib import Path

import pytest

from lavis_lite import load_model, registry
from lavis_lite.errors import UnknownName
from lavis_lite.registry.lavis_names import NOT_HERE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "from_lavis.rst"


@pytest.mark.parametrize("name", NOT_HERE)
def test_a_model_that_is_not_here_is_named_with_the_others(name: str) -> None:
    with pytest.raises(UnknownName) as refused:
        load_model(name)
    assert "not in lavis_lite" in str(refused.value)
    assert [other for other in NOT_HERE if other not in str(refused.value)] == []
    assert f"- ``{name}``" in PAGE.read_text(encoding="utf-8")


def test_none_of_them_is_registered_and_other_names_get_the_nearest() -> None:
    assert not set(NOT_HERE) & set(registry.names("model"))
    with pytest.raises(UnknownName, match="Did you mean 'blip_vqa'"):
        load_model("blip_vqaa")
