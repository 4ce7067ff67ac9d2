"""report.html of a run: curves, bars by language, aligned tokens; one file that needs nothing else."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drdecr.encoder.torch_runtime import TorchEncoder
from drdecr.encoder.types import Encoder
from training.alignment import align_tokens
from training.candidates.collator import TextInputs
from training.evaluation.measures import Scores
from training.json_file import write_json
from training.rows import Row
from training.teacher import reading

FILE = "report.html"
SCORES_FILE = "validation.json"
EXAMPLES = 4
_WIDTH, _HEIGHT, _MARGIN = 560, 200, 42
_COLOURS = ("#2563a8", "#b8541a", "#2f7d4f", "#7d3f98", "#8a6d00", "#a03050")
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1,h2,h3{line-height:1.2} table{border-collapse:collapse} td,th{padding:.15rem .5rem;text-align:right}
th:first-child,td:first-child{text-align:left} svg text{font-size:11px;fill:currentColor} pre{overflow:auto}
.heat td{width:2rem;height:1.4rem;padding:0;border:1px solid #fff} .heat th{font-weight:400;font-size:12px}
.heat td.taken{outline:2px solid #b8541a;outline-offset:-2px} .bar{fill:#2563a8}
@media (prefers-color-scheme:dark){body{color:#e4e7ea;background:#14171a}.heat td{border-color:#14171a}}
"""

History = list[dict[str, Any]]


def write_report(run: Path, stages: Sequence[str], examples: Sequence[str] = ()) -> Path:
    """Write `run`/report.html from what the run's folders hold; `examples` are heat maps, ready as HTML."""
    parts = [f"<h1>Training run {html.escape(json.loads((run / 'recipe.json').read_text())['name'])}</h1>"]
    scores: dict[str, dict[str, Scores]] = {}
    for folder in stages:
        place = run / "stages" / folder
        done = json.loads((place / "done.json").read_text())
        parts.append(f"<h2>{html.escape(folder)}: {done['steps']} steps</h2>")
        parts += [curves(done["history"], prefix, title) for prefix, title in (("", "loss"), ("eval_", "validation"))]
        if (place / SCORES_FILE).is_file():
            scores[folder] = json.loads((place / SCORES_FILE).read_text())
    if scores:
        parts += ["<h2>Held-back sentences: Recall@1 by source</h2>", bars(scores)]
    if examples:
        parts += ["<h2>Aligned tokens</h2>", "<p>Darker is nearer; framed is aligned.</p>", *examples]
    recipe = html.escape((run / "recipe.json").read_text(encoding="utf-8"))
    parts.append(f"<h2>Recipe</h2><details><summary>as validated</summary><pre>{recipe}</pre></details>")
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Training run</title><style>{_STYLE}</style>'
        f"<body>{''.join(parts)}</body></html>\n"
    )
    partial = run / f"{FILE}.partial"
    partial.write_text(page, encoding="utf-8")
    return partial.replace(run / FILE)


def keep_scores(stage: Path, scores: Mapping[str, Scores]) -> None:
    """Keep a stage's validation scores for the report."""
    write_json(stage / SCORES_FILE, scores)


def curves(history: History, prefix: str, title: str) -> str:
    """Draw the losses of a stage over its steps: the sum, and each objective; nothing where there are none."""
    skipped = {"epoch", "step", "learning_rate", "grad_norm", "runtime", "samples_per_second", "steps_per_second"}
    lines: dict[str, list[tuple[float, float]]] = {}
    for entry in history:
        if f"{prefix}loss" not in entry or (not prefix and any(key.startswith("eval_") for key in entry)):
            continue
        for key, value in entry.items():
            name = key.removeprefix(prefix)
            if key.startswith(prefix) and name not in skipped and isinstance(value, int | float):
                lines.setdefault(name, []).append((float(entry["step"]), float(value)))
    points = [point for line in lines.values() for point in line if np.isfinite(point[1])]
    if not points:
        return ""
    most, highest = max(step for step, _ in points), max(value for _, value in points) or 1.0
    lowest = min(0.0, *(value for _, value in points))
    drawn = []
    for at, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[at % len(_COLOURS)]
        places = " ".join(
            f"{_MARGIN + step / most * (_WIDTH - _MARGIN - 120):.1f},"
            f"{_HEIGHT - 24 - (value - lowest) / (highest - lowest) * (_HEIGHT - 40):.1f}"
            for step, value in line
            if np.isfinite(value)
        )
        drawn.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        legend = f"{html.escape(name)} {line[-1][1]:.3f}"
        drawn.append(f'<text x="{_WIDTH - 112}" y="{24 + 15 * at}" style="fill:{colour}">{legend}</text>')
    drawn.append(f'<text x="2" y="20">{highest:.3g}</text><text x="2" y="{_HEIGHT - 24}">{lowest:.3g}</text>')
    drawn.append(f'<text x="{_WIDTH - 170}" y="{_HEIGHT - 6}">step {most:.0f}</text>')
    label = html.escape(title)
    size = f'width="{_WIDTH}" height="{_HEIGHT}"'
    return f'<h3>{label}</h3><svg role="img" aria-label="{label}" {size}>{"".join(drawn)}</svg>'


def bars(stages: Mapping[str, Mapping[str, Scores]]) -> str:
    """Draw Recall@1 (success@1) of each source after each stage."""
    rows = []
    for source in dict.fromkeys(source for scores in stages.values() for source in scores):
        for at, (stage, scores) in enumerate(stages.items()):
            share = scores[source]["success@1"]
            bar = f'<svg width="220" height="12"><rect class="bar" width="{220 * share:.1f}" height="12"/></svg>'
            name = html.escape(source) if at == 0 else ""
            rows.append(f"<tr><td>{name}</td><td>{html.escape(stage)}</td><td>{bar}</td><td>{share:.3f}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def heat_maps(student: TorchEncoder, teacher: Encoder, rows: Sequence[Row]) -> list[str]:
    """Draw what token KD compares: student tokens of foreign texts against teacher tokens of their English.

    None where a student has neither contextual features nor token vectors of the teacher's width.
    """
    drawn = []
    for row in rows[:EXAMPLES]:
        spans = student.encode([row.query], "query").spans
        foreign = _compared(student, row.query, teacher.spec.dim)
        english = teacher.encode([row.english], reading(teacher, "query"))
        if foreign is None or len(foreign) != len(spans) or not len(foreign) or not len(english.vectors):
            continue
        sides = [torch.from_numpy(one).unsqueeze(0) for one in (foreign, english.vectors)]
        masks = [torch.ones(1, side.shape[1], dtype=torch.bool) for side in sides]
        drawn.append(
            heat_map(
                foreign @ english.vectors.T,
                align_tokens(sides[0], sides[1], masks[0], masks[1])[0].tolist(),
                [row.query[start:end] for start, end in spans.tolist()],
                [row.english[start:end] for start, end in english.spans.tolist()],
            )
        )
    return drawn


@torch.no_grad()
def _compared(student: TorchEncoder, text: str, width: int) -> NDArray[np.float32] | None:
    """Return the student's L2-normalised tokens of a width, (tokens, width); contextual features before vectors."""
    model = student.model.eval()
    inputs = TextInputs(model, student.spec.query_length, student.spec.passage_length)([text], "query")
    moved = {key: value.to(model.device) for key, value in inputs.items() if hasattr(value, "to")}
    features = model(moved, task="query")
    for key in ("context_embeddings", "token_embeddings"):
        if key in features and features[key].shape[-1] == width:
            tokens = features[key][0][features["attention_mask"][0].bool()].float()
            found: NDArray[np.float32] = torch.nn.functional.normalize(tokens, dim=-1).cpu().numpy()
            return found
    return None


def heat_map(
    cosines: NDArray[np.float32], positions: Sequence[int], rows: Sequence[str], columns: Sequence[str]
) -> str:
    """Draw one text's cosines, (student tokens, teacher tokens); `positions` are framed, -1 is none."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    lines = []
    for at, (name, line) in enumerate(zip(rows, cosines, strict=True)):
        cells = "".join(
            f"<td{' class=taken' if positions[at] == column else ''} "
            f'style="background:rgb(37 99 168/{max(0.0, float(value)):.2f})" title="{value:.2f}"></td>'
            for column, value in enumerate(line)
        )
        lines.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    return f'<table class="heat"><tr><th></th>{head}</tr>{"".join(lines)}</table>'
