"""What a sweep is made of: its table of trials, its limits, proposals, and what users' trials call. Imports no Ray."""
