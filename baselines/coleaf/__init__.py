"""CoLeaF (Sardari et al., ECCV 2024): two unimodal reference networks guide CMPAE's network in training."""

from baselines.cmpae import CMPAEConfig, find_gates, predict
from baselines.coleaf.coleaf_network import CoLeaF
from baselines.coleaf.coleaf_objective import CoLeaFDecoding, CoLeaFLosses, CoLeaFStep
from utils.recipes import Method

METHODS = {
    "coleaf": Method(
        "CoLeaf",
        losses=CoLeaFLosses,
        make_step=CoLeaFStep,
        network=CoLeaF,
        config=CMPAEConfig,
        decoding=CoLeaFDecoding,
        predict=predict,
        find_gates=find_gates,
        several_steps=True,
    )
}
