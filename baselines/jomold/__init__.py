"""JoMoLD (Cheng et al., ECCV 2022): labels that are probably wrong for a modality are left out batch by batch."""

from baselines.jomold.jomold_objective import JoMoLDBaseLosses, JoMoLDLosses, make_step
from utils.recipes import Method

METHODS = {
    "jomold_base": Method("JoMoLD", losses=JoMoLDBaseLosses, make_step=make_step),
    "jomold": Method("JoMoLD", losses=JoMoLDLosses, make_step=make_step),
}
