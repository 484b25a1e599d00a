"""What the shipped DAGs run: preprocessing, the Ray sweep, training. Importing this loads none of their libraries."""

import os

# Torch's threads spin while they wait for each other. Where another lease wants the same cores the spinning starves the
# thread that is waited for: a step of 60 ms was seen to take 1900 ms. It is read once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
