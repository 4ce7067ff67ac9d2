"""Decodes float16 in compiled code, where numba knows no such type: plain integer work that every CPU vectorises.

Moving a half's exponent and mantissa to a float's place leaves the exponent 112 too small; multiplying by 2**112
puts it right, exactly, for normal and subnormal halves. (Infinities do not occur: vectors are checked when written.)
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

EIGHT = 8


def _decode(count: int) -> Any:
    def decode(typingctx: Any, source: Any, target: Any) -> Any:
        halves, words, floats = (
            ir.VectorType(kind, count) for kind in (ir.IntType(16), ir.IntType(32), ir.FloatType())
        )

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            packed = builder.load(builder.inttoptr(args[0], halves.as_pointer()), align=1)
            wide = builder.zext(packed, words)

            def constant(value: int) -> Any:
                return ir.Constant(words, [value] * count)

            sign = builder.shl(builder.and_(wide, constant(0x8000)), constant(16))
            rest = builder.shl(builder.and_(wide, constant(0x7FFF)), constant(13))
            value = builder.bitcast(builder.or_(sign, rest), floats)
            scaled = builder.fmul(value, ir.Constant(floats, [2.0**112] * count))
            builder.store(scaled, builder.inttoptr(args[1], floats.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), emit

    return decode


decode_eight = intrinsic(_decode(EIGHT))
"""Decode eight halves at an address into eight floats at another; the source needs no alignment."""
decode_one = intrinsic(_decode(1))
