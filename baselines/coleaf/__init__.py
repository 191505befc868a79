"""CoLeaF (Sardari et al., ECCV 2024): two unimodal reference networks guide CMPAE's network in training."""

from baselines.cmpae import CMPAEConfig, CMPAEData, CMPAEDecoding, CMPAELosses, find_gates, predict
from baselines.coleaf.coleaf_network import CoLeaF
from baselines.coleaf.coleaf_objective import CoLeaFStep
from utils.recipes import Method

METHODS = {
    "coleaf": Method(
        "CoLeaf",
        losses=CMPAELosses,
        make_step=CoLeaFStep,
        network=CoLeaF,
        config=CMPAEConfig,
        decoding=CMPAEDecoding,
        data=CMPAEData,
        predict=predict,
        find_gates=find_gates,
        takes_steps=True,
    )
}
