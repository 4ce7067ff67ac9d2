"""A damaged file of the data directory, or an index that goes meanwhile, is a problem of its own name alone."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest
from data_lab import publish
from fake_engine import FakeEncoder

from drdecr.collections.directory import DataDirectory
from service.data import ServedData
from service.engine import Engine
from service.routes import indexes


@pytest.fixture
def directory(tmp_path: Path, encoder: FakeEncoder) -> DataDirectory:
    """Two indexes of one version, and an alias of each."""
    directory = DataDirectory(tmp_path / "data")
    for name in ("docs", "more"):
        directory.create_index(name)
        publish(directory, name, encoder, {"x": f"from {name}"}, tmp_path / "scratch")
    directory.switch_alias("broken", directory.target("more"))
    directory.switch_alias("live", directory.target("docs"))
    return directory


@pytest.fixture
def client(make_client, encoder, directory):
    return make_client(Engine(encoder, {}), data=directory.root, index=(), follow_s=0.01)


@pytest.fixture
def still(make_client, encoder, directory):
    """One that looks for changes only when it is told of one."""
    return make_client(Engine(encoder, {}), data=directory.root, index=(), follow_s=0)


def damage(path: Path) -> Path:
    # In one step: a look between two would see another damage, and log that too.
    half = path.with_name(f".{path.name}.half")
    half.write_text("{")
    return half.replace(path)


def damaged_alias(directory: DataDirectory) -> Path:
    return damage(directory.root / "aliases" / "broken.json")


def eventually(found) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def listed(client) -> list[str]:
    return [index["name"] for index in client.get("/v1/indexes").json()["indexes"]]


def text_of(client, name: str) -> str:
    return client.get(f"/v1/indexes/{name}/passages/x").json()["text"]


def data_check(client) -> str:
    return {check["name"]: check["reason"] for check in client.get("/readyz").json()["checks"]}["data"]


def test_damaged_alias_is_left_out_of_lists_and_named_by_its_own_answer(client, directory):
    file = damaged_alias(directory)
    assert [each["alias"] for each in client.get("/v1/aliases").json()["aliases"]] == ["live"]
    assert listed(client) == ["docs", "more"]
    assert client.get("/v1/indexes/docs").json()["stored"]["aliases"] == ["live"]
    answer = client.get("/v1/aliases/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "data_damaged")
    assert f"{file} is damaged" in answer.json()["detail"]
    assert "restore it from a backup, or delete the alias" in answer.json()["detail"]


def test_other_aliases_are_switched_beside_a_damaged_one(client, directory):
    damaged_alias(directory)
    switched = client.put("/v1/aliases/new", json={"index": "docs"})
    assert switched.status_code == 200
    assert text_of(client, "new") == "from docs"
    assert client.delete("/v1/aliases/new").status_code == 204
    assert client.post("/v1/indexes", json={"name": "third"}).status_code == 201
    refused = client.put("/v1/aliases/broken", json={"index": "docs"})
    assert (refused.status_code, refused.json()["code"]) == (500, "data_damaged")


def test_damaged_alias_is_served_as_before_and_logged_once(client, directory, logged):
    file = damaged_alias(directory)
    eventually(lambda: "broken stays as it was" in data_check(client))
    client.put("/v1/aliases/new", json={"index": "docs"})
    assert text_of(client, "broken") == "from more"
    assert str(file) in data_check(client)
    entries = [entry for entry in logged if entry["event"] == "name not followed"]
    assert [(entry["index"], str(file) in entry["error"]) for entry in entries] == [("broken", True)]
    assert re.search(
        r'^drdecr_index_switches_total\{index="broken",outcome="failed"\} [1-9]',
        client.get("/metrics").text,
        re.MULTILINE,
    )


def test_version_that_cannot_be_opened_leaves_the_one_before_and_is_named(client, directory, encoder, tmp_path):
    assert text_of(client, "live") == "from docs"
    publish(directory, "more", encoder, {"x": "second"}, tmp_path / "scratch")
    damage(directory.version_path("more", 2) / "manifest.json")
    eventually(lambda: "more stays as it was: " in data_check(client))
    assert text_of(client, "more") == "from more"
    # An alias goes on with what it served, though that is of another index.
    directory.switch_alias("live", directory.target("more", 2))
    eventually(lambda: "live stays as it was: " in data_check(client))
    assert text_of(client, "live") == "from docs"


def test_damaged_alias_can_be_deleted_and_made_again(client, directory):
    damaged_alias(directory)
    refused = client.delete("/v1/aliases/broken", headers={"If-Match": "*"})
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert client.delete("/v1/aliases/broken").status_code == 204
    assert client.put("/v1/aliases/broken", json={"index": "docs"}).status_code == 200
    assert text_of(client, "broken") == "from docs"


def test_no_index_is_dropped_while_an_alias_that_may_need_it_cannot_be_read(client, directory):
    file = damaged_alias(directory)
    refused = client.delete("/v1/indexes/more")
    assert (refused.status_code, refused.json()["code"]) == (409, "index_in_use")
    assert str(file) in refused.json()["detail"]
    assert client.delete("/v1/aliases/broken").status_code == 204
    assert client.delete("/v1/indexes/more").status_code == 204


def test_service_starts_beside_a_damaged_alias(make_client, encoder, directory):
    file = damaged_alias(directory)
    client = make_client(Engine(encoder, {}), data=directory.root, index=())
    assert text_of(client, "live") == "from docs"
    answer = client.post("/v1/indexes/broken/search", json={"query": "x"})
    assert (answer.status_code, answer.json()["code"]) == (503, "index_unavailable")
    assert str(file) in answer.json()["detail"]


def test_damaged_index_is_served_as_before_and_may_be_dropped(client, directory):
    directory.delete_alias("broken")
    file = damage(directory.path("more") / "index.json")
    found = {index["name"]: index for index in client.get("/v1/indexes").json()["indexes"]}
    assert found["docs"]["stored"]["aliases"] == ["live"]
    assert (found["more"]["passages"], found["more"]["stored"]) == (1, None)
    answer = client.get("/v1/indexes/more")
    assert (answer.status_code, answer.json()["code"]) == (500, "data_damaged")
    assert str(file) in answer.json()["detail"] and "drop the index" in answer.json()["detail"]
    assert client.put("/v1/aliases/new", json={"index": "docs"}).status_code == 200
    assert text_of(client, "more") == "from more"
    assert client.delete("/v1/indexes/more").status_code == 204
    assert listed(client) == ["docs"]


def test_damaged_record_of_a_build_leaves_the_list_of_indexes(client, directory):
    file = damage(directory.version_path("more", 1) / "build.json")
    assert listed(client) == ["docs", "more"]
    assert client.get("/v1/indexes/docs").status_code == 200
    answer = client.get("/v1/indexes/more").json()
    assert answer["code"] == "data_damaged" and str(file) in answer["detail"]


def test_committed_switch_is_answered_though_it_is_not_followed(client, directory, logged, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(ServedData, "_look", fail)
        switched = client.put("/v1/aliases/new", json={"index": "docs"})
        assert (switched.status_code, switched.json()["index_version"]) == (200, None)
        assert switched.headers["etag"]
        assert client.delete("/v1/aliases/live").status_code == 204
        assert client.post("/v1/indexes", json={"name": "third"}).status_code == 201
    assert {"error": "too many open files", "event": "data directory not followed", "log_level": "error"} in [
        {key: entry[key] for key in ("error", "event", "log_level") if key in entry} for entry in logged
    ]
    eventually(lambda: client.get("/v1/indexes/new").status_code == 200)
    assert text_of(client, "new") == "from docs"


@pytest.fixture
def going(directory, monkeypatch) -> None:
    """Drop the index `more` when its name is known, before it is read."""
    describe = indexes.describe_stored

    def gone(engine: Engine, directory: DataDirectory, name: str):
        if name == "more":
            shutil.rmtree(directory.path(name), ignore_errors=True)
        return describe(engine, directory, name)

    monkeypatch.setattr(indexes, "describe_stored", gone)


@pytest.mark.usefixtures("going")
def test_index_that_goes_while_it_is_listed_is_left_out(still):
    assert listed(still) == ["docs"]


@pytest.mark.usefixtures("going")
def test_index_that_goes_while_it_is_described_is_described_as_it_is_served(still):
    answer = still.get("/v1/indexes/more")
    assert (answer.status_code, answer.json()["passages"], answer.json()["stored"]) == (200, 1, None)
    directory = still.app.state.service.data.directory
    directory.create_index("more")
    still.app.state.service.loaded = Engine(still.app.state.service.engine.encoder, {})
    answer = still.get("/v1/indexes/more")
    assert (answer.status_code, answer.json()["code"]) == (404, "index_not_found")


def test_index_that_is_dropped_at_once_was_made_all_the_same(still, directory, monkeypatch):
    async def dropped(self: ServedData, service: object) -> bool:
        self.directory.delete_index("third")
        return True

    monkeypatch.setattr(ServedData, "try_follow", dropped)
    made = still.post("/v1/indexes", json={"name": "third", "bits": 4})
    assert (made.status_code, made.json()["stored"]["bits"]) == (201, 4)
