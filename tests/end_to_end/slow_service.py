"""A service over a fake engine that is never done with loading, or with opening a newer generation.

Usage: python slow_service.py STAGE FOLDER, where STAGE is what does not end: load, onnx, warm-up, data or newer.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "service"))

from fake_engine import FakeEncoder, FakeSnapshot

import service.process
from service.data import ServedData
from service.engine import Engine, ServedIndex
from service.settings import Settings


def never(*_: object) -> object:
    """Say that it began, and do not end."""
    sys.stderr.write("began\n")
    sys.stderr.flush()
    threading.Event().wait()
    raise AssertionError


def load_models_for_ever(*_: object) -> object:
    """Load with ONNX Runtime again and again: a thread that is broken off there ends the process by an abort."""
    from onnx import TensorProto, helper
    from onnxruntime import InferenceSession

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("in", "out")]
    graph = helper.make_graph([helper.make_node("Identity", ["in"], ["out"])], "tiny", ends[:1], ends[1:])
    opset = helper.make_opsetid("", 17)
    model: bytes = helper.make_model(graph, ir_version=9, opset_imports=[opset]).SerializeToString()
    InferenceSession(model)
    sys.stderr.write("began\n")
    sys.stderr.flush()
    while True:
        InferenceSession(model)


def main(stage: str, folder: Path) -> None:
    """Serve until a signal comes."""
    encoder = FakeEncoder()
    newer = never if stage == "newer" else lambda: None
    engine = Engine(encoder, {"demo": ServedIndex("demo", FakeSnapshot(), newer)})
    if stage == "warm-up":
        encoder.encode = never
    if stage == "data":
        ServedData._look = never
    loads = {"load": never, "onnx": load_models_for_ever}
    service.process.load_engine = loads.get(stage, lambda settings, readiness: engine)
    data = folder / "data" if stage == "data" else None
    service.process.run(
        Settings(student="s", index="demo=s", data=data, port=0, threads=1, follow_s=0.01, drain_s=0.1)
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
