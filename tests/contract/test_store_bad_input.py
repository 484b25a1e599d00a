"""Every way to name a store wrongly, or to ask one that may not or cannot answer: a named error with the remedy."""

from __future__ import annotations

import builtins
import shutil
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import obstore.exceptions
import pytest

from conftest import require
from spillway.checkpoints import open_store
from spillway.checkpoints.bucket import BucketStore
from spillway.checkpoints.bucket_errors import ERRORS, explain
from spillway.errors import (
    StoreAccessError,
    StoreFullError,
    StoreMissingError,
    StoreUnavailableError,
    StoreUrlError,
)
from spillway.testing.bucket_servers import s3_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spillway.checkpoints import ObjectStore
    from spillway.testing.bucket_servers import BucketServer

HASTE = timedelta(seconds=0.5)
SERVERS = ("s3", "gcs", "azure")
NOWHERE = "http://127.0.0.1:9"  # the port of the discard service, which no machine offers any more


def answering(store: ObjectStore) -> list[Callable[[], object]]:
    """Everything that can be asked of a store."""
    return [
        lambda: store.get("a"),
        lambda: store.put("a", b""),
        lambda: store.create("a", b""),
        lambda: list(store.list("a")),
    ]


def test_every_error_of_obstore_is_mapped() -> None:
    ours = {name for name in dir(obstore.exceptions) if name.endswith("Error")}
    assert ours <= ERRORS.keys()
    for name in ours:
        error = getattr(obstore.exceptions, name)("Generic S3 error: it broke")
        found = explain(error, action="read s3://bucket/a", scheme="s3")
        assert type(found) is ERRORS[name][0]
        assert str(found) == (
            f"cannot read s3://bucket/a: Generic S3 error: it broke; {ERRORS[name][1]}"
        )


def test_an_error_never_tells_a_signature() -> None:
    error = OSError("GET https://account.example/container/a?sv=1&sig=secret failed")
    told = str(explain(error, action="read az://container/a", scheme="az"))
    assert "secret" not in told
    assert "https://account.example/container/a?..." in told


@pytest.mark.parametrize(
    "answer",
    [
        "status code: 403 <Error><Code>QuotaExceeded</Code></Error>",
        "status code: 507 <Error><Code>XMinioStorageFull</Code><Message>No room.</Message></Error>",
    ],
)
def test_a_bucket_that_has_no_room_left_is_told(answer: str) -> None:
    """No server that can be run here has quotas; the answers are those that their makers document."""
    error = obstore.exceptions.GenericError(answer)
    found = explain(error, action="write s3://bucket/a", scheme="s3")
    assert type(found) is StoreFullError
    assert str(found).endswith("free space there, or raise the quota")


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("s3x://bucket/a", "az://, file://, gs://, s3://"),
        ("s3:///folder", "write s3://bucket/folder"),
        ("gs://", "write gs://bucket/folder"),
        ("az://container/a#b", "write az://bucket/folder"),
        ("s3://key:secret@bucket/a", "set AWS_ACCESS_KEY_ID"),
        ("s3://bucket/a?access_key_id=x", "it may set endpoint, region, fencing=on, fencing=off"),
        ("gs://bucket/a?region=x", "it may set endpoint, fencing=on"),
        ("s3://bucket?fencing=maybe", "it may set endpoint"),
    ],
)
def test_a_url_that_names_no_store_is_told_how_to_write_it(url: str, remedy: str) -> None:
    with pytest.raises(StoreUrlError) as error:
        open_store(url)
    assert remedy in str(error.value)
    assert "secret" not in str(error.value)


def test_a_missing_extra_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_obstore(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "obstore":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without_obstore)
    with pytest.raises(StoreUrlError, match=r"pip install 'spillway\[stores\]'"):
        open_store("s3://bucket/folder")


def test_stores_in_buckets_are_imported_only_when_one_is_opened() -> None:
    code = "import sys, spillway.checkpoints; sys.exit('obstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", SERVERS)
def test_a_bucket_that_is_not_there_is_never_an_empty_one(
    kind: str, request: pytest.FixtureRequest, fresh_folder: Callable[[BucketServer], str]
) -> None:
    server: BucketServer = request.getfixturevalue(kind)
    fresh_folder(server)
    store = open_store(server.url("folder", bucket="nothing-here"))
    for ask in answering(store):
        with pytest.raises(StoreMissingError, match="create the bucket, or correct its name"):
            ask()


@pytest.mark.parametrize(
    ("kind", "variable"), [("azure", "AZURE_STORAGE_ACCOUNT_KEY"), ("gcs", "GOOGLE_BEARER_TOKEN")]
)
def test_wrong_credentials_are_told_apart_from_anything_else(
    kind: str,
    variable: str,
    request: pytest.FixtureRequest,
    fresh_folder: Callable[[BucketServer], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = fresh_folder(request.getfixturevalue(kind))
    monkeypatch.setenv(variable, "d3Jvbmc=")
    for ask in answering(open_store(url)):
        with pytest.raises(StoreAccessError, match="check that the credentials are the right ones"):
            ask()


def test_wrong_credentials_of_s3_are_told_apart_from_anything_else(
    fresh_folder: Callable[[BucketServer], str],
) -> None:
    with s3_server(checks_credentials=True) as server:
        for ask in answering(open_store(fresh_folder(server))):
            with pytest.raises(StoreAccessError, match="credentials are the right ones"):
                ask()


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("s3://bucket/a", "AWS_ACCESS_KEY_ID"),
        ("az://container/a?account=somebody", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("az://container/a", r"add \?account="),
        ("gs://bucket/a", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_missing_credentials_are_told_how_to_give_them(
    url: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No machine answers for its role or identity here.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", NOWHERE)
    monkeypatch.setenv("AZURE_MSI_ENDPOINT", f"{NOWHERE}/metadata/identity/oauth2/token")
    monkeypatch.setenv("GCE_METADATA_HOST", NOWHERE.removeprefix("http://"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreAccessError, match=remedy):
        BucketStore(url, patience=HASTE).get("a")


def test_a_server_that_is_not_there_is_worth_another_try(
    s3: BucketServer, fresh_folder: Callable[[BucketServer], str]
) -> None:
    fresh_folder(s3)
    store = BucketStore(s3.url("folder", endpoint=NOWHERE), patience=HASTE)
    for ask in answering(store):
        with pytest.raises(StoreUnavailableError, match="check the endpoint and the network"):
            ask()


def test_what_the_environment_says_of_the_endpoint_is_enough(
    s3: BucketServer, fresh_folder: Callable[[BucketServer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    store = open_store(fresh_folder(s3).partition("?")[0])
    store.put("a", b"1")
    assert store.get("a") == b"1"


def in_namespace(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script as root of a mount namespace of its own, with the folder as its first argument."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh"]
    return subprocess.run(
        [*command, str(folder), sys.executable], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def namespaces(tmp_path_factory: pytest.TempPathFactory) -> None:
    able = shutil.which("unshare") and in_namespace("true", tmp_path_factory.getbasetemp())
    require(able and able.returncode == 0, "no namespace can be made: allow user namespaces")


WRITE = """
"$2" - "$1" <<'END'
import sys
from datetime import UTC, datetime
from pathlib import Path
from spillway.checkpoints import CheckpointName, FolderStore, claim, commit, latest
from spillway.errors import StoreError
store, now = FolderStore(Path(sys.argv[1])), datetime(2026, 1, 1, tzinfo=UTC)
try:
    claim(store, "task", 1)
    for step in range(1, 100):
        commit(store, "task", CheckpointName(token=1, step=step), {"a": bytes(1 << 20)}, now=now)
except StoreError as error:
    print(type(error).__name__, error)
found = latest(store, "task")
print("found", found and found.name.step)
END
"""


@pytest.mark.usefixtures("namespaces")
def test_a_disk_that_is_full_is_told_and_the_last_checkpoint_stands(tmp_path: Path) -> None:
    done = in_namespace('mount -t tmpfs -o size=5m tmpfs "$1"' + WRITE, tmp_path)
    assert done.stdout.startswith("StoreFullError"), done.stderr
    assert "No space left on device; the disk is full: free space" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] in {f"found {step}" for step in (3, 4)}


@pytest.mark.usefixtures("namespaces")
def test_a_folder_that_is_read_only_is_told(tmp_path: Path) -> None:
    done = in_namespace('mount -t tmpfs -o ro tmpfs "$1"' + WRITE, tmp_path)
    assert done.stdout.startswith("StoreAccessError"), done.stderr
    assert "the file system is read-only: choose another folder" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "found None"
