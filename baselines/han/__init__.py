"""HAN (Tian, Li and Xu, ECCV 2020), trained on video labels; its network is `models/han.py`."""

from baselines.han.han_objective import HANLosses, HANStep
from utils.recipes import Method

METHODS = {"han": Method("HAN", losses=HANLosses, make_step=HANStep)}
