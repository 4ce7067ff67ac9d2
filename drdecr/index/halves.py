"""Decodes float16 in compiled code, where numba knows no such type: plain integer work that every CPU vectorises.

Moving a half's exponent and mantissa to a float's place leaves the exponent 112 too small; multiplying by 2**112
puts it right, exactly, for normal and subnormal halves. (Infinities do not occur: vectors are checked when written.)
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

EIGHT = 8
SIXTEEN = 16
_FLOAT_BYTES, _HALF_BYTES = 4, 2


def floats_at(builder: Any, address: Any, count: int) -> Any:
    """Emit the floats that so many halves at an address stand for; the address needs no alignment."""
    halves, words, floats = (ir.VectorType(kind, count) for kind in (ir.IntType(16), ir.IntType(32), ir.FloatType()))

    def constant(value: int) -> Any:
        return ir.Constant(words, [value] * count)

    wide = builder.zext(builder.load(builder.inttoptr(address, halves.as_pointer()), align=1), words)
    sign = builder.shl(builder.and_(wide, constant(0x8000)), constant(16))
    rest = builder.shl(builder.and_(wide, constant(0x7FFF)), constant(13))
    value = builder.bitcast(builder.or_(sign, rest), floats)
    return builder.fmul(value, ir.Constant(floats, [2.0**112] * count))


def _decode(count: int) -> Any:
    def decode(typingctx: Any, source: Any, target: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            decoded = floats_at(builder, args[0], count)
            builder.store(decoded, builder.inttoptr(args[1], decoded.type.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), emit

    return decode


decode_eight = intrinsic(_decode(EIGHT))
"""Decode eight halves at an address into eight floats at another; the source needs no alignment."""
decode_one = intrinsic(_decode(1))


@intrinsic
def dot_sixteens(typingctx: Any, halves: Any, floats: Any, count: Any) -> Any:
    """Return the dot product of halves at an address with floats at another; `count` is a multiple of sixteen."""
    vector = ir.VectorType(ir.FloatType(), SIXTEEN)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        halves_, floats_, count_ = args
        intp = count_.type
        sums = cgutils.alloca_once(builder, vector)
        builder.store(ir.Constant(vector, [0.0] * SIXTEEN), sums)
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{SIXTEEN}f32"
        )
        with cgutils.for_range(builder, builder.udiv(count_, ir.Constant(intp, SIXTEEN)), intp=intp) as loop:

            def at(base: Any, item_bytes: int, index: Any = loop.index) -> Any:
                return builder.add(base, builder.mul(index, ir.Constant(intp, SIXTEEN * item_bytes)))

            left = floats_at(builder, at(halves_, _HALF_BYTES), SIXTEEN)
            right = builder.load(builder.inttoptr(at(floats_, _FLOAT_BYTES), vector.as_pointer()), align=_FLOAT_BYTES)
            builder.store(builder.call(fma, [left, right, builder.load(sums)]), sums)
        total, index = builder.load(sums), ir.IntType(32)
        for half in (8, 4, 2, 1):
            order = [(dimension + half) % SIXTEEN for dimension in range(SIXTEEN)]
            turned = ir.Constant(ir.VectorType(index, SIXTEEN), order)
            total = builder.fadd(total, builder.shuffle_vector(total, ir.Constant(vector, ir.Undefined), turned))
        return builder.extract_element(total, ir.Constant(index, 0))

    return types.float32(types.int64, types.int64, types.int64), emit
