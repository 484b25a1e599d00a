"""Send each Airflow task to the cheapest pool that can take it now, and survive preemption."""

from importlib.metadata import version

__version__ = version("spillway")
