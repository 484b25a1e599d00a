"""Which watchers work on this machine: as it was asked for, or by what the machine says of itself.

Nothing here asks a network: on a machine that is no cloud's, a link-local address answers nobody, and waiting for that
would cost every job seconds.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from spillway.errors import SpecError
from spillway.runtime.notice import aws, azure, google
from spillway.runtime.notice.aws import AwsWatcher
from spillway.runtime.notice.azure import AzureWatcher
from spillway.runtime.notice.google import GoogleWatcher
from spillway.runtime.notice.slurm import SlurmWatcher
from spillway.runtime.variables import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spillway.runtime.notice.watcher import Watcher

VARIABLE: Final = "SPILLWAY_NOTICE"
GRACE_VARIABLE: Final = "SPILLWAY_GRACE_SECONDS"
LEAD_VARIABLE: Final = "SPILLWAY_NOTICE_LEAD_SECONDS"
LEAD: Final = timedelta(minutes=2)
DMI: Final = Path("/sys/class/dmi/id")

# Source: Azure's own agents and cloud-init know its machines by this tag (azure.microsoft.com, cloud-init DataSourceAzure).
_AZURE_CHASSIS = "7783-7084-3265-9085-8269-3286-77"

_MAKERS: Mapping[str, Callable[[Mapping[str, str]], list[Watcher]]] = MappingProxyType(
    {
        "aws": lambda environment: [AwsWatcher(environment)],
        "azure": lambda environment: [AzureWatcher(environment)],
        "gcp": lambda environment: [GoogleWatcher(key, environment) for key in google.MEANINGS],
        "slurm": lambda environment: [SlurmWatcher(environment)],
    }
)


def choose_watchers(environment: Mapping[str, str], dmi: Path = DMI) -> list[Watcher]:
    """Return the watchers that `SPILLWAY_NOTICE` names, `none` for none; without it, those that fit this machine.

    Raises:
        SpecError: It names one that there is not, or a variable says what is no address of a metadata service.
    """
    asked = environment.get(VARIABLE)
    names = detect(environment, dmi) if asked is None else _asked_for(asked)
    return [watcher for name in names for watcher in _MAKERS[name](environment)]


def detect(environment: Mapping[str, str], dmi: Path = DMI) -> list[str]:
    """Return the names of the watchers that fit: by the environment, and by what the firmware says it is."""
    facts = {
        "aws": environment.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true"
        and (aws.ENDPOINT_VARIABLE in environment or _read(dmi, "sys_vendor") == "Amazon EC2"),
        "azure": azure.ENDPOINT_VARIABLE in environment
        or _read(dmi, "chassis_asset_tag") == _AZURE_CHASSIS,
        "gcp": google.HOST_VARIABLE in environment
        or _read(dmi, "product_name") == "Google Compute Engine",
        "slurm": "SLURM_JOB_ID" in environment,
    }
    return [name for name, fits in facts.items() if fits]


def _asked_for(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip() not in ("", "none")]
    for name in names:
        if name not in _MAKERS:
            raise SpecError(
                f"{VARIABLE} names {name!r}, and there is none, {', '.join(sorted(_MAKERS))}; correct the name"
            )
    return list(dict.fromkeys(names))


def _read(dmi: Path, name: str) -> str:
    try:
        return (dmi / name).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # no firmware tables, or not for us
        return ""


def grace_period(environment: Mapping[str, str], promised: timedelta) -> timedelta:
    """Return the time between a signal and the end: what the pool promised, unless the machine's own setting is given.

    Raises:
        SpecError: The variable is no number.
    """
    said = seconds(environment, GRACE_VARIABLE)
    return promised if said is None else said


def lead(environment: Mapping[str, str], grace: timedelta | None) -> timedelta:
    """Return how long before the end a notice given early takes effect: two minutes, the grace period if that is longer.

    Raises:
        SpecError: The variable is no number.
    """
    said = seconds(environment, LEAD_VARIABLE)
    return max(LEAD, grace or LEAD) if said is None else said
