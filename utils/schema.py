"""The base class of all pydantic settings models: a field states its type, bounds, default and meaning once."""

from collections.abc import Mapping
from copy import copy
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class Schema(BaseModel):
    """A model whose fields are documented by the docstring below each field.

    A subclass that changes only defaults gives the new values in its class statement, and inherits types, bounds and
    meanings:

        class TextConfig(TrainingConfig, defaults={"lr": 1e-2}): ...

    Numbers are finite, and `true` is not a number. For a list of texts, one text stands for a list of one.
    """

    model_config = ConfigDict(use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_values_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        types = _types(cls.model_fields[str(info.field_name)].annotation)
        items = value if isinstance(value, (list, tuple)) else [value]
        if types & {int, float} and bool not in types and any(isinstance(item, bool) for item in items):
            raise PydanticCustomError("truth_value", "input should be a number, not true or false")
        return value

    def __init_subclass__(cls, defaults: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)  # `defaults` is for the method below, called once the fields exist

    @field_validator("*", mode="before")
    @classmethod
    def _one_text_is_a_list_of_one(cls, value: Any, info: ValidationInfo) -> Any:
        is_list = cls.model_fields[str(info.field_name)].annotation == list[str]
        return [value] if is_list and isinstance(value, str) and value else value

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


def _types(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    arguments = get_args(annotation)
    return {annotation} if not arguments else {found for argument in arguments for found in _types(argument)}
