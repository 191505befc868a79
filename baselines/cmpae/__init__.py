"""CMPAE (Gao, Chen and Xu, CVPR 2023): evidence for presence and absence, JoMoLD's cleaning, class-wise gates."""

from baselines.cmpae.cmpae_decoding import CMPAEDecoding, find_gates, predict
from baselines.cmpae.cmpae_network import CMPAE, CMPAEConfig, CMPAEData
from baselines.cmpae.cmpae_objective import CMPAELosses, CMPAEStep
from utils.recipes import Method

METHODS = {
    "cmpae": Method(
        "CMPAE",
        losses=CMPAELosses,
        make_step=CMPAEStep,
        network=CMPAE,
        config=CMPAEConfig,
        decoding=CMPAEDecoding,
        data=CMPAEData,
        predict=predict,
        find_gates=find_gates,
    )
}
