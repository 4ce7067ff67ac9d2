"""Compiles inner loops with numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile without the GIL and keep the result on disk, or in memory where no directory can be written.

    numba looks only at the text of the function's file when it decides whether what it kept is still good.
    """
    try:
        return cast(_Function, njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast(_Function, njit(nogil=True)(function))
