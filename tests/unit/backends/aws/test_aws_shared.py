"""What the backends of AWS share: names, pace, shapes, capacity and logs."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import moto.ec2
from hypothesis import given
from hypothesis import strategies as st

from spillway.backends.aws import capacity, naming
from spillway.backends.aws.logs import LogReader
from spillway.backends.aws.pace import LONGEST_SECONDS, Pace
from spillway.backends.aws.shapes import SHAPES
from spillway.testing.aws_words import service
from spillway.testing.backend_suite import TEXT

NOW = datetime(2026, 5, 1, tzinfo=UTC)
KEYS = st.text(min_size=1, max_size=700).filter(lambda text: text.isprintable())


@given(KEYS)
def test_a_key_comes_back_out_of_its_tags(key: str) -> None:
    tags = naming.tags("pool", key, {"team": "vision"})
    assert naming.key_of(tags) == key
    assert all(len(value) <= naming.MAX_TAG_VALUE for value in tags.values())
    assert all(
        letter.isalnum() or letter in " _.:/=+-@" for value in tags.values() for letter in value
    )


@given(KEYS, KEYS)
def test_a_name_keeps_to_the_rules_of_every_service(pool: str, key: str) -> None:
    pattern = service("sagemaker").shape_for("TrainingJobName").metadata
    name = naming.job_name(pool, key)
    assert len(name) <= pattern["max"]
    assert name.replace("-", "").isalnum()
    assert name.isascii()
    assert name[-1] != "-"
    assert name.startswith(naming.pool_prefix(pool))


@given(KEYS, KEYS)
def test_two_keys_have_two_names(one: str, other: str) -> None:
    same = naming.job_name("pool", one) == naming.job_name("pool", other)
    assert same == (one == other)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pauses_double_until_a_call_goes_through() -> None:
    clock = Clock()
    pace = Pace(clock=clock, jitter=lambda: 0.0)
    pauses = []
    for _ in range(8):
        pace.throttled()
        pauses.append(pace.seconds_left())
        clock.now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_SECONDS, LONGEST_SECONDS]
    assert pace.seconds_left() == 0
    pace.answered()
    pace.throttled()
    assert pace.seconds_left() == 1


def test_a_pause_is_as_long_as_was_asked_for_and_varies() -> None:
    clock = Clock()
    exact, late = Pace(clock=clock, jitter=lambda: 0.0), Pace(clock=clock, jitter=lambda: 1.0)
    for pace in (exact, late):
        assert pace.throttled(timedelta(seconds=7)) == timedelta(seconds=pace.seconds_left())
    assert (exact.seconds_left(), late.seconds_left()) == (7, 10.5)


def test_shapes_are_as_ec2_describes_them() -> None:
    file = Path(moto.ec2.__file__).parent / "resources" / "instance_types.json.gz"
    types = json.loads(gzip.decompress(file.read_bytes()))
    for name, shape in SHAPES.items():
        told = types[name]
        gpus = told.get("GpuInfo", {}).get("Gpus", [{}])[0]
        neuron = told.get("NeuronInfo", {}).get("NeuronDevices", [{}])[0]
        assert shape.cpus == told["VCpuInfo"]["DefaultVCpus"], name
        assert shape.memory_gib == told["MemoryInfo"]["SizeInMiB"] / 1024, name
        assert shape.gpus == gpus.get("Count", 0), name
        assert shape.neuron_devices == neuron.get("Count", 0), name
        assert shape.accelerator == gpus.get("Name", neuron.get("Name")), name
        network = told["NetworkInfo"]
        if "EfaInfo" in network:
            assert shape.efa_interfaces == network["EfaInfo"]["MaximumEfaInterfaces"], name


def test_the_end_of_a_capacity_block_is_half_an_hour_early() -> None:
    block = {
        "State": "active",
        "AvailableInstanceCount": 4,
        "EndDate": NOW + timedelta(hours=1),
        "ReservationType": "capacity-block",
    }
    room = capacity.reserved_room({"CapacityReservations": [block]}, NOW)
    assert (room.instances, room.ends_at) == (4, NOW + timedelta(minutes=30))
    later = capacity.reserved_room({"CapacityReservations": [block]}, NOW + timedelta(minutes=31))
    assert later.instances == 0


def test_of_several_blocks_the_first_that_has_room_ends_it() -> None:
    blocks = [
        {
            "State": "active",
            "AvailableInstanceCount": free,
            "EndDate": NOW + timedelta(hours=hours),
            "ReservationType": "capacity-block",
        }
        for free, hours in ((0, 1), (1, 5), (2, 9))
    ]
    room = capacity.reserved_room({"CapacityReservations": blocks}, NOW)
    assert room.ends_at == NOW + timedelta(hours=4.5)
    endless = {"State": "active", "AvailableInstanceCount": 1}
    assert capacity.reserved_room({"CapacityReservations": [endless]}, NOW).end is None


def test_a_reservation_that_is_not_active_has_no_room() -> None:
    waiting = {"State": "pending", "AvailableInstanceCount": 4}
    assert capacity.reserved_room({"CapacityReservations": [waiting]}, NOW).instances == 0


def test_a_training_plan_that_is_over_has_no_room() -> None:
    plan = {"Status": "Active", "AvailableInstanceCount": 2, "EndTime": NOW + timedelta(hours=1)}
    room = capacity.plan_room(plan, NOW)
    assert (room.instances, room.ends_at) == (2, NOW + timedelta(hours=1))
    assert capacity.plan_room(plan, NOW + timedelta(hours=1)).instances == 0
    assert capacity.plan_room({**plan, "Status": "Scheduled"}, NOW).instances == 0


def test_a_score_says_only_whether_to_try() -> None:
    answer = {"SpotPlacementScores": [{"Region": "eu-west-1", "Score": 3}]}
    assert capacity.spot_room(answer, "eu-west-1", 4, NOW).instances == 0
    assert capacity.spot_room(answer, "eu-west-1", 3, NOW).instances is None
    assert capacity.spot_room(answer, "us-east-1", 3, NOW).instances is None


class Logs:
    """CloudWatch Logs, as far as one stream goes: pages of one event, and a token that stays at the end."""

    def __init__(self, messages: list[str]) -> None:
        self.messages = messages
        self.calls = 0

    def call(self, _service: str, _operation: str, **asked: Any) -> dict[str, Any]:
        self.calls += 1
        start = int(asked.get("nextToken", "f/0")[2:])
        page = self.messages[start : start + 1]
        events = [{"message": message} for message in page]
        return {"events": events, "nextForwardToken": f"f/{start + len(page)}"}


@given(st.data())
def test_output_is_read_from_any_offset(data: st.DataObject) -> None:
    messages = TEXT.splitlines() * 3
    whole = "".join(f"{line}\n" for line in messages).encode()
    reader = LogReader(Logs(messages), "/aws/batch/job")  # type: ignore[arg-type]  # as far as it is used
    offset = data.draw(st.integers(0, len(whole)))
    chunk = reader.read("stream", offset)
    assert chunk.text == whole[offset:].decode(errors="replace")
    assert chunk.next_offset == len(whole)


def test_what_was_read_is_not_read_again() -> None:
    logs = Logs(["line"] * 50)
    reader = LogReader(logs, "/aws/batch/job")  # type: ignore[arg-type]  # as far as it is used
    first = reader.read("stream", 0)
    before = logs.calls
    logs.messages.append("one more")
    assert reader.read("stream", first.next_offset).text == "one more\n"
    assert logs.calls - before <= 2
