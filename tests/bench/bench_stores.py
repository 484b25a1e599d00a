"""What it costs to put an object into a bucket and to get it back: wall time, CPU time and memory beside the object's own.

Each way runs in a fresh process against one S3 server of this machine. The server, in Python, takes most of the wall time;
what a client costs the job beside it is its CPU time and memory.
"""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

from measurement import Baseline, Measurement

from spillway.checkpoints.bucket import BucketStore
from spillway.testing.bucket_servers import BUCKET, s3_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.testing.bucket_servers import BucketServer

MEGABYTES = 128
ROUNDS = 3
PART = 16 * 2**20
BASELINE = "boto3, 2 parts of 16 MiB at once"
FIGURES = {"seconds": "s", "cpu_seconds": "CPU-s", "extra_mb": "MB"}


def run() -> list[Measurement]:
    """Measure our store and obstore as it comes against boto3, the median of some rounds of each."""
    with s3_server() as server:
        measured = {
            (way, action): [alone(way, action, server) for _ in range(ROUNDS)]
            for way in WAYS
            for action in ("put", "get")
        }
    return [
        Measurement(
            name=f"{way}: {action} {MEGABYTES} MB",
            value=median(measured[way, action], figure),
            unit=unit,
            baseline=Baseline(name=BASELINE, value=median(measured[BASELINE, action], figure)),
        )
        for action in ("put", "get")
        for figure, unit in FIGURES.items()
        for way in WAYS
        if way != BASELINE
    ]


def median(rounds: list[dict[str, float]], figure: str) -> float:
    """Return the middle one of what the rounds measured."""
    return sorted(one[figure] for one in rounds)[len(rounds) // 2]


def alone(way: str, action: str, server: BucketServer) -> dict[str, float]:
    """Measure one way to do something in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, way, action, server.url("bench"), server.endpoint],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def ours(url: str, _: str) -> tuple[Callable[[bytes], object], Callable[[], object]]:
    """Return how to put and get by our store."""
    store = BucketStore(url)
    return lambda data: store.put("object", memoryview(data)), lambda: store.get("object")


def plain_obstore(_: str, endpoint: str) -> tuple[Callable[[bytes], object], Callable[[], object]]:
    """Return how to put and get by obstore with its defaults."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(BUCKET, endpoint=endpoint, client_options={"allow_http": True})
    return (
        lambda data: obstore.put(store, "object", memoryview(data)),
        lambda: bytes(obstore.get(store, "object").bytes()),
    )


def by_boto3(
    **settings: int,
) -> Callable[[str, str], tuple[Callable[[bytes], object], Callable[[], object]]]:
    """Return what gives how to put and get by boto3."""

    def open_client(
        _: str, endpoint: str
    ) -> tuple[Callable[[bytes], object], Callable[[], object]]:
        import boto3
        from boto3.s3.transfer import TransferConfig

        client: Any = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        config = TransferConfig(**settings)

        def get() -> bytes:
            whole = io.BytesIO()
            client.download_fileobj(BUCKET, "object", whole, Config=config)
            return whole.getvalue()

        return (
            lambda data: client.upload_fileobj(io.BytesIO(data), BUCKET, "object", Config=config),
            get,
        )

    return open_client


WAYS = {
    "spillway's store, through obstore": ours,
    "obstore's defaults": plain_obstore,
    "boto3's defaults": by_boto3(),
    BASELINE: by_boto3(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=2),
}


def measure(work: Callable[[], object], *, result_mb: float) -> dict[str, float]:
    """Return what `work` costs; memory is how far the peak rises, without what `work` returns."""
    before, wall = resource.getrusage(resource.RUSAGE_SELF), perf_counter()
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": perf_counter() - wall,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "extra_mb": max((after.ru_maxrss - before.ru_maxrss) / 1024 - result_mb, 0),
    }


def main(way: str, action: str, url: str, endpoint: str) -> None:
    """Put an object, or get the one that was put last."""
    put, get = WAYS[way](url, endpoint)
    if action == "put":
        data = os.urandom(2**20) * MEGABYTES
        put(b"the connection is there, and the libraries are loaded")
        measured = measure(lambda: put(data), result_mb=0)
    else:
        measured = measure(get, result_mb=MEGABYTES)
    print(json.dumps(measured))  # noqa: T201 - for the process that asked


if __name__ == "__main__":
    main(*sys.argv[1:])
