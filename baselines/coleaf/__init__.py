"""CoLeaF (Sardari et al., ECCV 2024): two unimodal reference networks guide CMPAE's network in training."""

from dataclasses import replace

from baselines import cmpae
from baselines.coleaf.coleaf_network import CoLeaF
from baselines.coleaf.coleaf_objective import CoLeaFStep

own = {"published_name": "CoLeaf", "make_step": CoLeaFStep, "network": CoLeaF, "takes_steps": True}
METHODS = {"coleaf": replace(cmpae.METHODS["cmpae"], **own)}
