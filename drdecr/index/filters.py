"""Filters: typed conditions on a passage's metadata, as JSON and as checked objects.

    {"must": [{"field": "component", "eq": "mesh"}, {"field": "year", "range": {"gte": 2024}}],
     "must_not": [{"field": "tags", "in": ["draft", "spam"]}]}

A passage passes when all of `must`, at least one of `should` and none of `must_not` hold; each entry is a condition
or another such group. A condition holds when any value of its field does: a field has one value, each element of its
list, or none (absent, null, an empty list); null equals having none. `a.b` is the field `b` of the object `a`.
Text, numbers and booleans never equal each other, but 1 equals 1.0. A range over text goes by code points, so dates
in ISO format compare as dates. Nothing is normalised: letters' case and accents count.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from drdecr.errors import UsageError

MAX_DEPTH = 5
MAX_CONDITIONS = 256
MAX_VALUES = 10_000
MAX_FIELD_CHARS = 256
MAX_TEXT_CHARS = 512
"""Characters of a text in a filter; longer texts of passages are compared as they are."""

Value = str | int | float | bool | None

_GROUPS = ("must", "should", "must_not")
_TESTS = ("eq", "in", "range")
_MESSAGES = 10
"""More values of one `in` than these are not named one by one where they are wrong."""
_INTEGERS = range(-(2**63), 2**63)


def _checked_text(value: str) -> str:
    if len(value) > MAX_TEXT_CHARS:
        raise ValueError(f"a text in a filter has at most {MAX_TEXT_CHARS} characters")
    if not _is_unicode(value):
        raise ValueError("holds half a surrogate pair")
    return value


def _checked_value(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, str | int | float):
        raise ValueError("must be a text, a number, true, false or null")
    return _checked_bound(value)


def _checked_bound(value: object) -> object:
    if isinstance(value, str):
        return _checked_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a text or a number")
    if isinstance(value, int) and value not in _INTEGERS:
        raise ValueError("an integer has at most 64 bits")
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


_Value = Annotated[
    Value, PlainValidator(_checked_value), WithJsonSchema({"type": ["string", "number", "boolean", "null"]})
]
_Bound = Annotated[
    str | int | float | None, PlainValidator(_checked_bound), WithJsonSchema({"type": ["string", "number"]})
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Bounds(_Part):
    """Bounds of one kind, texts or numbers; a value lies within all that are given."""

    gt: _Bound = None
    gte: _Bound = None
    lt: _Bound = None
    lte: _Bound = None

    @model_validator(mode="after")
    def _check(self) -> Bounds:
        given = [getattr(self, name) for name in self.model_fields_set]
        if not given:
            raise ValueError("give at least one of gt, gte, lt, lte")
        if {"gt", "gte"} <= self.model_fields_set or {"lt", "lte"} <= self.model_fields_set:
            raise ValueError("give gt or gte, and lt or lte, not both")
        if len({isinstance(bound, str) for bound in given}) == 2:
            raise ValueError("both bounds must be texts, or both numbers")
        return self


class Condition(_Part):
    """A test of one field: `eq`, `in` or `range`. A list holds when any of its elements does."""

    field: str = Field(
        min_length=1, max_length=MAX_FIELD_CHARS, description="A dot leads into an object: author.name."
    )
    eq: _Value = Field(default=None, description="null: the field is absent, null or an empty list.")
    in_: list[_Value] = Field(
        default=[], alias="in", max_length=MAX_VALUES, description="Any of these; an empty list holds for none."
    )
    range: Bounds = Field(default_factory=Bounds.model_construct)

    @model_validator(mode="after")
    def _check(self) -> Condition:
        if len(self.model_fields_set - {"field"}) != 1:
            raise ValueError("give exactly one of eq, in, range")
        return self


class Filter(_Part):
    """All of `must`, at least one of `should`, none of `must_not`; without any of them every passage passes."""

    must: list[Clause] = Field(default=[], description="All of these hold.")
    should: list[Clause] = Field(default=[], min_length=1, description="At least one of these holds.")
    must_not: list[Clause] = Field(default=[], description="None of these holds.")

    @property
    def canonical(self) -> str:
        """JSON that equal filters share."""
        return json.dumps(self.model_dump(by_alias=True, exclude_unset=True), sort_keys=True)


def _typed(value: object) -> object:
    """Choose between condition and group by the keys, so that an error speaks of what was meant."""
    if not isinstance(value, Mapping):
        return value if isinstance(value, _Part) else _refuse(value)
    kind = Condition if any(key in value for key in ("field", *_TESTS)) else Filter
    return kind.model_validate(value)


def _refuse(_: object) -> object:
    raise ValueError("must be an object: a condition with `field`, or a group of must, should, must_not")


Clause = Annotated[Condition | Filter, BeforeValidator(_typed)]
Filter.model_rebuild()


def check_size(data: object) -> object:
    """Refuse a filter that nests too deep or holds too much, before it is read. Raises: ValueError."""
    conditions, values = 0, 0
    waiting = [(data, 1)]
    while waiting:
        part, depth = waiting.pop()
        if not isinstance(part, Mapping):
            continue
        groups = [part[name] for name in _GROUPS if isinstance(part.get(name), list)]
        if groups and depth > MAX_DEPTH:
            raise ValueError(f"groups nest at most {MAX_DEPTH} deep")
        for group in groups:
            waiting.extend((clause, depth + 1) for clause in group)
        conditions += 1
        listed = part["in"] if isinstance(part.get("in"), list) else []
        values += len(listed)
        if conditions > MAX_CONDITIONS or values > MAX_VALUES:
            raise ValueError(f"holds more than {MAX_CONDITIONS} conditions and groups or {MAX_VALUES} values")
        # One message, not one for each of ten thousand.
        if sum(isinstance(value, list | Mapping) for value in listed) > _MESSAGES:
            raise ValueError("the values of `in` must be texts, numbers, true, false or null")
    return data


def parse_filter(data: object) -> Filter:
    """Check what JSON gave. Raises: UsageError that names the place, such as `filter.must[1].range`."""
    try:
        check_size(data)
        return Filter.model_validate(data)
    except ValidationError as problem:
        error = problem.errors(include_url=False, include_input=False)[0]
        raise UsageError(f"{_place(error['loc'])}: {_message(error)}") from None
    except ValueError as problem:
        raise UsageError(f"filter: {problem}") from None


def _place(location: tuple[int | str, ...]) -> str:
    return "filter" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _message(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


def _is_unicode(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
