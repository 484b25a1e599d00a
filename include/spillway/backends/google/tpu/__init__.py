"""Slices of Cloud TPU, by queued resources."""
