"""`make demo`: the nightly pipeline on real Airflow, on pools of this machine."""
