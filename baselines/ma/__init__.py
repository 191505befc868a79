"""MA (Wu and Yang, CVPR 2021): exchanging modalities finds the labels that do not hold for a modality."""

from baselines.ma.ma_objective import MABaseLosses, MALosses, MAStep
from utils.recipes import Method

METHODS = {
    "ma_base": Method("MA", losses=MABaseLosses, make_step=MAStep),
    "ma": Method("MA", losses=MALosses, make_step=MAStep),
}
