"""LEAP (Zhou et al., ECCV 2024): class names ask the segments of MM-Pyramid's encoder; labels are VALOR's."""

from baselines.leap.leap_network import LEAP, LEAPConfig
from baselines.leap.leap_objective import LEAPLosses, make_step
from baselines.leap.word_vectors import make_network
from utils.recipes import Method

METHODS = {
    "leap": Method(
        "LEAP", losses=LEAPLosses, make_step=make_step, network=LEAP, config=LEAPConfig, make_network=make_network
    )
}
