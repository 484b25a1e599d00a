"""Gangs over a network of their own, whose links can be cut: nothing is said any more, and nobody says goodbye."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from conftest import require
from spillway.checkpoints import latest
from spillway.model import Launcher, Resources
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from conftest import Machines

SILENCE_SECONDS = 3
SECONDS_TO_STOP = 30.0


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


class Network:
    """Hosts, each a network namespace, on one bridge in a namespace of its own."""

    def __init__(self, hosts: int) -> None:
        self.name = f"sw{uuid.uuid4().hex[:6]}"
        self.hosts = hosts

    def make(self) -> None:
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        for host in range(self.hosts):
            space = self.space(host)
            ip("netns", "add", space)
            ip("-n", self.switch, "link", "add", f"to{host}", "type", "veth",
               "peer", "name", "eth0", "netns", space)  # fmt: skip
            ip("-n", self.switch, "link", "set", f"to{host}", "master", "bridge", "up")
            ip("-n", space, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")

    @property
    def switch(self) -> str:
        return f"{self.name}-switch"

    def space(self, host: int) -> str:
        return f"{self.name}-{host}"

    def address(self, host: int) -> str:
        return f"10.77.0.{host + 1}"

    def inside(self, host: int) -> Sequence[str]:
        """Return what to put before a command that is to run on a host."""
        return ("ip", "netns", "exec", self.space(host))

    def cut(self, host: int) -> None:
        """Take the host's cable out of the switch."""
        ip("-n", self.switch, "link", "set", f"to{host}", "down")

    def remove(self) -> None:
        for space in (self.switch, *(self.space(host) for host in range(self.hosts))):
            subprocess.run(
                ["ip", "netns", "del", space], check=False, capture_output=True, timeout=20
            )


@pytest.fixture
def network() -> Iterator[Network]:
    require(shutil.which("ip"), "network namespaces need iproute2: apt-get install iproute2")
    require(os.geteuid() == 0, "network namespaces need root")
    network = Network(3)
    try:
        network.make()
    except subprocess.CalledProcessError as error:
        network.remove()
        require(condition=False, what=f"no network namespaces here: {error.stderr.decode()}")
    yield network
    network.remove()


@pytest.mark.parametrize("cut_off", [0, 2])
def test_a_cut_link_stops_every_member_on_both_sides_of_it(
    machines: Machines, network: Network, cut_off: int
) -> None:
    arguments = {"folder": str(machines.meeting), "steps": 10**6}
    machines.start(
        machines.submission(
            "count_in_step",
            3,
            arguments=arguments,
            grace_period=timedelta(seconds=5),
            checkpoint_interval=timedelta(0),
        ),
        head=network.address(0),
        port=29477,
        inside=network.inside,
        SPILLWAY_GANG_SILENCE_SECONDS=str(SILENCE_SECONDS),
    )
    machines.wait_until_at(3, range(3))
    network.cut(cut_off)
    assert machines.codes(SECONDS_TO_STOP) == [PREEMPTED] * 3, machines.logs()
    saved = latest(machines.store, "gang")
    assert saved is not None
    assert saved.manifest.step >= 3


def test_ray_spans_machines_of_a_network_that_leads_nowhere_else(
    machines: Machines, network: Network
) -> None:
    submission = machines.submission(
        "",
        2,
        entry_point="ray_jobs:count_nodes",
        launcher=Launcher.RAY,
        resources=Resources(cpus=1),
    )
    machines.start(
        submission,
        head=network.address(0),
        port=29477,
        inside=network.inside,
        RAY_TMPDIR=str(machines.short_folder()),
    )
    assert machines.codes() == [0, 0], machines.logs()
    assert machines.result().value == {"cpus": 2}
