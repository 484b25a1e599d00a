"""SkyPilot's real API server on a free port of this machine, with no cloud account and a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import httpx

from spillway.testing.process_groups import ProcessGroup
from spillway.testing.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PATIENCE_SECONDS: Final = 240.0
"""It starts half a dozen processes, each of which imports all of SkyPilot: ten seconds on a machine with nothing else to do."""

_ATTEMPTS: Final = 3
_LIST: Final = """\
InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice
gpu_1x_a10,A10,1.0,30.0,200.0,0.75,us-east-1,,
gpu_8x_h100_sxm5,H100,8.0,208.0,1800.0,23.92,us-east-1,,
"""
"""A catalogue of Lambda, since SkyPilot would fetch its own from the internet."""

_CLOUDS: Final = ("kubernetes", "lambda", "slurm", "ssh")
"""Those it looks for credentials of; for all of them it takes ten seconds."""


def kubeconfig(url: str, tokens: Mapping[str, str]) -> str:
    """Return a kubeconfig for the Kubernetes at `url`, with a context for each of `tokens`, by name; the first is the current one."""
    contexts = [
        {"name": name, "context": {"cluster": "it", "user": name, "namespace": "default"}}
        for name in tokens
    ]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": {"server": url}}],
        "users": [{"name": name, "user": {"token": token}} for name, token in tokens.items()],
        "contexts": contexts,
        "current-context": next(iter(tokens)),
    }
    return json.dumps(config)


@contextmanager
def real_skypilot(python: Path, home: Path, *, kubernetes: str | None = None) -> Iterator[str]:
    """Run the API server that `python` has installed until the block ends; yield its URL.

    Args:
        python: Of the environment with SkyPilot.
        home: An empty folder.
        kubernetes: The kubeconfig it has; None for none.

    Raises:
        RuntimeError: It did not start.
    """
    files = {
        ".sky/catalogs/v8/lambda/vms.csv": _LIST,
        ".sky/wheels/none/skypilot-0.14.1-py3-none-any.whl": "",  # it would build itself, for pods that never run
        ".sky/config.yaml": f"allowed_clouds: [{', '.join(_CLOUDS)}]\n",
    }
    if kubernetes is not None:
        files[".kube/config"] = kubernetes
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    for attempt in range(_ATTEMPTS):
        port = free_port()
        output = home / f"server-{attempt}.log"
        with output.open("wb") as file:
            group = ProcessGroup(
                [
                    str(python),
                    "-m",
                    "sky.server.server",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    str(port),
                ],
                cwd=home,
                env={
                    "PATH": f"{python.parent}:{os.environ['PATH']}",
                    "HOME": str(home),
                    # Its queues are on a port that follows from this one.
                    "SKYPILOT_API_SERVER_LOCAL_PORT": str(port),
                    "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
                    "ENABLE_SERVICE_ACCOUNTS": "true",
                },
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            if _wait_for(f"http://127.0.0.1:{port}", group):
                yield f"http://127.0.0.1:{port}"
                return
        finally:
            group.signal(signal.SIGKILL)
            group.wait()
    raise RuntimeError(f"SkyPilot's API server did not start: {output.read_text()[-2000:]}")


def _wait_for(url: str, group: ProcessGroup) -> bool:
    """Return whether the server answers; not when it ended, as it does where a port was taken."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while group.exit_code() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/api/health", timeout=5).is_success:
                return True
        except httpx.HTTPError:
            time.sleep(0.2)
    return False
