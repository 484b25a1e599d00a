"""Where offers come from: the pools file, and what the pools would charge now."""
