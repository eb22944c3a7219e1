"""What counts as a whole number, wherever the package is given one."""

from numbers import Integral


def whole(value: object, name: str, least: int = 1, most: int | None = None) -> int:
    """`value` as an int; ValueError unless it is a whole number, Python's or numpy's, within least..most."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        number = int(value)
        if least <= number and (most is None or number <= most):
            return number
    rule = f"of at least {least}" if most is None else f"between {least} and {most}"
    raise ValueError(f"{name} must be a whole number {rule}, but it is {value!r}.")
