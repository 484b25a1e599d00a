"""Values to JSON and back: nothing is lost, and a mistake is named by its field."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spillway.model
from spillway.errors import SpecError
from spillway.model import Commitment, Heartbeat, Lease, Market, Pool, Resources, TaskSpec
from spillway.model.codec import decode, decode_json, encode, encode_json
from spillway.testing.lease_strategies import ANY_VALUE, leases
from spillway.testing.strategies import commitments, pools

EXPORTED = [
    value
    for name in spillway.model.__all__
    if isinstance(value := getattr(spillway.model, name), type)
]


def test_every_exported_value_has_a_strategy() -> None:
    assert set(ANY_VALUE) == set(EXPORTED)


@pytest.mark.parametrize("kind", EXPORTED)
@settings(max_examples=20)
@given(data=st.data())
def test_decoding_what_was_encoded_gives_the_value_back(kind: type, data: st.DataObject) -> None:
    value = data.draw(ANY_VALUE[kind])
    assert decode(encode(value), kind) == value


@pytest.mark.parametrize("kind", EXPORTED)
@settings(max_examples=20)
@given(data=st.data())
def test_a_value_survives_its_json_text(kind: type, data: st.DataObject) -> None:
    value = data.draw(ANY_VALUE[kind])
    assert decode_json(encode_json(value), kind) == value


@pytest.mark.parametrize("kind", EXPORTED)
@settings(max_examples=20)
@given(data=st.data())
def test_what_is_encoded_is_plain_json(kind: type, data: st.DataObject) -> None:
    encoded = encode(data.draw(ANY_VALUE[kind]))
    assert json.loads(json.dumps(encoded, allow_nan=False)) == encoded


@given(commitments())
def test_a_commitment_comes_back_as_its_own_kind(commitment: Commitment) -> None:
    assert type(decode(encode(commitment), Commitment)) is type(commitment)  # type: ignore[arg-type]


def test_a_diverged_loss_survives_its_json_text() -> None:
    beat = Heartbeat(
        token=1, written_at=datetime(2026, 1, 1, tzinfo=UTC), metrics={"loss": math.nan}
    )
    for back in (decode_json(encode_json(beat), Heartbeat), decode(encode(beat), Heartbeat)):
        assert math.isnan(back.metrics["loss"])


@pytest.mark.parametrize("loss", [math.inf, -math.inf, math.nan])
def test_a_diverged_loss_is_encoded_as_json_has_it(loss: float) -> None:
    beat = Heartbeat(token=1, written_at=datetime(2026, 1, 1, tzinfo=UTC), metrics={"loss": loss})
    json.dumps(encode(beat), allow_nan=False)


@pytest.mark.parametrize("kind", [k for k in EXPORTED if dataclasses.is_dataclass(k)])
@settings(max_examples=20)
@given(data=st.data())
def test_a_missing_field_is_named(kind: type, data: st.DataObject) -> None:
    encoded: Any = encode(data.draw(ANY_VALUE[kind]))
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            with pytest.raises(SpecError, match=rf"{kind.__name__}: .*{field.name}: "):
                decode({k: v for k, v in encoded.items() if k != field.name}, kind)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"market": "cheap"}, "market: "),
        ({"slots": "many"}, "slots: "),
        ({"shape": {"cpus": "two"}}, "shape.cpus: "),
        ({"list_usd_per_hour": "a lot"}, "list_usd_per_hour: "),
        ({"grace_period": "soon"}, "grace_period: "),
    ],
)
@given(pool=pools())
def test_a_mistake_is_named_by_its_field(changes: dict[str, Any], place: str, pool: Pool) -> None:
    encoded: Any = encode(pool)
    with pytest.raises(SpecError, match=place):
        decode(encoded | changes, Pool)


@given(leases())
def test_every_mistake_is_named_at_once(lease: Lease) -> None:
    encoded: Any = encode(lease)
    with pytest.raises(SpecError) as caught:
        decode(encoded | {"token": "x", "granted_at": "noon"}, Lease)
    assert "token: " in str(caught.value)
    assert "granted_at: " in str(caught.value)


def test_text_that_is_not_json_says_what_it_should_have_been() -> None:
    with pytest.raises(SpecError, match=r"not a TaskSpec: the value: .*JSON"):
        decode_json(b"{", TaskSpec)


def test_what_is_left_out_takes_its_default() -> None:
    task = decode({"entry_point": "package.module:function"}, TaskSpec)
    assert task.resources == Resources()
    assert task.markets == frozenset(Market)
