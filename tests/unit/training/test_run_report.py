"""The parts of a run's report, and that text from data cannot become markup in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from training.run_report import bars, curves, heat_map, keep_scores, write_report

HISTORY = [
    {"loss": 2.0, "relevance": 1.5, "token_query": 0.5, "learning_rate": 1e-3, "epoch": 0.1, "step": 1},
    {"eval_loss": 1.8, "eval_relevance": 1.4, "eval_runtime": 3.0, "step": 1},
    {"loss": float("nan"), "relevance": 1.0, "token_query": 0.2, "step": 2},
    {"loss": 1.0, "relevance": 0.8, "token_query": 0.2, "step": 3},
    {"train_runtime": 9.0, "train_loss": 1.5, "step": 3},
]


def test_curves_show_each_objective_and_no_bookkeeping() -> None:
    drawn = curves(HISTORY, "", "loss")
    assert drawn.count("<polyline") == 3
    assert "relevance 0.800" in drawn and "learning_rate" not in drawn and "runtime" not in drawn
    assert "nan" not in drawn.split("points")[1]
    validation = curves(HISTORY, "eval_", "validation")
    assert validation.count("<polyline") == 2 and "relevance 1.400" in validation
    assert curves([{"train_loss": 1.0, "step": 1}], "", "loss") == ""


def test_bars_have_a_row_for_each_source_and_stage() -> None:
    drawn = bars({"1-a": {"set/de": {"success@1": 0.5}}, "2-b": {"set/de": {"success@1": 0.75}}})
    assert drawn.count("<rect") == 2
    assert 'width="110.0"' in drawn and 'width="165.0"' in drawn and drawn.count("set/de") == 1


def test_heat_map_frames_what_is_aligned_and_escapes_texts() -> None:
    drawn = heat_map(np.array([[0.9, -0.2], [0.1, 0.4]], np.float32), [0, -1], ["<b>", "zwei"], ["one", "&two"])
    assert drawn.count("class=taken") == 1 and "&lt;b&gt;" in drawn and "&amp;two" in drawn
    assert "<b>" not in drawn


def test_report_is_written_from_a_runs_folders(tmp_path: Path) -> None:
    stage = tmp_path / "stages" / "1-a"
    stage.mkdir(parents=True)
    (tmp_path / "recipe.json").write_text(json.dumps({"name": "<script>"}))
    (stage / "done.json").write_text(json.dumps({"steps": 3, "history": HISTORY}))
    keep_scores(stage, {"set/de": {"success@1": 0.25}})
    page = write_report(tmp_path, ["1-a"], ["<table class='heat'></table>"]).read_text(encoding="utf-8")
    assert "<script>" not in page and "&lt;script&gt;" in page
    for part in ("1-a: 3 steps", "<h3>loss</h3>", "<h3>validation</h3>", "Recall@1 by source", "Aligned tokens"):
        assert part in page
    assert not list(tmp_path.glob("*.partial"))
