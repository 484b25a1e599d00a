"""The SQL store of leases, placements and cost records, on SQLite and PostgreSQL."""

from spillway.ledger.leases import LeaseRequest
from spillway.ledger.reports import LeaseReport
from spillway.ledger.store import Ledger
from spillway.ledger.waiting import WaitingTask

__all__ = ["LeaseReport", "LeaseRequest", "Ledger", "WaitingTask"]
