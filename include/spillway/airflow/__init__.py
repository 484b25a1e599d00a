"""The only folder that imports Airflow: it turns Airflow's words into ours and back, and decides nothing."""
