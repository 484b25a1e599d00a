"""The page on Google Cloud tells of every option and state that there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spillway.backends.google.batch.options import BatchOptions
from spillway.backends.google.batch.parse import EVENTS, RESERVED_EXIT_CODES
from spillway.backends.google.tpu import parse as tpu
from spillway.backends.google.tpu.options import TpuOptions
from spillway.backends.google.vertex import parse as vertex
from spillway.backends.google.vertex.options import VertexOptions

PAGE = (Path(__file__).parents[4] / "docs" / "backends" / "google.md").read_text(encoding="utf-8")
OPTIONS = {"google_batch": BatchOptions, "google_vertex": VertexOptions, "google_tpu": TpuOptions}


@pytest.mark.parametrize(
    "option", sorted({name for kind in OPTIONS.values() for name in kind.model_fields})
)
def test_every_option_is_on_the_page(option: str) -> None:
    assert f"`{option}`" in PAGE


def test_every_state_and_code_is_on_the_page() -> None:
    states = [*EVENTS, *vertex.EVENTS, *tpu.EVENTS, *map(str, RESERVED_EXIT_CODES)]
    known = [state.removeprefix("JOB_STATE_") for state in states if "UNSPECIFIED" not in state]
    assert [state for state in known if state not in PAGE] == []


def test_the_options_of_the_samples_are_right() -> None:
    samples = [part.partition("```")[0] for part in PAGE.split("```yaml\n")[1:]]
    pools = [pool for text in samples for pool in yaml.safe_load(text)["pools"]]
    assert {pool["backend"] for pool in pools} == OPTIONS.keys()
    for pool in pools:
        checked = OPTIONS[pool["backend"]].model_validate(pool["options"])
        assert checked.region == pool["region"]
