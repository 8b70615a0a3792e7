"""What the tables of a study have in common: they are frozen, take no key they do not know, and say what is wrong."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Name = Annotated[str, Field(min_length=1, max_length=200)]


class Frozen(BaseModel):
    """A table of a study file."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def whole_above_one(gpus: float) -> float:
    """Return a share of a GPU, or a number of them.

    :raises ValueError: for what is neither.
    """
    if gpus > 1 and not gpus.is_integer():
        raise ValueError("a fraction of one GPU, or a whole number of them")
    return gpus


def explain(error: ValidationError, where: str) -> str:
    """Turn pydantic's report into lines of the form `models[2].view: …`."""
    lines = []
    for problem in error.errors():
        at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(
            "."
        )
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key; remove it or check its spelling"
        elif problem["type"] == "missing":
            message = "missing; it is required"
        elif "input" in problem and not isinstance(problem["input"], dict | list | tuple):
            message = f"{message} (given: {problem['input']!r})"
        lines.append(f"  {at or 'study'}: {message}")
    return f"{where} cannot be used:\n" + "\n".join(lines)
