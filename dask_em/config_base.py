"""What all settings have in common: they are immutable, know no key that is not declared, and convert nothing."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Name = Annotated[str, Field(min_length=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """Immutable settings; a key that is not declared is a mistake, and no value is silently converted."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Bounds(Settings):
    """A smallest and a largest number."""

    minimum: Positive
    maximum: Positive

    @field_validator("maximum")
    @classmethod
    def _in_order(cls, maximum: int, info: ValidationInfo) -> int:
        if maximum < info.data.get("minimum", maximum):
            raise ValueError("must not be below minimum")
        return maximum
