"""JoMoLD (Cheng et al., ECCV 2022): labels that are probably wrong for a modality are left out batch by batch."""

from baselines.jomold.jomold_objective import JoMoLDLosses, JoMoLDStep
from baselines.ma.ma_objective import MABaseLosses
from utils.recipes import Method

METHODS = {
    "jomold_base": Method("JoMoLD", losses=MABaseLosses, make_step=JoMoLDStep),
    "jomold": Method("JoMoLD", losses=JoMoLDLosses, make_step=JoMoLDStep),
}
