"""What the backends of Google Cloud share: clients, errors, names, options and logs."""
