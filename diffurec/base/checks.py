"""What counts as a whole number, wherever the package is given one."""

from numbers import Integral
from typing import Any


def plain(value: Any) -> Any:
    """A scalar of numpy or torch as Python's own; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def whole(value: object, name: str, least: int = 1, most: int | None = None) -> int:
    """`value` as an int; ValueError unless it is a whole number, of Python, numpy or torch, within least..most."""
    given = plain(value)
    if isinstance(given, Integral) and not isinstance(given, bool):
        number = int(given)
        if least <= number and (most is None or number <= most):
            return number
    rule = f"of at least {least}" if most is None else f"between {least} and {most}"
    raise ValueError(f"{name} must be a whole number {rule}, but it is {value!r}.")
