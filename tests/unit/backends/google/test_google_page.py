"""The page on Google Cloud tells of every option and state that there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spillway.backends.google.batch.options import BatchOptions
from spillway.backends.google.batch.parse import EVENTS, RESERVED_EXIT_CODES

PAGE = (Path(__file__).parents[4] / "docs" / "backends" / "google.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", sorted(BatchOptions.model_fields))
def test_every_option_is_on_the_page(option: str) -> None:
    assert f"`{option}`" in PAGE


def test_every_state_and_code_is_on_the_page() -> None:
    words = [state for state in EVENTS if state != "STATE_UNSPECIFIED"]
    assert [word for word in [*words, *map(str, RESERVED_EXIT_CODES)] if word not in PAGE] == []


def test_the_options_of_the_sample_are_right() -> None:
    text = PAGE.partition("```yaml\n")[2].partition("```")[0]
    (pool,) = yaml.safe_load(text)["pools"]
    assert BatchOptions.model_validate(pool["options"]).region == pool["region"]
