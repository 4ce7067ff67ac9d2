"""`drdecr train`, `drdecr export` and `drdecr quickstart`."""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from drdecr.corpus import read_passages, read_qrels, read_queries
from drdecr.encoder.settings import OnnxManifest
from drdecr.errors import ModelError, ResourceError, UsageError

if TYPE_CHECKING:
    from training.quickstart import Quickstart

# So many passages are encoded three times for the ranking gate.
_GATE_PASSAGES = 1000


def _quiet_libraries(*, offline: bool = True) -> None:
    # Their advice and progress bars would drown our own lines; both variables are the libraries' switches.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if offline:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import warnings

    try:
        import transformers
    except ImportError:
        raise ResourceError("this needs torch and more: pip install 'drdecr[train]'") from None

    warnings.filterwarnings("ignore", module="torch|transformers|sentence_transformers|accelerate")
    transformers.utils.logging.disable_progress_bar()


@click.command()
@click.argument("recipe")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="The run directory; runs/RECIPE unless given.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out where it stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(recipe: str, overrides: tuple[str, ...], out: Path | None, resume: bool, as_json: bool) -> None:
    """Run a recipe: a YAML file, or the name of a shipped one. Its student/ is the product.

    What a recipe names under `data` has to lie there: see `drdecr data fetch`.

    \b
    Example: drdecr data fetch homeassistant --out data/homeassistant
             drdecr train quickstart --set stages.token-kd.minutes=1 --out runs/first
    """
    from training.recipe_file import hub_models, load_recipe

    found = load_recipe(recipe, overrides)
    _quiet_libraries(offline=not hub_models(found))
    from training.fit import is_first_process
    from training.run import run_recipe

    place = out or Path("runs") / found.name
    first = is_first_process()
    student = run_recipe(found, place, resume=resume, say=lambda line: click.echo(line, err=True) if first else None)
    if not first:
        return
    click.echo(json.dumps({"student": str(student)}) if as_json else f"student: {student}")


@click.command()
@click.argument("student", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--onnx", is_flag=True, help="Write the ONNX serving encoder.")
@click.option("--int8", is_flag=True, help="Also write it in 8 bits; served if the ranking stays.")
@click.option(
    "--compact",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write a small copy that serves and can be trained on, into a directory of its own; needs the ranking gate.",
)
@click.option("--queries", type=click.Path(path_type=Path), help="Judged queries for the ranking gate.")
@click.option(
    "--passages", type=click.Path(path_type=Path), help="What they are asked over; alone, queries are made of it."
)
@click.option("--qrels", type=click.Path(path_type=Path), help="Their judgments (TREC).")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--trust-remote-code", is_flag=True, help="Run model code that the student brings.")
@click.option("--json", "as_json", is_flag=True, help="Print the measured quality as JSON.")
def export(
    student: Path,
    onnx: bool,
    int8: bool,
    compact: Path | None,
    queries: Path | None,
    passages: Path | None,
    qrels: Path | None,
    threads: int | None,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Write the serving encoder of a student into its onnx/ folder, with its measured quality beside it.

    The 8-bit file serves only if its nDCG@10 is at most half a point below that of fp32, over judged queries or over
    queries made of --passages; if it fails, fp32 serves and the exit status is 1. Without either it is written only.

    --compact writes a copy of a third of the size, served in 8 bits, which a recipe may start from. Where it fails
    the same gate, nothing is written.

    Example: drdecr export run/student --onnx --int8 --queries q.tsv --passages p.jsonl --qrels qrels.trec
    """
    if onnx is (compact is not None):
        raise UsageError("name one format to write: --onnx, or --compact DIR")
    if compact is not None and passages is None:
        raise UsageError("--compact is written only if it ranks well: give --passages, or judged queries")
    given = [option for option in (queries, passages, qrels) if option is not None]
    if len(given) not in (0, 3) and given != [passages]:
        raise UsageError(
            "the ranking gate needs --queries, --passages and --qrels, or --passages alone, or none of them"
        )
    _quiet_libraries()
    from training.export import export_onnx
    from training.ranking_quality import JudgedTexts, generated_judgments

    judged = None
    if passages is not None and queries is None:
        judged = generated_judgments(list(islice(read_passages(passages), _GATE_PASSAGES)))
    elif queries is not None and passages is not None and qrels is not None:
        judged = JudgedTexts(list(read_queries(queries)), list(read_passages(passages)), read_qrels(qrels))
    if compact is not None and judged is not None:
        from training.compact.export import export_compact

        manifest = export_compact(student, compact, judged, threads=threads, trust_remote_code=trust_remote_code)
        size_bytes = sum(file.stat().st_size for file in compact.rglob("*") if file.is_file())
        _print_quality(manifest, as_json=as_json, size_bytes=size_bytes)
        return
    manifest = export_onnx(student, int8=int8, judged=judged, threads=threads, trust_remote_code=trust_remote_code)
    _print_quality(manifest, as_json=as_json)
    if int8 and judged is None and not as_json:
        click.echo(
            "the 8-bit file does not serve: give --passages, or judged queries, to measure its ranking", err=True
        )
    _refuse_int8(manifest, asked=int8 and judged is not None)


def _print_quality(manifest: OnnxManifest, *, as_json: bool, **more: int) -> None:
    quality: dict[str, Any] = {kind: one.model_dump() for kind, one in manifest.quality.items()}
    if as_json:
        click.echo(json.dumps({"serves": manifest.serves, "quality": quality, **more}))
        return
    for kind, one in manifest.quality.items():
        ranking = "" if one.ndcg_at_10 is None else f", nDCG@10 {one.ndcg_at_10:.4f} over {one.queries} queries"
        click.echo(f"{kind}: largest difference to torch {one.largest_difference:.2g}{ranking}")
    click.echo(f"serves: {manifest.serves}")
    for name, number in more.items():
        click.echo(f"{name}: {number:,}")


def _refuse_int8(manifest: OnnxManifest, *, asked: bool) -> None:
    """Raise ModelError where the 8-bit file was asked for, measured, and ranks too badly to serve."""
    if not asked or manifest.serves == "int8":
        return
    exact, quantized = manifest.quality["fp32"].ndcg_at_10, manifest.quality["int8"].ndcg_at_10
    raise ModelError(
        f"int8 refused: its nDCG@10 is {quantized:.4f} and that of fp32 {exact:.4f}, more than 0.005 apart over "
        f"{manifest.quality['int8'].queries} queries; fp32 serves"
    )


@click.command()
@click.option("--workdir", type=click.Path(path_type=Path), default=Path("quickstart"), show_default=True)
@click.option(
    "--student",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Serve this student instead of the one in the checkout's models/.",
)
@click.option("--train", is_flag=True, help="Train a student, also where there is a released one.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.1),
    default=6,
    show_default=True,
    help="Minutes of training; asks for --train.",
)
@click.option("--no-serve", is_flag=True, help="Stop after the evaluation.")
@click.option("--port", type=click.IntRange(1, 65_535), default=8080, show_default=True)
@click.pass_context
def quickstart(
    ctx: click.Context, workdir: Path, student: Path | None, train: bool, minutes: float, no_serve: bool, port: int
) -> None:
    """Do the main job: fetch, get a student, index, serve, and evaluate while it serves.

    The student is the one that the checkout released. Where it has none, or with --train, one is made: vocabulary
    transfer, distillation, export. What is done is not done again; after an interruption the next run goes on, in the
    way the working directory was begun. Remove the directory to start over.

    Example: drdecr quickstart --workdir demo --train --minutes 2
    """
    from training.demo_steps import check_port, serve_forever
    from training.released import ReleasedDemo, choose_student

    train = train or ctx.get_parameter_source("minutes") is not ParameterSource.DEFAULT
    released = choose_student(workdir, student, train=train)
    if not no_serve:
        check_port(port)
    job: ReleasedDemo | Quickstart
    if released is not None:
        job = ReleasedDemo(workdir, released)
    else:
        _quiet_libraries()
        from training import quickstart as pipeline

        job = pipeline.Quickstart(workdir, minutes)
    served = job.run(port=None if no_serve else port)
    if not no_serve:
        serve_forever(job.student, job.snapshot, served, port)
