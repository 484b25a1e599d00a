"""Each watcher against a server that behaves as the vendor's page says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from spillway.errors import NoticeSourceError
from spillway.runtime.notice import azure, metadata
from spillway.runtime.notice.aws import AwsWatcher
from spillway.runtime.notice.azure import AzureWatcher
from spillway.runtime.notice.google import GoogleWatcher
from spillway.runtime.notice.slurm import SlurmWatcher
from spillway.testing.manual_clock import ManualClock
from spillway.testing.metadata_vendors import (
    FakeAwsMetadata,
    FakeAzureMetadata,
    FakeGoogleMetadata,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

NOWHERE = "127.0.0.1:9"  # the discard port: nobody listens
TWO_MINUTES = timedelta(minutes=2)


@pytest.fixture
def aws() -> Iterator[FakeAwsMetadata]:
    with FakeAwsMetadata() as server:
        yield server


@pytest.fixture
def gcp() -> Iterator[FakeGoogleMetadata]:
    with FakeGoogleMetadata() as server:
        yield server


@pytest.fixture
def azure_server() -> Iterator[FakeAzureMetadata]:
    with FakeAzureMetadata() as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata.ask, "__kwdefaults__", {"method": "GET", "timeout_seconds": 0.2})


def aws_watcher(server: FakeAwsMetadata) -> AwsWatcher:
    return AwsWatcher({"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url})


def azure_watcher(server: FakeAzureMetadata) -> AzureWatcher:
    return AzureWatcher({"SPILLWAY_AZURE_METADATA_ENDPOINT": server.url})


def google_watcher(server: FakeGoogleMetadata, key: str, wait_seconds: int = 30) -> GoogleWatcher:
    return GoogleWatcher(key, {"GCE_METADATA_HOST": server.address}, wait_seconds=wait_seconds)


# ---- AWS ------------------------------------------------------------------------------------------------------------


def test_aws_says_nothing_while_nothing_is_to_come(aws: FakeAwsMetadata) -> None:
    watcher = aws_watcher(aws)
    assert watcher.look() is None
    assert watcher.look() is None
    assert [method for method, _ in aws.requests].count("PUT") == 1  # one token for all looks


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_an_aws_interruption_is_a_notice_with_its_time(aws: FakeAwsMetadata, action: str) -> None:
    aws.interrupt(timedelta(seconds=100), action)
    seen = aws_watcher(aws).look()
    assert seen is not None
    assert not seen.is_advice
    assert action in seen.reason
    assert seen.seconds_left is not None
    assert 90 < seen.seconds_left <= 101


def test_an_aws_rebalance_recommendation_is_advice(aws: FakeAwsMetadata) -> None:
    aws.rebalance()
    seen = aws_watcher(aws).look()
    assert seen is not None
    assert seen.is_advice
    aws.interrupt(TWO_MINUTES)
    worse = aws_watcher(aws).look()
    assert worse is not None
    assert not worse.is_advice


def test_an_aws_token_that_is_over_is_made_anew(aws: FakeAwsMetadata) -> None:
    watcher = aws_watcher(aws)
    watcher.look()
    aws.tokens.clear()
    aws.interrupt(TWO_MINUTES)
    assert watcher.look() is not None


def test_an_aws_service_that_is_switched_off_is_no_notice(aws: FakeAwsMetadata) -> None:
    aws.reply = lambda *_: metadata_reply(403)  # type: ignore[method-assign]
    with pytest.raises(NoticeSourceError, match="status 403; allow the instance metadata service"):
        aws_watcher(aws).look()


@pytest.mark.usefixtures("impatient")
def test_an_aws_hop_limit_that_is_too_low_is_named(aws: FakeAwsMetadata) -> None:
    aws.is_mute = True
    with pytest.raises(NoticeSourceError, match="hop limit of 2"):
        aws_watcher(aws).look()


@pytest.mark.parametrize("body", ["not JSON", "[]", '{"time": "2026-01-01T00:00:00Z"}'])
def test_an_aws_answer_that_we_do_not_know_is_no_notice(aws: FakeAwsMetadata, body: str) -> None:
    aws.say("/latest/meta-data/spot/instance-action", body)
    with pytest.raises(NoticeSourceError):
        aws_watcher(aws).look()


def test_an_aws_notice_without_a_time_is_still_a_notice(aws: FakeAwsMetadata) -> None:
    aws.say("/latest/meta-data/spot/instance-action", '{"action": "terminate"}')
    seen = aws_watcher(aws).look()
    assert seen is not None
    assert seen.seconds_left is None


@pytest.mark.parametrize("minutes", [-45, 45])
def test_a_clock_of_ours_that_is_wrong_does_not_move_the_deadline(
    aws: FakeAwsMetadata, minutes: int
) -> None:
    aws.clock_ahead = timedelta(minutes=minutes)
    aws.interrupt(timedelta(seconds=100))
    seen = aws_watcher(aws).look()
    assert seen is not None
    assert seen.seconds_left is not None
    assert 90 < seen.seconds_left <= 101


def test_without_the_service_s_clock_the_deadline_is_never_later_than_documented(
    aws: FakeAwsMetadata,
) -> None:
    aws.tells_time = False
    aws.clock_ahead = timedelta(minutes=45)
    aws.interrupt(timedelta(seconds=100))
    ahead = aws_watcher(aws).look()
    assert ahead is not None
    assert ahead.seconds_left == 120
    aws.clock_ahead = timedelta(minutes=-45)
    aws.interrupt(timedelta(seconds=100))
    behind = aws_watcher(aws).look()
    assert behind is not None
    assert behind.seconds_left is None  # over by our clock, and yet we run: nobody knows


# ---- Google ---------------------------------------------------------------------------------------------------------


def test_google_says_nothing_while_nothing_is_to_come(gcp: FakeGoogleMetadata) -> None:
    assert google_watcher(gcp, "instance/preempted").look() is None
    assert google_watcher(gcp, "instance/maintenance-event").look() is None


def test_a_google_preemption_answers_the_request_that_waits_for_it(
    gcp: FakeGoogleMetadata,
) -> None:
    watcher = google_watcher(gcp, "instance/preempted")
    assert watcher.look() is None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(watcher.look)
        gcp.set("instance/preempted", "TRUE")
        seen = waiting.result(20)
    assert seen is not None
    assert (seen.seconds_left, seen.is_advice) == (30, False)


def test_a_google_change_between_two_looks_is_not_missed(gcp: FakeGoogleMetadata) -> None:
    watcher = google_watcher(gcp, "instance/preempted")
    watcher.look()
    gcp.set("instance/preempted", "TRUE")
    assert watcher.look() is not None


def test_a_google_wait_in_which_nothing_happens_ends_without_a_notice(
    gcp: FakeGoogleMetadata,
) -> None:
    watcher = google_watcher(gcp, "instance/preempted", wait_seconds=0)
    assert (watcher.look(), watcher.look()) == (None, None)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("NONE", None), ("MIGRATE_ON_HOST_MAINTENANCE", None), ("TERMINATE_ON_HOST_MAINTENANCE", 60)],
)
def test_google_maintenance_counts_when_it_stops_the_machine(
    gcp: FakeGoogleMetadata, value: str, seconds: float | None
) -> None:
    gcp.set("instance/maintenance-event", value)
    seen = google_watcher(gcp, "instance/maintenance-event").look()
    assert (seen and seen.seconds_left) == seconds


def test_a_server_that_is_not_google_s_is_no_notice(aws: FakeAwsMetadata) -> None:
    watcher = GoogleWatcher("instance/preempted", {"GCE_METADATA_HOST": aws.address})
    with pytest.raises(NoticeSourceError, match="GCE_METADATA_HOST"):
        watcher.look()


# ---- Azure ----------------------------------------------------------------------------------------------------------


def test_azure_says_nothing_while_nothing_is_to_come(azure_server: FakeAzureMetadata) -> None:
    assert azure_watcher(azure_server).look() is None


@pytest.mark.parametrize("kind", sorted(azure.TAKES_AWAY))
def test_an_azure_event_is_a_notice_with_its_time(
    azure_server: FakeAzureMetadata, kind: str
) -> None:
    azure_server.schedule(kind, timedelta(seconds=30))
    seen = azure_watcher(azure_server).look()
    assert seen is not None
    assert kind in seen.reason
    assert seen.seconds_left is not None
    assert 20 < seen.seconds_left <= 31


def test_an_azure_freeze_takes_nothing_away(azure_server: FakeAzureMetadata) -> None:
    azure_server.schedule("Freeze", timedelta(minutes=15))
    assert azure_watcher(azure_server).look() is None


def test_an_azure_event_of_another_machine_of_the_scale_set_is_not_ours(
    azure_server: FakeAzureMetadata,
) -> None:
    azure_server.schedule("Preempt", timedelta(seconds=30), machines=["pool_1", "pool_2"])
    assert azure_watcher(azure_server).look() is None


def test_the_first_azure_event_counts_and_one_that_has_begun_leaves_no_time(
    azure_server: FakeAzureMetadata,
) -> None:
    azure_server.schedule("Reboot", timedelta(minutes=15))
    azure_server.schedule("Preempt", timedelta(seconds=30))
    watcher = azure_watcher(azure_server)
    seen = watcher.look()
    assert seen is not None
    assert "Preempt" in seen.reason
    azure_server.begin()
    begun = watcher.look()
    assert begun is not None
    assert begun.seconds_left == 0


def test_an_azure_answer_without_events_is_no_notice(azure_server: FakeAzureMetadata) -> None:
    azure_server.reply = lambda *_: metadata_reply(200, "{}")  # type: ignore[method-assign]
    with pytest.raises(NoticeSourceError, match="without a list of events"):
        azure_watcher(azure_server).look()


# ---- Slurm, and all of them -----------------------------------------------------------------------------------------


def test_the_slurm_time_limit_comes_nearer() -> None:
    clock = ManualClock()
    end = int((clock.now() + timedelta(hours=1)).timestamp())
    watcher = SlurmWatcher({"SLURM_JOB_END_TIME": str(end)}, clock)
    clock.advance(timedelta(minutes=50))
    seen = watcher.look()
    assert seen is not None
    assert seen.seconds_left == 600


@pytest.mark.parametrize("text", ["", "0", "UNLIMITED", "-5"])
def test_a_slurm_job_without_a_limit_ends_never(text: str) -> None:
    assert SlurmWatcher({"SLURM_JOB_END_TIME": text}).look() is None
    assert SlurmWatcher({}).look() is None


def test_a_slurm_job_has_never_more_than_its_limit_left_whatever_our_clock_says() -> None:
    ahead = datetime.now(UTC) + timedelta(days=1)
    start, end = int(ahead.timestamp()), int(ahead.timestamp()) + 300
    variables = {"SLURM_JOB_START_TIME": str(start), "SLURM_JOB_END_TIME": str(end)}
    seen = SlurmWatcher(variables).look()
    assert seen is not None
    assert seen.seconds_left == 300


@pytest.mark.parametrize(
    "watcher",
    [
        AwsWatcher({"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{NOWHERE}"}),
        AzureWatcher({"SPILLWAY_AZURE_METADATA_ENDPOINT": f"http://{NOWHERE}"}),
        GoogleWatcher("instance/preempted", {"GCE_METADATA_HOST": NOWHERE}),
    ],
    ids=lambda watcher: watcher.name,
)
def test_a_service_that_is_not_there_is_no_notice(
    watcher: AwsWatcher | AzureWatcher | GoogleWatcher,
) -> None:
    with pytest.raises(NoticeSourceError, match="does not answer"):
        watcher.look()


def metadata_reply(status: int, body: str = "") -> object:
    from spillway.testing.metadata_server import Reply

    return Reply(status=status, body=body)
