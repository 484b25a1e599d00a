"""What an outside backend or store needs to be tested like ours: fakes, contract suites, strategies."""
