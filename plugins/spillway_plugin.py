"""Registers Spillway's page and listener with Airflow."""

from spillway.airflow.plugin import SpillwayPlugin  # noqa: F401
