"""`drdecr keys create | list | revoke`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from drdecr.errors import UsageError
from service.key_file import KeyFile
from service.keys import SCOPES, Scope, new_key

_FILE = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    envvar=["DRDECR_KEYS", "DRDECR_API_KEYS_FILE"],
    show_envvar=True,
    help="The key file; the service takes it by `drdecr serve --keys`.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def keys() -> None:
    """Make and revoke the API keys of the service.

    A running service follows the file within a second. Example: drdecr keys create --file keys --scope read
    """


@keys.command(epilog="Example: drdecr keys create --file keys --scope read --rate 20")
@_FILE
@click.option("--scope", type=click.Choice(SCOPES), default="read", show_default=True, help="What it may do.")
@click.option("--rate", type=click.IntRange(0, 100_000), default=0, help="Requests a second; 0: the service's limit.")
@_JSON
def create(path: Path, scope: Scope, rate: int, as_json: bool) -> None:
    """Make a key, print it once, and store its hash."""
    key, stored = new_key(scope, rate)
    KeyFile(path).add(stored)
    if as_json:
        click.echo(json.dumps({"id": stored.id, "key": key, "scope": scope, "rate": rate}))
    else:
        click.echo(f"key {stored.id} (give it to the client; only its hash is stored):\n  {key}")


@keys.command("list", epilog="Example: drdecr keys list --file keys")
@_FILE
@_JSON
def list_keys(path: Path, as_json: bool) -> None:
    """List the keys by id; the keys themselves are stored nowhere."""
    rows = [{"id": stored.id, "scope": stored.scope, "rate": stored.rate} for stored in KeyFile(path).read().values()]
    if as_json:
        click.echo(json.dumps(rows))
    for row in () if as_json else rows:
        rate = f"{row['rate']} requests a second" if row["rate"] else "the service's rate"
        click.echo(f"{row['id']}  {row['scope']:5}  {rate}")


@keys.command(epilog="Example: drdecr keys revoke 1f0c22aa --file keys")
@click.argument("identity", metavar="ID")
@_FILE
def revoke(identity: str, path: Path) -> None:
    """Take a key out of the file. ID is the eight characters after drdecr_ in the key."""
    if not KeyFile(path).remove(identity):
        raise UsageError(f"{path} holds no key {identity!r}; `drdecr keys list --file {path}` lists them")
    click.echo(f"key {identity} is revoked")
