"""Settings as fields of dataclasses: default, meaning and range of each are said here and nowhere else.

A group of settings, such as the sizes of a network, is a frozen dataclass beside what it describes. Flags, their help,
`args.yaml` and the checks of both derive from it (`utils.command_settings`).
"""

import argparse
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields
from typing import Any

SETTING = "setting"  # the key of a field's metadata
LARGEST = 2**63  # whole numbers lie below


def setting(
    default: object,
    meaning: str,
    *,
    choices: Iterable[str] | None = None,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    infinite: bool = False,
) -> Any:
    """A field of a settings dataclass.

    Args:
        meaning: one line for `--help`.
        choices: the values that it may have, or that each of several may have.
        least, above, most, below: bounds of a number, or of each of several.
        infinite: infinity is allowed, too.
    """
    bounds = {"least": least, "above": above, "most": most, "below": below, "infinite": infinite}
    metadata = {"meaning": meaning, "choices": None if choices is None else tuple(choices), **bounds}
    return field(default=default, metadata={SETTING: metadata})


def same_setting(kind: type, name: str, **changes: object) -> Any:
    """A setting of another dataclass once more, where only some of its settings are asked for.

    Args:
        changes: another `default` or `meaning`.
    """
    original = next(f for f in fields(kind) if f.name == name)
    metadata = {**original.metadata[SETTING], **{key: value for key, value in changes.items() if key != "default"}}
    return field(default=changes.get("default", original.default), metadata={SETTING: metadata})


def whole_number(least: int) -> Callable[[str], int]:
    """The `type` of an argparse flag: a whole number from `least` on that fits into 64 bits."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number < LARGEST:
            raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number, at least {least}, of 64 bits")
        return number

    return convert


def expectation(metadata: Mapping[str, Any]) -> str:
    """The range of a setting in words, such as "above 0, at most 1"; empty when anything goes."""
    if metadata["choices"] is not None:
        return f"one of {', '.join(metadata['choices'])}"
    words = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
    return ", ".join(f"{word} {metadata[key]:g}" for key, word in words.items() if metadata[key] is not None)


def is_in_range(value: object, metadata: Mapping[str, Any]) -> bool:
    """Whether one value lies within the range of its setting. A number must be finite unless infinity is allowed.

    A whole number must fit into 64 bits.
    """
    if metadata["choices"] is not None:
        return value in metadata["choices"]
    if not isinstance(value, int | float) or isinstance(value, bool):
        return True
    if isinstance(value, int) and abs(value) >= LARGEST:  # no library takes it
        return False
    if math.isnan(value) or (math.isinf(value) and not (metadata["infinite"] and value > 0)):
        return False
    return (
        (metadata["least"] is None or value >= metadata["least"])
        and (metadata["above"] is None or value > metadata["above"])
        and (metadata["most"] is None or value <= metadata["most"])
        and (metadata["below"] is None or value < metadata["below"])
    )
