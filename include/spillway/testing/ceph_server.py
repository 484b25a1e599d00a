"""A Ceph of one's own, in memory: a monitor, one store of objects and the gateway that speaks S3, for the length of a test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from spillway.testing.bucket_servers import BUCKET, BucketServer, wait_for_port
from spillway.testing.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

VERSIONED_BUCKET: Final = "versioned"

_PROGRAMS: Final = ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool")
_STOP_SECONDS: Final = 30
_COMMAND_SECONDS: Final = 120
_KEY = "tester"


def has_ceph() -> bool:
    """Return whether its programs are installed."""
    return all(shutil.which(program) for program in _PROGRAMS)


@contextmanager
def ceph_server(folder: Path) -> Iterator[BucketServer]:
    """Run it in an empty folder, with two empty buckets: `BUCKET`, and `VERSIONED_BUCKET`, which keeps versions."""
    port, monitor = free_port(), free_port()
    environment = {**os.environ, "CEPH_CONF": str(folder / "ceph.conf")}
    cluster = str(uuid.uuid4())
    settings = _settings(folder, cluster, port=port, monitor=monitor)
    (folder / "ceph.conf").write_text(settings)
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()

    def run(*command: str) -> str:
        done = subprocess.run(  # noqa: S603 - our own command
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    keyring, monmap = str(folder / "keyring"), str(folder / "monmap")
    run("ceph-authtool", "--create-keyring", keyring)
    for name, *rights in _RIGHTS:
        run("ceph-authtool", keyring, "--gen-key", "-n", name, *rights)
    address = f"[v2:127.0.0.1:{monitor}]"
    run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", address, monmap)
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
    with ExitStack() as stack:
        stack.enter_context(_daemon(["ceph-mon", "-f", "-i", "a"], environment))
        run("ceph", "osd", "new", str(uuid.uuid4()))
        (device,) = json.loads(run("ceph", "osd", "dump", "-f", "json"))["osds"]
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", device["uuid"])
        run("ceph", "auth", "import", "-i", keyring)
        stack.enter_context(_daemon(["ceph-osd", "-f", "-i", "0"], environment))
        gateway = ["radosgw", "-f", "-n", "client.rgw", "--keyring", keyring]
        process = stack.enter_context(_daemon(gateway, environment))
        wait_for_port(port, process)
        keys = ["--access-key", _KEY, "--secret-key", _KEY]
        run("radosgw-admin", "user", "create", "--uid", "tester", "--display-name", "t", *keys)
        endpoint = f"http://127.0.0.1:{port}"
        _make_buckets(endpoint)
        yield BucketServer(
            scheme="s3",
            endpoint=endpoint,
            environment={
                "AWS_ACCESS_KEY_ID": _KEY,
                "AWS_SECRET_ACCESS_KEY": _KEY,
                "AWS_REGION": "default",
            },
        )


_RIGHTS: Final = (
    ("mon.", "--cap", "mon", "allow *"),
    ("client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *"),
    ("client.rgw", "--cap", "mon", "allow *", "--cap", "osd", "allow *"),
    ("osd.0", "--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"),
)


def _settings(folder: Path, cluster: str, *, port: int, monitor: int) -> str:
    """Return settings for one copy of everything, in memory, and every file in the folder."""
    settings: Mapping[str, object] = {
        "fsid": cluster,
        "mon host": f"[v2:127.0.0.1:{monitor}]",
        "public addr": "127.0.0.1",
        "cluster addr": "127.0.0.1",
        "ms bind ipv6": "false",
        "auth allow insecure global id reclaim": "false",
        "keyring": folder / "keyring",
        "osd pool default size": 1,
        "osd pool default min size": 1,
        "osd pool default pg num": 1,
        "osd pool default pgp num": 1,
        "osd pool default pg autoscale mode": "off",
        "osd crush chooseleaf type": 0,
        "osd objectstore": "memstore",
        "memstore device bytes": 1 << 30,
        "mon allow pool size one": "true",
        "mon max pg per osd": 1000,
        "mon data": folder / "mon",
        "osd data": folder / "osd",
        "rgw data": folder / "rgw",
        "run dir": folder,
        "log file": folder / "$name.log",
        "admin socket": "",
        "rgw frontends": f"beast endpoint=127.0.0.1:{port}",
    }
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())


@contextmanager
def _daemon(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _make_buckets(endpoint: str) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="default",
        aws_access_key_id=_KEY,
        aws_secret_access_key=_KEY,
    )
    for bucket in (BUCKET, VERSIONED_BUCKET):
        client.create_bucket(Bucket=bucket)
    versioning = {"Status": "Enabled"}
    client.put_bucket_versioning(Bucket=VERSIONED_BUCKET, VersioningConfiguration=versioning)
