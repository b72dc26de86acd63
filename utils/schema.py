"""The base class of all pydantic settings models: a field states its type, bounds, default and meaning once."""

from collections.abc import Mapping
from copy import copy
from typing import Any

from pydantic import BaseModel, ConfigDict


class Schema(BaseModel):
    """A model whose fields are documented by the docstring below each field.

    A subclass that changes only defaults gives the new values in its class statement, and inherits types, bounds and
    meanings:

        class TextConfig(TrainingConfig, defaults={"lr": 1e-2}): ...
    """

    model_config = ConfigDict(use_attribute_docstrings=True, validate_default=True)

    def __init_subclass__(cls, defaults: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)  # `defaults` is for the method below, called once the fields exist

    @classmethod
    def __pydantic_init_subclass__(cls, defaults: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not defaults:
            return
        for name, value in defaults.items():
            field = copy(cls.model_fields[name])
            field.default = value
            cls.model_fields[name] = field
        cls.model_rebuild(force=True)
