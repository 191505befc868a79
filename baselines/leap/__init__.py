"""LEAP (Zhou et al., ECCV 2024): class-name queries attend to MM-Pyramid's encoded segments; labels are VALOR's."""

from baselines.leap.leap_network import LEAP, LEAPConfig, make_network
from baselines.leap.leap_objective import LEAPLosses, LEAPStep
from utils.recipes import Method

METHODS = {
    "leap": Method(
        "LEAP", losses=LEAPLosses, make_step=LEAPStep, network=LEAP, config=LEAPConfig, make_network=make_network
    )
}
