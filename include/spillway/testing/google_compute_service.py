"""Reservations and quotas of Compute Engine over REST, as far as capacity is read from them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from spillway.testing.google_discovery import check_message
from spillway.testing.google_machines import Refusal

if TYPE_CHECKING:
    from datetime import datetime

_BASE = "https://www.googleapis.com/compute/v1/projects/our-project"


class ComputeService:
    """The service's state.

    Attributes:
        reservations: By zone, the reservations there.
        quotas: By region and metric, the limit and what of it is used.
        refusal: What every question is answered with.
        asked: Paths that were asked for.
    """

    def __init__(self) -> None:
        self.reservations: dict[str, list[dict[str, Any]]] = {}
        self.quotas: dict[str, dict[str, tuple[float, float]]] = {"us-central1": {}}
        self.refusal: Refusal | None = None
        self.asked: list[str] = []

    def reserve(
        self,
        name: str,
        zone: str,
        *,
        count: int,
        used: int = 0,
        status: str = "READY",
        until: datetime | None = None,
        chips: bool = False,
    ) -> None:
        """Have a reservation of machines, or of chips of TPUs."""
        one: dict[str, Any] = {
            "kind": "compute#reservation",
            "name": name,
            "zone": f"{_BASE}/zones/{zone}",
            "status": status,
        }
        if chips:
            one["aggregateReservation"] = {
                "vmFamily": "VM_FAMILY_CLOUD_TPU_POD_SLICE_CT5P",
                "reservedResources": [{"accelerator": {"acceleratorCount": count}}],
                "inUseResources": [{"accelerator": {"acceleratorCount": used}}],
            }
        else:
            one["specificReservation"] = {"count": str(count), "inUseCount": str(used)}
        if until is not None:
            one["deleteAtTime"] = until.isoformat()
        check_message("compute", "v1", "Reservation", one)
        self.reservations.setdefault(zone, []).append(one)

    def answer(self, path: str, query: dict[str, str]) -> str:
        """Answer one request.

        Raises:
            Refusal: What Google would say no with.
        """
        self.asked.append(path)
        if self.refusal is not None:
            raise self.refusal
        if path.endswith("/aggregated/reservations"):
            name = re.fullmatch(r"name = (\S+)", query.get("filter", "name = ?"))
            assert name is not None
            items: dict[str, Any] = {
                f"zones/{zone}": {"reservations": [one for one in found if one["name"] == name[1]]}
                for zone, found in self.reservations.items()
            }
            return json.dumps({"kind": "compute#reservationAggregatedList", "items": items})
        region = path.rpartition("/regions/")[2]
        if region not in self.quotas:
            raise Refusal("NOT_FOUND", f"The resource '{path}' was not found")
        quotas = [
            {"metric": metric, "limit": limit, "usage": usage}
            for metric, (limit, usage) in self.quotas[region].items()
        ]
        return json.dumps({"kind": "compute#region", "name": region, "quotas": quotas})
