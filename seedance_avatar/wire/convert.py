"""Builds attrs values from JSON objects, with one cattrs converter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import cattrs

from seedance_avatar.models import AssetSource

T = TypeVar("T")


def structure(model: type[T], fields: Mapping[str, Any]) -> T:
    """Return a ``model`` built from ``fields``; unknown fields are ignored.

    An optional field of a wrong type becomes None. One that is not optional must have its type already: readers fix
    ids and statuses first.

    :raises TypeError: a field that is not optional is missing or of another type.
    """
    return _converter.structure(fields, model)


def _strict(kind: type[Any]) -> Callable[[object, object], Any]:
    def take(value: object, _: object) -> object:
        if type(value) is kind:
            return value
        message = f"{type(value).__name__} is not {kind.__name__}"
        raise TypeError(message)

    return take


def _lenient(kind: type[Any]) -> Callable[[object, object], Any]:
    return lambda value, _: value if type(value) is kind else None


def _number(value: object, _: object) -> float | None:
    try:
        return float(value) if type(value) in {int, float} else None  # type: ignore[arg-type]  # narrowed on this line
    except OverflowError:
        return None


def _make_converter() -> cattrs.Converter:
    """Return a converter that never coerces: by default, cattrs turns None into "None" and "false" into True."""
    converter = cattrs.Converter(detailed_validation=False)
    for kind in (str, int, float, bool):
        converter.register_structure_hook(kind, _strict(kind))
        converter.register_structure_hook(kind | None, _lenient(kind))
    converter.register_structure_hook(float | None, _number)
    converter.register_structure_hook(AssetSource | None, lambda value, _: value)
    converter.register_structure_hook_func(lambda kind: kind == Mapping[str, Any], lambda value, _: value)
    return converter


_converter: Final = _make_converter()
