"""Replays jobs over recorded capacity and prices through the decisions of production, and compares policies."""
