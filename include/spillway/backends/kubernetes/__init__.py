"""Kubernetes as a provider: Jobs, JobSets and RayJobs of one namespace, through the API server."""
