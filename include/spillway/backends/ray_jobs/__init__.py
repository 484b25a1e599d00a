"""Clusters of Ray, through their Jobs API."""
