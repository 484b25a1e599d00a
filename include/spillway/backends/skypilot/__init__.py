"""Jobs on the clouds that SkyPilot knows, through its API server."""
