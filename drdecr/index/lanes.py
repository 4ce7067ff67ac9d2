"""Dot products with the query tokens as vector lanes, as numba intrinsics.

Eight query tokens fill one AVX2 register, sixteen one of AVX-512. A tile holds as many registers of sums as the
machine has to spare: the dot products of some rows with all lanes. Each lane adds its products in the order of the
dimensions, so equal rows get bit-equal scores wherever they lie and however wide a register is (a BLAS product does
not promise that), and ties can be broken by position.

How many registers of lanes a call has is the length of its `lanes` tuple, so numba compiles a kernel for each width.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic


def cpu_has(feature: str) -> bool:
    """Say whether numba compiles for a CPU with a feature, by LLVM's name; its own settings go first."""
    if config.CPU_NAME or config.CPU_FEATURES:
        return f"+{feature}" in (config.CPU_FEATURES or "").split(",")
    return bool(binding.get_host_cpu_features().get(feature))


# AVX-512 has registers of twice the width, and twice as many: a tile of 24 sums still leaves room for lanes.
LANES, TILE_REGISTERS = (16, 16) if cpu_has("avx512f") else (8, 12)
MAX_LANES = 32
MAX_REGISTERS = MAX_LANES // LANES

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_FLOAT_BYTES = 4


def tile_rows(registers: int) -> int:
    """Return how many rows one tile scores at once against this many registers of lanes."""
    return TILE_REGISTERS // registers


def _pointer(builder: Any, address: Any, element: Any) -> Any:
    return builder.inttoptr(address, element.as_pointer())


def _row_address(builder: Any, base: Any, stride: Any, rows_left: Any, row: int) -> Any:
    """Give the address of a tile's row; rows past the end repeat the last one, which changes no maximum."""
    intp = base.type
    last = builder.sub(rows_left, ir.Constant(intp, 1))
    wanted = ir.Constant(intp, row)
    index = builder.select(builder.icmp_signed("<", wanted, last), wanted, last)
    return builder.add(base, builder.mul(index, stride))


def _tile_sums(builder: Any, rows: list[Any], queries: Any, dim: Any, registers: int) -> list[list[Any]]:
    """Emit the loop over dimensions; return the sums as [row][register]."""
    intp = queries.type
    sums = [[cgutils.alloca_once(builder, _FLOATS) for _ in range(registers)] for _ in rows]
    zero = ir.Constant(_FLOATS, [0.0] * LANES)
    for row in sums:
        for cell in row:
            builder.store(zero, cell)
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), f"llvm.fma.v{LANES}f32"
    )
    spread = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    undefined = ir.Constant(_FLOATS, ir.Undefined)
    with cgutils.for_range(builder, dim, intp=intp) as loop:
        at = builder.mul(loop.index, ir.Constant(intp, _FLOAT_BYTES))
        lane_base = builder.add(queries, builder.mul(at, ir.Constant(intp, registers * LANES)))

        def lane_of(register: int) -> Any:
            offset = ir.Constant(intp, register * LANES * _FLOAT_BYTES)
            return builder.load(_pointer(builder, builder.add(lane_base, offset), _FLOATS), align=_FLOAT_BYTES)

        def spread_of(address: Any) -> Any:
            value = builder.load(_pointer(builder, builder.add(address, at), ir.FloatType()), align=_FLOAT_BYTES)
            single = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(single, undefined, spread)

        def add(cell: Any, spread_value: Any, lane: Any) -> None:
            builder.store(builder.call(fma, [spread_value, lane, builder.load(cell)]), cell)

        # The fewer of both stay in registers while the others pass by.
        if len(rows) < registers:
            spread_values = [spread_of(address) for address in rows]
            for register in range(registers):
                lane = lane_of(register)
                for row, spread_value in zip(sums, spread_values, strict=True):
                    add(row[register], spread_value, lane)
        else:
            lanes = [lane_of(register) for register in range(registers)]
            for row, address in zip(sums, rows, strict=True):
                spread_value = spread_of(address)
                for cell, lane in zip(row, lanes, strict=True):
                    add(cell, spread_value, lane)
    return [[builder.load(cell) for cell in row] for row in sums]


@intrinsic
def fold_tile(
    typingctx: Any, rows: Any, stride: Any, rows_left: Any, queries: Any, dim: Any, best: Any, lanes: Any
) -> Any:
    """Raise `best` (registers x LANES float32) to the dot products of a tile's rows with the query lanes.

    All arguments but `lanes` are int64: addresses, the bytes between rows, the rows that are left, dimensions.
    """
    registers = len(lanes)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, stride_, left, queries_, dim_, best_, _ = args
        addresses = [_row_address(builder, base, stride_, left, row) for row in range(tile_rows(registers))]
        sums = _tile_sums(builder, addresses, queries_, dim_, registers)
        for register in range(registers):
            offset = ir.Constant(best_.type, register * LANES * _FLOAT_BYTES)
            cell = _pointer(builder, builder.add(best_, offset), _FLOATS)
            high = builder.load(cell, align=_FLOAT_BYTES)
            for row in sums:
                high = builder.select(builder.fcmp_ordered(">", row[register], high), row[register], high)
            builder.store(high, cell, align=_FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6, lanes), emit


@intrinsic
def store_tile(
    typingctx: Any,
    rows: Any,
    stride: Any,
    rows_left: Any,
    queries: Any,
    dim: Any,
    out: Any,
    out_stride: Any,
    lanes: Any,
) -> Any:
    """Store the dot products of a tile's rows with the query lanes, `out_stride` bytes from row to row."""
    registers = len(lanes)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, stride_, left, queries_, dim_, out_, out_stride_, _ = args
        count = tile_rows(registers)
        addresses = [_row_address(builder, base, stride_, left, row) for row in range(count)]
        targets = [_row_address(builder, out_, out_stride_, left, row) for row in range(count)]
        sums = _tile_sums(builder, addresses, queries_, dim_, registers)
        for target, row in zip(targets, sums, strict=True):
            for register, value in enumerate(row):
                offset = ir.Constant(out_.type, register * LANES * _FLOAT_BYTES)
                builder.store(value, _pointer(builder, builder.add(target, offset), _FLOATS), align=_FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7, lanes), emit


@intrinsic
def add_floats(typingctx: Any, left: Any, right: Any, target: Any, width: Any) -> Any:
    """Add as many floats as `width` is long, from two addresses, and store the sums at a third."""
    floats = ir.VectorType(ir.FloatType(), len(width))

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one, other = (builder.load(_pointer(builder, each, floats), align=_FLOAT_BYTES) for each in args[:2])
        builder.store(builder.fadd(one, other), _pointer(builder, args[2], floats), align=_FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, width), emit


@intrinsic
def load_int64(typingctx: Any, address: Any) -> Any:
    """Read an int64 at any address, aligned or not."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], ir.IntType(64)), align=1)

    return types.int64(types.int64), emit


@intrinsic
def store_int64(typingctx: Any, address: Any, value: Any) -> Any:
    """Write an int64 at any address, aligned or not."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], _pointer(builder, args[0], ir.IntType(64)), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def prefetch(typingctx: Any, address: Any) -> Any:
    """Ask for the cache line at an address, which need not exist, before it is read."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # A read (0) that stays in all caches (3) of data (1).
        builder.call(function, [builder.inttoptr(args[0], byte), *(ir.Constant(flag, each) for each in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(types.int64), emit
