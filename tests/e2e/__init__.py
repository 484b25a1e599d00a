"""Real Airflow, real jobs."""
