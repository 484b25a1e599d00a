"""What the backends of Amazon Web Services share: clients, errors, names, shapes, logs and what AWS says of its capacity."""
