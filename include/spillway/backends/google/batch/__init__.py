"""Google Cloud Batch."""
