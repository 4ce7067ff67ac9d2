"""`drdecr import-checkpoint`: a published checkpoint becomes a student directory."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command(epilog="Example: drdecr import-checkpoint DrDecr.dnn student --base xlm-roberta-base")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--base", help="For .dnn and .model: the encoder's directory or name.  [default: what the file names]")
@click.option("--compat", is_flag=True, help="Score what the released code scores by mistake.")
@click.option("--skip-punctuation", is_flag=True, help="Skip punctuation of every script in passages.")
@click.option("--trust-remote-code", is_flag=True, help="Run model code that the checkpoint brings.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def import_checkpoint(
    source: Path,
    dest: Path,
    base: str | None,
    compat: bool,
    skip_punctuation: bool,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Make a student directory of a published late-interaction checkpoint.

    Reads directories of sentence-transformers, PyLate, colbert-ai, PLAID-X and jina-colbert, and the .dnn and .model
    files of PrimeQA. What the checkpoint does not say and was assumed is printed, and stored in import.json.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils.logging import disable_progress_bar

    from drdecr.encoder.checkpoints.importing import import_checkpoint as run

    disable_progress_bar()
    report = run(
        source,
        dest,
        base=base,
        compat=compat,
        skip_punctuation=skip_punctuation,
        trust_remote_code=trust_remote_code,
    )
    if as_json:
        click.echo(report.model_dump_json())
        return
    for line in report.assumed:
        click.echo(f"assumed: {line}", err=True)
    settings = report.settings
    click.echo(
        f"{dest}: {report.format}, {settings.dim} dimensions, queries of {settings.query_length} and passages of "
        f"{settings.passage_length} tokens"
    )
    click.echo(f"next: drdecr export {dest} --onnx" + (" --trust-remote-code" if report.remote_code else ""))
