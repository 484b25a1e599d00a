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
        (0.0204, 2.81, 1.13, 0.996, 0.43, 0.377, 0.268, 0.296),
        (1.07, 0.793, 0.539, 0.246, 0.248, 0.174, 0.168, 0.108),
        (0.0242, 4.09, 1.81, 1.58, 0.813, 0.384, 0.494, 0.127),
        (3.06, 2.03, 1.57, 1.28, 0.92, 0.451, 0.0599, 0.225),
        (0.101, 0.774, 0.558, 0.19, 0.109, 0.103, 0.0547, 0.0293),
        (1.86, 1.53, 0.886, 0.719, 0.477, 0.372, 0.42, 0.0151),
        (1.81, 0.731, 1.11, 0.611, 0.598, 0.672, 0.24, 0.0424),
        (0.055, 0.911, 0.583, 0.36, 0.306, 0.179, 0.114, 0.246),
    ),
    returns_per_hour=(
        (0.0182, 2.64, 1.46, 0.826, 0.833, 0.541, 0.709, 0.00978),
        (4.66, 2.01, 1.51, 1.09, 0.594, 0.49, 0.425, 0.0858),
        (0.022, 2.36, 0.717, 0.413, 0.249, 0.221, 0.103, 0.14),
        (3.72, 1.74, 1.2, 0.915, 0.395, 0.257, 0.231, 0.193),
        (0.257, 5.78, 5.38, 1.46, 1.51, 0.638, 0.354, 0.00831),
        (0.561, 0.305, 0.841, 0.892, 0.68, 0.2, 0.176, 0.112),
        (1.53, 1.19, 0.275, 0.359, 0.125, 0.299, 0.06, 0.035),
        (0.0456, 2.01, 0.741, 0.615, 0.191, 0.435, 0.495, 0.00632),
    ),
    switches_per_hour=(
        (0.0, 0.000323, 0.0058, 0.000295, 0.0129, 0.00052, 0.000355, 0.0121),
        (0.000203, 0.0, 0.0002, 0.00576, 0.000241, 0.00402, 0.0015, 0.000209),
        (0.00403, 0.000302, 0.0, 0.000243, 0.000392, 0.000581, 0.000262, 0.00593),
        (0.00031, 0.00787, 0.000288, 0.0, 0.000336, 0.00515, 0.00304, 0.00032),
        (0.00734, 0.000196, 0.000225, 0.000151, 0.0, 0.00062, 0.000173, 0.00113),
        (0.000682, 0.0114, 0.00059, 0.00384, 0.00102, 0.0, 0.00815, 0.00181),
        (0.00076, 0.00175, 0.000513, 0.0086, 0.00109, 0.00126, 0.0, 0.00096),
        (0.0064, 0.000223, 0.00202, 0.000187, 0.00468, 0.000332, 0.000215, 0.0),
    ),
)

# A lone pool is taken to be lost twice as often as learned. Recordings of other months have stretches that no rate
# learned here foresees, and a policy that expects more losses keeps slack for them. Chosen from eight pairs of factors for
# losses and returns, on campaigns left out of the learning, and checked on windows at another offset: not blind.
# Among several pools the others are the reserve, and it only costs.
CAUTION: Final = 2.0

ALONE: Final = LEARNED.lossier(CAUTION)


def prior(pools: int) -> AvailabilityModel:
    """Return what is believed of each of `pools` spot pools that a job may use."""
    return ALONE if pools <= 1 else LEARNED
