"""MA (Wu and Yang, CVPR 2021): labels that a modality does not show are found by exchanging modalities."""

from baselines.ma.ma_objective import MABaseLosses, MALosses, MAStep
from utils.recipes import Method

METHODS = {
    "ma_base": Method("MA", losses=MABaseLosses, make_step=MAStep),
    "ma": Method("MA", losses=MALosses, make_step=MAStep),
}
