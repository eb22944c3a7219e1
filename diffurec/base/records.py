"""What the models of JSON files share: nothing is converted, and the first thing that is wrong is told in one line."""

import re
import reprlib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model


class Record(BaseModel):
    """An object of a file, whose unknown keys are left alone: "1" is no number here, and true is none."""

    model_config = ConfigDict(strict=True)


class Closed(Record, extra="forbid"):
    """One that has no other keys."""


def record(names: Iterable[str], kind: Any, base: type[Record] = Record, /, **more: Any) -> Any:
    """The record in which each of these names has a value of this kind, and those of `more` have one of theirs."""
    return create_model("record", __base__=base, **dict.fromkeys(names, kind), **more)


def fault(error: ValueError) -> str:
    """What is wrong first, without a full stop: its place, what stands there, and what should."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    place, value = short(".".join(map(str, first["loc"]))), short(reprlib.repr(first["input"]))
    if first["type"] in ("missing", "extra_forbidden"):
        return f"{place} is {'missing' if first['type'] == 'missing' else 'unknown'}"
    # "Input should be ..." and "List should have ..." go on from the place, and so does a check of our own.
    rule = first["msg"].partition(" or instance of ")[0]
    return f"{place or 'all of it'} ({value}) " + re.sub(r"^(Input|List|Dictionary|String) |^Value error, ", "", rule)


def short(text: str) -> str:
    """A text of a file in one short line."""
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:60]}..."
