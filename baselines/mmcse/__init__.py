"""MM-CSE (Zhao et al., AAAI 2025): a vector for each class in every segment, on VALOR's labels."""

from baselines.mmcse.mmcse_network import MMCSE, MMCSEConfig
from baselines.mmcse.mmcse_objective import MMCSELosses, MMCSEStep
from utils.recipes import Method

METHODS = {
    "mmcse": Method("MM-CSE", losses=MMCSELosses, make_step=MMCSEStep, network=MMCSE, config=MMCSEConfig),
}
