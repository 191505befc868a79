"""Networks. Nothing in here knows of files, flags or data sets."""

from baselines.cmpae.cmpae_network import CMPAE
from baselines.coleaf.coleaf_network import CoLeaF
from baselines.leap.leap_network import LEAP
from models.han import HAN, HANConfig, HANOutput, ParsingNetwork
from models.temporal_transformer import TemporalTransformer, TemporalTransformerConfig, TemporalTransformerOutput

# Of stage 3, by the name that --network has for them. All parse (audio, visual) and return a `HANOutput`.
NETWORKS: dict[str, type[ParsingNetwork]] = {"han": HAN, "cmpae": CMPAE, "leap": LEAP, "coleaf": CoLeaF}

__all__ = [
    "CMPAE",
    "HAN",
    "LEAP",
    "NETWORKS",
    "CoLeaF",
    "HANConfig",
    "HANOutput",
    "ParsingNetwork",
    "TemporalTransformer",
    "TemporalTransformerConfig",
    "TemporalTransformerOutput",
]
