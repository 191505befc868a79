"""LSLD (Fan et al., NeurIPS 2023): segment labels from texts that name subsets of a video's labels."""

from baselines.lsld.lsld_objective import LSLDLosses, LSLDStep
from utils.recipes import Method

METHODS = {"lsld": Method("LSLD", losses=LSLDLosses, make_step=LSLDStep)}
