"""Configurations: frozen dataclasses to JSON and back, checked strictly.

A configuration is the tree of the objects themselves (a process, a prediction, a network's
sizes). In JSON each object is `{"kind": "VPCosine", "s": 0.008}`; the kinds that may be rebuilt are
the frozen dataclasses defined in `KIND_MODULES`, so that nothing in a file can name an arbitrary
piece of code.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import json
import pkgutil
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from ldm.errors import ConfigError, suggest

T = TypeVar("T")

KIND_MODULES = (
    "autoencoder",
    "ldm.ar_prior",
    "ldm.binary",
    "ldm.classifier",
    "ldm.conditioning",
    "ldm.data",
    "ldm.dequantise",
    "ldm.described",
    "ldm.diffusion",
    "ldm.first_stage",
    "ldm.learned_schedule",
    "ldm.networks",
    "ldm.noisy_clip",
    "ldm.recipe",
    "ldm.samplers",
    "ldm.stage",
    "ldm.tasks",
    "ldm.training",
)
"""Modules, and packages with all their modules."""


@functools.cache
def kinds() -> dict[str, type]:
    """The closed list: every frozen dataclass defined in the modules above, by its name."""
    found: dict[str, type] = {}
    for module in _modules():
        for name, value in vars(module).items():
            if _is_frozen(value) and value.__module__ == module.__name__:
                if name in found:
                    raise ConfigError(f"two kinds are called {name}: {found[name]} and {value}")
                found[name] = value
    return found


def _modules() -> Iterator[types.ModuleType]:
    for name in KIND_MODULES:
        module = importlib.import_module(name)
        yield module
        for found in pkgutil.iter_modules(getattr(module, "__path__", []), f"{name}."):
            yield importlib.import_module(found.name)


def _is_frozen(value: Any) -> bool:
    parameters = getattr(value, "__dataclass_params__", None)
    return inspect.isclass(value) and parameters is not None and bool(parameters.frozen)


def to_dict(value: Any) -> Any:
    """A configuration as plain JSON values; the inverse of `from_dict`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [to_dict(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"a {type(value).__name__} cannot stand in a configuration: {value!r}")


def from_dict(data: Any, expected: type[T] | Any = Any, where: str = "config") -> T:
    """Rebuild a configuration.

    Raises:
        ConfigError: naming the place, what was found there and what is allowed.
    """
    if isinstance(data, dict):
        return _object(data, expected, where)
    return typing.cast(T, _convert(data, expected, where))


def _object(data: dict[str, Any], expected: Any, where: str) -> Any:
    kind = data.get("kind", getattr(expected, "__name__", None))
    if kind not in kinds():
        raise ConfigError(
            f"{where}: unknown kind {kind!r}.{suggest(str(kind), kinds())} "
            f"It is written as {{'kind': NAME, field: value, ...}}"
        )
    cls = kinds()[kind]
    _check_class(cls, expected, where)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    arguments = {}
    for name, value in data.items():
        if name == "kind":
            continue
        if name not in fields:
            raise ConfigError(
                f"{where}: {kind} has no field {name!r}.{suggest(name, fields)} "
                f"It has: {', '.join(fields)}"
            )
        arguments[name] = from_dict(value, hints[name], f"{where}.{name}")
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_class(cls: type, expected: Any, where: str) -> None:
    allowed = [t for t in _alternatives(expected) if inspect.isclass(t)]
    protocols = any(getattr(t, "_is_protocol", False) for t in allowed)
    if not allowed or protocols or issubclass(cls, tuple(allowed)):
        return
    names = ", ".join(t.__name__ for t in allowed)
    raise ConfigError(f"{where}: {cls.__name__} cannot stand here; allowed: {names}")


def _alternatives(expected: Any) -> tuple[Any, ...]:
    if expected is Any:
        return ()
    if typing.get_origin(expected) in (typing.Union, types.UnionType):
        return typing.get_args(expected)
    return (expected,)


def _convert(value: Any, expected: Any, where: str) -> Any:
    """A JSON scalar or list as the annotated type."""
    for option in _alternatives(expected):
        matched, converted = _match(value, option, where)
        if matched:
            return converted
    if expected is Any:
        return value
    raise ConfigError(f"{where}: got {value!r}; expected {_describe(expected)}")


def _match(value: Any, option: Any, where: str) -> tuple[bool, Any]:
    origin, arguments = typing.get_origin(option), typing.get_args(option)
    if origin is typing.Literal:
        return value in arguments, value
    if origin is tuple and isinstance(value, list | tuple):
        return _match_tuple(value, arguments, where)
    if option is float and isinstance(value, int | float) and not isinstance(value, bool):
        return True, float(value)
    if option is type(None):
        return value is None, None
    if option in (int, bool, str):
        return type(value) is option, value
    return False, None


def _match_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[bool, Any]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        return False, None
    pairs = zip(value, arguments, strict=True)
    return True, tuple(from_dict(v, a, f"{where}[{i}]") for i, (v, a) in enumerate(pairs))


def _describe(expected: Any) -> str:
    if typing.get_origin(expected) is typing.Literal:
        return "one of " + ", ".join(repr(a) for a in typing.get_args(expected))
    return str(getattr(expected, "__name__", expected))


def override(config: T, assignments: Sequence[str]) -> T:
    """A copy of `config` with command-line assignments such as `optim.lr=1e-4` applied.

    A value is read as JSON where it is JSON, else as a string; the bare name of a kind puts that
    kind with its defaults in the place: `task.stage.process=VPCosine`.

    Raises:
        ConfigError: for an unknown path (with a suggestion) or a value of the wrong type.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"override {assignment!r} is not of the form path=value")
        tree = to_dict(config)
        _assign(tree, path.split("."), _value(text), path)
        # Rebuilt each time, so that the fields of a newly put kind can be set by the next one.
        config = from_dict(tree, type(config))
    return config


def _assign(tree: Any, parts: list[str], value: Any, path: str) -> None:
    for depth, part in enumerate(parts):
        if not isinstance(tree, dict) or part not in tree or part == "kind":
            place = ".".join(parts[:depth]) or "the recipe"
            names = [k for k in tree if k != "kind"] if isinstance(tree, dict) else []
            allowed = ", ".join(names) or "nothing below it"
            raise ConfigError(
                f"unknown setting {path!r}: {place} has no {part!r}.{suggest(part, names)} "
                f"It has: {allowed}"
            )
        if depth < len(parts) - 1:
            tree = tree[part]
    old = tree[parts[-1]]
    is_kind = isinstance(value, str) and value in kinds() and not isinstance(old, str)
    tree[parts[-1]] = {"kind": value} if is_kind else value


def _value(text: str) -> Any:
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
