"""Slurm as a provider: a partner's datacentre, or one's own, through its REST API or its commands."""
