"""Bring an alias up to date with a passages file, as a nightly job would, without a moment of half of it.

The service keeps the index (`drdecr serve --data`), and a worker builds. The whole file is uploaded, and ids that are
gone from it are deleted; only passages whose title or text changed are encoded. The new version is asked a query
whose answer is known, under a name of its own. Only when that is among the first hits does the alias switch to it.

Example: python examples/reindex_nightly.py passages.jsonl --service http://127.0.0.1:8080 --index manuals
    --alias live --canary "how do I reset it?" --expect manual-7
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from drdecr.corpus import read_passages
from drdecr.errors import ServiceError
from service.client import Alias, Client


def stage(client: Client, index: str, passages: Path, ids: set[str], state: Path) -> None:
    """Upload what there is, and the deletion of what was there once.

    What the index may hold is noted first, so that whatever becomes of this run, the next deletes what it must.
    """
    known = set(json.loads(state.read_text(encoding="utf-8"))) if state.exists() else set()
    state.write_text(json.dumps(sorted(known | ids)), encoding="utf-8")
    uploaded = client.upload_passages(index, passages)
    if uploaded.rejected:
        first = uploaded.errors[0]
        raise SystemExit(f"{passages}:{first.line}: {first.message}; {uploaded.rejected} lines were rejected")
    if gone := known - ids:
        client.upload_deletions(index, sorted(gone))


def build(client: Client, index: str, wait_s: float) -> int:
    """Return the number of the version that holds what is staged."""
    built = client.wait(client.start_build(index), timeout_s=wait_s)
    assert built.number is not None
    return built.number


def finds(client: Client, index: str, number: int, canary: str, expected: str) -> bool:
    """Tell whether a version answers as it should, asked by a name that nobody else knows."""
    trial = client.switch_alias(f"{index}.trial", index, number)
    try:
        return expected in {hit.id for hit in client.search(trial.alias, canary).hits}
    finally:
        client.drop_alias(trial.alias)


def found(client: Client, alias: str) -> Alias | None:
    try:
        return client.alias(alias)
    except ServiceError as problem:
        if problem.status != 404:
            raise
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("passages", type=Path)
    parser.add_argument("--service", default="http://127.0.0.1:8080")
    parser.add_argument("--key", help="an API key of the service, with the scope admin")
    parser.add_argument("--index", required=True, help="the index that is built; made if it is not there")
    parser.add_argument("--alias", required=True, help="the name that clients search")
    parser.add_argument("--canary", required=True, help="a query whose answer is known")
    parser.add_argument("--expect", required=True, help="the id that the canary must find among its first ten hits")
    parser.add_argument("--state", type=Path, help="which ids were uploaded; beside the passages unless given")
    parser.add_argument("--wait-s", type=float, default=3600.0)
    options = parser.parse_args()

    state = options.state or options.passages.with_suffix(".uploaded.json")
    ids = {passage.id for passage in read_passages(options.passages)}
    with Client(options.service, key=options.key, timeout_s=options.wait_s) as client:
        if options.index not in {index.name for index in client.indexes()}:
            client.create_index(options.index)
        before = found(client, options.alias)
        stage(client, options.index, options.passages, ids, state)
        number = build(client, options.index, options.wait_s)
        state.write_text(json.dumps(sorted(ids)), encoding="utf-8")
        if not finds(client, options.index, number, options.canary, options.expect):
            raise SystemExit(
                f"{options.canary!r} does not find {options.expect} in version {number};"
                f" {options.alias} stays as it is"
            )
        # Where somebody else has switched it meanwhile, what they did stays.
        condition = {"if_none_match": "*"} if before is None else {"if_match": before.etag}
        client.switch_alias(options.alias, options.index, number, **condition)
        stored = client.index(options.index).stored
        served = client.index(options.alias).passages
    made = next(version for version in stored.versions if version.number == number) if stored else None
    assert made is not None
    print(f"version {number}: {made.encoded} passages encoded, {made.deleted} deleted, {served} served")


if __name__ == "__main__":
    main()
