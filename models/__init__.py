"""Networks, independent of files, flags and data sets."""

from models.han import HAN, HANConfig, HANOutput
from models.temporal_transformer import TemporalTransformer, TemporalTransformerConfig, TemporalTransformerOutput

__all__ = ["HAN", "HANConfig", "HANOutput"]
__all__ += ["TemporalTransformer", "TemporalTransformerConfig", "TemporalTransformerOutput"]
