"""AWS Batch as a provider: container jobs of a queue, on one instance or several at once."""
