"""Settings: groups of typed fields, filled in from YAML files and flags.

A group, such as the sizes of a network, is a class beside the code that it configures; a command's settings nest such
groups. Each field has a type, a range and, beside or below it, a comment, which is its help text. pydantic checks
values, tyro makes flags and help. Names are flat: a group's field is a flag, and a line of YAML, of its own name.
"""

import argparse
import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform, get_args

import pydantic
import yaml

from utils.errors import InputError
from utils.files import write_text

ARGS_FILE = "args.yaml"  # the settings of a run, in its folder
NOT_WRITTEN = ("config", "resume")  # sources of settings, which are not settings themselves
Settings = TypeVar("Settings")
Share = Annotated[float, pydantic.Field(ge=0, lt=1)]


@dataclass_transform(frozen_default=True)
def settings_group(cls: type) -> type:
    """Make a class a frozen dataclass that raises InputError for values of wrong type or range, and infinite ones."""
    config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    cls = pydantic.dataclasses.dataclass(cls, frozen=True, config=config)
    check = cls.__init__

    @functools.wraps(check)
    def init(self: Any, *args: object, **values: object) -> None:
        try:
            check(self, *args, **values)
        except pydantic.ValidationError as error:
            wrong = error.errors()
            names = ", ".join(dict.fromkeys(f"--{e['loc'][0]}" for e in wrong))
            found = ", ".join(dict.fromkeys(repr(e["input"]) for e in wrong))
            expected = "; ".join(dict.fromkeys(e["msg"].removeprefix("Input should be ") for e in wrong))
            raise InputError(names, found, expected, "Correct the value.") from None

    cls.__init__ = init
    return cls


def with_groups(kind: type[Settings], **groups: type) -> type[Settings]:
    """Return a group of settings in which some nested groups are replaced, such as by those of a method."""
    replaced = {name: group() for name, group in groups.items()}
    body = {"__annotations__": groups, "__module__": kind.__module__, "__doc__": kind.__doc__, **replaced}
    return settings_group(type(kind.__name__, (kind,), body))


@settings_group
class FromFile:
    """Settings that can be read from a file."""

    config: Path | None = None  # YAML file of settings, such as another run's args.yaml


def parse_settings(
    start: Settings,
    description: str,
    argv: Sequence[str] | None = None,
    resumable: Sequence[str] = (),  # settings that flags may change when a run is resumed; `num_epochs` may only grow
    others: bool = False,  # as in `with_file`
) -> Settings:
    """Return `start`, overridden by the settings of `--config` or `--resume`, and by flags, or raise InputError."""
    import tyro

    given = first_flags(argv, "config", "resume")
    path = given["config"] if given["resume"] is None else Path(given["resume"]) / ARGS_FILE
    if path is not None:
        start = with_file(start, Path(path), others)
    flags = {"default": start, "use_underscores": True, "config": (tyro.conf.OmitArgPrefixes,)}
    settings = tyro.cli(type(start), args=argv, description=description, **flags)
    if given["resume"] is not None:
        before, now = flat(start), flat(settings)
        expected = "{} as in " + str(path)
        for name in now.keys() - {*NOT_WRITTEN, *resumable}:
            if now[name] != before[name]:
                way_out = "Leave out the flag, or start a new run."
                raise InputError(f"--{name}", repr(now[name]), expected.format(repr(before[name])), way_out)
        if now["num_epochs"] < before["num_epochs"]:
            expected = "at least " + expected.format(before["num_epochs"])
            raise InputError("--num_epochs", str(now["num_epochs"]), expected, "A run can only be extended.")
    return settings


def first_flags(argv: Sequence[str] | None, *names: str) -> dict[str, str | None]:
    """Return the texts of some flags before all are parsed, since other flags depend on them; None if not given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}", nargs="?")
    return vars(parser.parse_known_args(argv)[0])


def whole_number(least: int) -> Callable[[str], int]:
    """Return the `type` of an argparse flag for whole numbers from `least` that fit into 64 bits."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"\d{1,18}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number, at least {least}, of 64 bits")
        return int(text)

    return convert


def flat(settings: object) -> dict[str, Any]:
    """Return settings by their flat names as in YAML, paths as text and tuples as lists."""
    values: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            values |= flat(value)
        else:
            value = str(value) if isinstance(value, Path) else value
            values[field.name] = list(value) if isinstance(value, tuple) else value
    return values


def with_settings(settings: Settings, **changes: object) -> Settings:
    """Replace settings by their flat names; tuples may be given as lists, paths as text."""
    if unknown := changes.keys() - flat(settings).keys():
        raise TypeError(f"{type(settings).__name__} has no {', '.join(unknown)}")
    own: dict[str, object] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            own[field.name] = with_settings(value, **{n: changes[n] for n in changes.keys() & flat(value).keys()})
        elif field.name in changes:
            value = changes[field.name]
            if isinstance(value, str) and Path in (field.type, *get_args(field.type)):
                value = Path(value)
            own[field.name] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(settings, **own)


def with_file(settings: Settings, path: Path, others: bool = False) -> Settings:
    """Replace the settings named in a YAML file, or raise InputError; `others` ignores unknown ones."""
    values, known = read_args(path), flat(settings).keys() - set(NOT_WRITTEN)
    others = others or "network" in values  # earlier versions wrote the settings of all methods
    if (unknown := values.keys() - known) and not others:
        found = f"unknown settings {sorted(map(str, unknown))}"
        raise InputError(path, found, "settings of this command", "See --help for their names.")
    try:
        return with_settings(settings, **{name: value for name, value in values.items() if name in known})
    except InputError as error:
        where = f"{path}, {error.where.replace('--', '')}"
        raise InputError(where, error.found, error.expected, error.way_out) from None


class _Loader(yaml.SafeLoader):
    """YAML loader that rejects repeated keys and reads 1e-3 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        values = super().construct_mapping(node, deep)
        if len(values) < len(node.value):
            names = [key.value for key, _ in node.value]
            raise yaml.YAMLError(f"{max(names, key=names.count)} more than once")
        return values


FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789"))


def read_args(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings. Raises InputError if it is absent, not a mapping, or names a setting twice."""
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise InputError(path, "no readable file", "a YAML file of settings", "Check the path.") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InputError(path, f"invalid YAML ({error})", "a YAML file of settings", "Correct the file.") from error
    if not isinstance(settings, dict):
        raise InputError(path, f"a {type(settings).__name__}", "a mapping of settings", "Write `name: value` lines.")
    return settings


def write_args(run_dir: Path, settings: object) -> None:
    """Write `args.yaml`, with which `--config` repeats the run."""
    values = {name: value for name, value in flat(settings).items() if name not in NOT_WRITTEN}
    write_text(run_dir / ARGS_FILE, yaml.safe_dump(values, sort_keys=False))
