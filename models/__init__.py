"""Networks of UWAV. Nothing in here knows of files, flags or data sets."""

from models.han import HAN, HANOutput
from models.temporal_transformer import TemporalTransformer, TemporalTransformerOutput

__all__ = ["HAN", "HANOutput", "TemporalTransformer", "TemporalTransformerOutput"]
