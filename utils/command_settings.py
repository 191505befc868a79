"""Settings of an entry point: a dataclass whose fields are settings, or groups of settings, becomes flags and YAML.

The fields say default, meaning and range (`utils.settings.setting`); flags and lines of a YAML file are checked alike.
Names are flat: a field of a group is a flag of its own name.
"""

import argparse
import os
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from utils.errors import InputError
from utils.files import write_text
from utils.settings import SETTING, expectation, is_in_range

ARGS_FILE = "args.yaml"
LONGEST_NAME = 255  # bytes, of a file
Settings = TypeVar("Settings")


@dataclass(frozen=True)
class _Entry:
    """One setting of an entry point."""

    name: str
    group: str  # the field of the group that it belongs to; empty: of the entry point itself
    kind: type  # of one value: int, float, bool, str or Path
    length: int | None  # of a tuple: number of values, 0: any number above 0; None: a single value
    optional: bool  # may be None
    default: object
    metadata: Mapping[str, Any]

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        nouns = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path"}
        wanted = expectation(self.metadata)
        noun = nouns[self.kind] if self.metadata["choices"] is None else ""
        one = f"a {noun}" if noun and self.kind is not bool else noun
        if self.kind is int:
            wanted = ", ".join(part for part in (wanted, "of 64 bits") if part)
        text = " ".join(part for part in (one, wanted) if part)
        if self.length is None:
            return text
        return f"a list of {self.length or 'at least one'}, each {text}"


def entries_of(kind: type) -> list[_Entry]:
    """The settings of a dataclass and of the groups in it, in their order."""
    found = []
    for field in fields(kind):
        if is_dataclass(field.type):
            found += [_entry(inner, field.name, getattr(_default(field), inner.name)) for inner in fields(field.type)]
        else:
            found.append(_entry(field, "", field.default))
    return [entry for entry in found if entry is not None]


def _default(field: Any) -> Any:
    return field.default_factory() if field.default is MISSING else field.default


def _entry(field: Any, group: str, default: object) -> _Entry | None:
    if SETTING not in field.metadata:
        return None
    kind, optional = field.type, False
    if isinstance(kind, types.UnionType):
        kind, optional = next(arg for arg in typing.get_args(kind) if arg is not types.NoneType), True
    length = None
    if typing.get_origin(kind) is tuple:
        first, *others = typing.get_args(kind)
        kind, length = first, 0 if others == [Ellipsis] else 1 + len(others)
    return _Entry(field.name, group, kind, length, optional, default, field.metadata[SETTING])


def parse_settings(
    kind: type[Settings],
    description: str,
    argv: list[str] | None = None,
    dependent: Callable[[Settings], Mapping[str, object]] | None = None,
    fixed: tuple[str, ...] = (),
    resumable: tuple[str, ...] = (),
    passes_over: bool = False,
) -> Settings:
    """Settings from flags, over those of `--config FILE` or of the run that `--resume RUN` continues, over defaults.

    Args:
        kind: the entry point's dataclass of settings; one with a field `resume` can continue a run.
        dependent: given the settings so far, defaults that depend on them, as on the data set. They yield to flags and
            to the file; those that the entry point has no setting for are passed over.
        fixed: settings that a flag must not change when a file gives them, because others of the file depend on them.
        resumable: settings that may differ when a run is continued, since they cannot change its result.
        passes_over: settings of the file that the entry point does not have are passed over, so that the `args.yaml` of
            another entry point may be given.

    Raises:
        InputError: for an unusable file, an unknown setting, a value of the wrong type or out of range, and a flag that
            contradicts the run that is continued.
    """
    entries = {entry.name: entry for entry in entries_of(kind)}
    flags = vars(_parser(kind, description, entries).parse_args(argv))
    config = flags.pop("config", None)
    given = {name: _from_flag(entries[name], text) for name, text in flags.items()}
    resume = given.get("resume")
    path = resume / ARGS_FILE if resume is not None else None if config is None else Path(config)
    in_file = {} if path is None else read_settings(path, kind) if passes_over else _read_checked(path, entries)
    values = {entry.name: entry.default for entry in entries.values()} | in_file | given
    if dependent is not None:
        # The groups wait: their defaults may not go together with a flag until the dependent ones are known.
        begun = _build(kind, {name: value for name, value in values.items() if not entries[name].group})
        chosen = {name: value for name, value in dependent(begun).items() if name in entries}
        values = {**values, **{name: _normal(entries[name], value) for name, value in chosen.items()}} | in_file | given
    kept = set(entries) - {"resume", *resumable} if resume is not None else fixed
    for name in kept:
        if name in in_file and values[name] != in_file[name]:
            raise InputError(
                f"--{name}",
                repr(values[name]),
                f"{in_file[name]!r} as in {path}, which depends on it",
                "Leave out the flag, or start a new run." if resume is not None else "Leave out the flag, or the file.",
            )
    if resume is not None and values.get("num_epochs", 0) < in_file.get("num_epochs", 0):
        found, expected = values["num_epochs"], f"at least {in_file['num_epochs']} as in {path}"
        raise InputError("--num_epochs", f"{found}", expected, "A run that is continued can only become longer.")
    return _build(kind, values)


def _parser(kind: type, description: str, entries: Mapping[str, _Entry]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    parser.add_argument("--config", help="YAML file of settings, such as another run's args.yaml")
    groups: dict[str, Any] = {"": parser}
    for entry in entries.values():
        if entry.group not in groups:
            groups[entry.group] = parser.add_argument_group(entry.group.replace("_", " "))
        default = "" if entry.default is None else f" (default: {_shown(entry.default)})"
        text = (entry.metadata["meaning"] + default).replace("%", "%%")
        flag = f"--{entry.name}"
        if entry.kind is bool:
            groups[entry.group].add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
            continue
        choices = entry.metadata["choices"]
        metavar = f"{{{','.join(choices)}}}" if choices else {Path: "PATH", str: "NAME"}.get(entry.kind, "N")
        number = {} if entry.length is None else {"nargs": entry.length or "+"}
        groups[entry.group].add_argument(flag, metavar=metavar, help=text, **number)
    return parser


def _shown(default: object) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _from_flag(entry: _Entry, given: object) -> object:
    """The checked value of a flag, which comes as text, as several texts or as a bool."""
    texts = given if isinstance(given, list) else [given]
    values = tuple(_converted(entry, text, f"--{entry.name}") for text in texts)
    return _checked(entry, values if isinstance(given, list) else values[0], f"--{entry.name}", given)


def _converted(entry: _Entry, value: object, where: str) -> object:
    """A number or path from its text; everything else as it is."""
    if not isinstance(value, str) or entry.kind in (str, bool):
        return value
    try:
        return entry.kind(value)
    except ValueError:
        raise InputError(where, repr(value), entry.expected, "Correct the value.") from None


def _checked(entry: _Entry, value: object, where: str, given: object) -> object:
    """The value, if it is of the right type and in its range."""
    if value is None and entry.optional:
        return None
    values = value if isinstance(value, tuple) else (value,)
    right_number = isinstance(value, tuple) == (entry.length is not None) and len(values) == (
        entry.length or len(values)
    )
    if not values or not right_number or not all(_is_of_kind(v, entry.kind) for v in values):
        raise InputError(where, repr(given), entry.expected, "Correct the value.")
    if not all(is_in_range(v, entry.metadata) and _can_be_named(v) for v in values):
        raise InputError(where, repr(given), entry.expected, "Correct the value.")
    values = tuple(float(v) if entry.kind is float else v for v in values)
    return values if entry.length is not None else values[0]


def _can_be_named(value: object) -> bool:
    """Whether a text can be written to a file, and a path be one."""
    try:
        parts = [os.fsencode(part) for part in (value.parts if isinstance(value, Path) else [str(value)])]
    except UnicodeEncodeError:  # half of a pair of UTF-16
        return False
    longest = max(map(len, parts), default=0) if isinstance(value, Path) else 0
    return not any(b"\0" in part for part in parts) and longest <= LONGEST_NAME


def _is_of_kind(value: object, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _normal(entry: _Entry, value: object) -> object:
    """A value of a dictionary of ours or of YAML, with lists as tuples and paths as paths; not checked."""
    if isinstance(value, list):
        value = tuple(value)
    if entry.kind is Path and isinstance(value, str):
        return Path(value)
    return value


def _read_checked(path: Path, entries: Mapping[str, _Entry]) -> dict[str, object]:
    """The settings in a YAML file, checked as flags are."""
    settings = read_args(path)
    unknown = sorted(str(name) for name in settings if name not in entries or name == "resume")
    if unknown:
        raise InputError(path, f"unknown settings {unknown}", "settings of this script", "See --help for their names.")
    return _checked_settings(path, settings, entries)


def read_settings(path: Path, kind: type) -> dict[str, object]:
    """Those settings of another run's file that an entry point has, too, checked as flags are.

    Args:
        kind: the entry point's dataclass of settings.

    Raises:
        InputError: for an unusable file, and a value of the wrong type or out of range.
    """
    entries = {entry.name: entry for entry in entries_of(kind)}
    settings = {name: value for name, value in read_args(path).items() if name in entries}
    return _checked_settings(path, settings, entries)


def _checked_settings(path: Path, settings: dict, entries: Mapping[str, _Entry]) -> dict[str, object]:
    checked = {}
    for name, value in settings.items():
        entry, where = entries[name], f"{path}, {name}"
        normal = _normal(entry, value)
        if entry.kind is float:  # YAML takes 1e-3 for text
            normal = (
                tuple(_converted(entry, v, where) for v in normal)
                if isinstance(normal, tuple)
                else _converted(entry, normal, where)
            )
        checked[name] = _checked(entry, normal, where, value)
    return checked


def _build(kind: type[Settings], values: Mapping[str, object]) -> Settings:
    """The dataclass of settings from their flat names."""
    built: dict[str, object] = {}
    for field in fields(kind):
        if is_dataclass(field.type):
            own = {f.name: values[f.name] for f in fields(field.type) if f.name in values}
            built[field.name] = replace(_default(field), **own)
        else:
            built[field.name] = values[field.name]
    return kind(**built)


def flat(settings: object) -> dict[str, object]:
    """Settings by their flat names: paths as text, tuples as lists."""
    named: dict[str, object] = {}
    for entry in entries_of(type(settings)):
        owner = getattr(settings, entry.group) if entry.group else settings
        value = getattr(owner, entry.name)
        value = str(value) if isinstance(value, Path) else value
        named[entry.name] = list(value) if isinstance(value, tuple) else value
    return named


def with_settings(settings: Settings, **changes: object) -> Settings:
    """The same settings but for those named, which are not checked again."""
    entries = entries_of(type(settings))
    values = {e.name: getattr(getattr(settings, e.group) if e.group else settings, e.name) for e in entries}
    return _build(type(settings), values | changes)


class _StrictLoader(yaml.SafeLoader):
    """YAML without repeated keys."""


def _mapping_without_repeats(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key) for key, _ in node.value]
    repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
    if repeated:
        raise yaml.YAMLError(f"{', '.join(repeated)} more than once")
    return yaml.SafeLoader.construct_mapping(loader, node)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_repeats)


def read_args(path: Path) -> dict:
    """The settings in a YAML file.

    Raises:
        InputError: when it is absent or no YAML mapping, or names a setting twice.
    """
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except OSError as error:
        raise InputError(path, "no readable file", "a YAML file of settings", "Check the path.") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InputError(path, f"no YAML ({error})", "a YAML file of settings", "Correct the file.") from error
    if not isinstance(settings, dict):
        raise InputError(path, f"a {type(settings).__name__}", "a mapping of settings", "Write `name: value` lines.")
    return settings


def write_args(run_dir: Path, settings: object) -> None:
    """Write `args.yaml`, from which `--config` repeats the run."""
    values = {name: value for name, value in flat(settings).items() if name != "resume"}
    write_text(run_dir / ARGS_FILE, yaml.safe_dump(values, sort_keys=False))
