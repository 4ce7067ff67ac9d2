"""Random metadata and filters, and what a filter means, said in the plainest way."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = ("a", "b", "a.b", "c")
TEXTS = st.sampled_from(["", "x", "xy", "é", "2024-01-31", "2024-02", "\0", "x" * 512, "x" * 513, "x" * 600])
NUMBERS = st.sampled_from([0, 1, 1.0, -1, 0.5, -0.0, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63), 1e300, 5e-324])
SCALARS = TEXTS | NUMBERS | st.booleans()
BOUNDS = {"text": st.sampled_from(["", "x", "é", "2024", "2024-02", "\0", "x" * 512]), "number": NUMBERS}

METADATA = st.dictionaries(
    st.sampled_from(("a", "b", "c")),
    SCALARS
    | st.none()
    | st.lists(SCALARS | st.none(), max_size=3)
    | st.dictionaries(st.sampled_from(("b", "c")), SCALARS | st.none() | st.lists(SCALARS, max_size=2), max_size=2),
    max_size=3,
)

VALUES = st.none() | st.booleans() | BOUNDS["text"] | BOUNDS["number"]


@st.composite
def _ranges(draw: st.DrawFn) -> dict[str, Any]:
    bounds = BOUNDS[draw(st.sampled_from(("text", "number")))]
    names = draw(st.sampled_from([("gt",), ("gte",), ("lt",), ("lte",), ("gt", "lt"), ("gte", "lt"), ("gt", "lte")]))
    return {name: draw(bounds) for name in names}


CONDITIONS = (
    st.fixed_dictionaries({"field": st.sampled_from(NAMES), "eq": VALUES})
    | st.fixed_dictionaries({"field": st.sampled_from(NAMES), "in": st.lists(VALUES, max_size=4)})
    | st.fixed_dictionaries({"field": st.sampled_from(NAMES), "range": _ranges()})
)


def _groups(clauses: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "must": st.lists(clauses, max_size=2),
            "should": st.lists(clauses, min_size=1, max_size=2),
            "must_not": st.lists(clauses, max_size=2),
        },
    )


FILTERS = _groups(CONDITIONS | _groups(CONDITIONS | _groups(CONDITIONS)))


def passes(wanted: dict[str, Any], metadata: dict[str, Any]) -> bool:
    """Say whether a passage passes, by its metadata alone."""
    if "field" in wanted:
        return _holds(wanted, flattened(metadata))
    return (
        all(passes(clause, metadata) for clause in wanted.get("must", []))
        and ("should" not in wanted or any(passes(clause, metadata) for clause in wanted["should"]))
        and not any(passes(clause, metadata) for clause in wanted.get("must_not", []))
    )


def flattened(metadata: dict[str, Any]) -> list[tuple[str, Any]]:
    """List every value with its dotted field."""
    found = []
    for name, value in metadata.items():
        if isinstance(value, dict):
            found += [(f"{name}.{inner}", each) for inner, each in flattened(value)]
        else:
            found += [(name, each) for each in (value if isinstance(value, list) else [value]) if each is not None]
    return found


def _holds(condition: dict[str, Any], values: list[tuple[str, Any]]) -> bool:
    own = [value for field, value in values if field == condition["field"]]
    if "range" in condition:
        return any(all(_stands(value, name, bound) for name, bound in condition["range"].items()) for value in own)
    wanted = condition["in"] if "in" in condition else [condition["eq"]]
    if None in wanted and not any((field + ".").startswith(condition["field"] + ".") for field, _ in values):
        return True
    return any(_same_kind(value, each) and value == each for value in own for each in wanted)


def _stands(value: Any, name: str, bound: Any) -> bool:
    if not _same_kind(value, bound):
        return False
    return {"gt": value > bound, "gte": value >= bound, "lt": value < bound, "lte": value <= bound}[name]


def _same_kind(one: Any, other: Any) -> bool:
    kinds = (bool, str, int | float)
    return next(i for i, kind in enumerate(kinds) if isinstance(one, kind)) == next(
        (i for i, kind in enumerate(kinds) if isinstance(other, kind)), None
    )
