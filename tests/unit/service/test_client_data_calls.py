"""The client's methods for indexes, aliases, uploads, jobs and archives, against the app and given answers."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from client_lab import through
from data_lab import publish

from drdecr.collections.directory import DataDirectory
from drdecr.collections.uploads import Delete, read_upload
from drdecr.errors import InputError
from service.client import AsyncClient, Client, Retries, ServiceError
from service.client.lines import Lines
from service.engine import Engine

UPLOADED = {"index": "docs", "upload": 1, "staged": 1, "rejected": 0, "errors": []}
JOB = {"id": "docs~1", "index": "docs", "mode": "incremental", "created": "", "started": None, "ended": None}
JOB |= {"attempts": 1, "worker": None, "number": None, "error": None, "progress": None}
STAGE = {"at": "", "stage": "encode", "total": 9, "unit": "passages"}
PASSAGES = [{"id": "a", "text": "one"}, {"id": "b", "text": "half a pair: \ud800"}, {"id": "c", "text": "três"}]


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    return DataDirectory(tmp_path / "data")


@pytest.fixture
def client(make_client, encoder, directory):
    return make_client(Engine(encoder, {}), data=directory.root, index=())


@pytest.fixture
def sdk(client) -> Client:
    return Client("http://testserver", transport=through(client))


@pytest.fixture
def docs(sdk, directory, encoder, tmp_path) -> Client:
    """A client of a service with an index `docs` of two versions."""
    sdk.create_index("docs")
    for number in (1, 2):
        publish(directory, "docs", encoder, {"x": f"part {number}"}, tmp_path / "scratch")
    return sdk


def job(state: str, **fields: Any) -> httpx.Response:
    return httpx.Response(200, json={**JOB, "state": state, **fields})


def test_indexes_come_and_go(sdk):
    assert sdk.create_index("docs", bits=4).stored.bits == 4
    with pytest.raises(ServiceError) as caught:
        sdk.create_index("docs")
    assert (caught.value.status, caught.value.code) == (409, "name_taken")
    assert sdk.drop_index("docs") is None
    assert sdk.indexes() == []
    smaller = sdk.create_index("small", dims=8, pool=1.5).stored
    assert (smaller.bits, smaller.dims, smaller.pool) == (16, 8, 1.5)
    for wish in ({"dims": 17}, {"dims": 0}, {"pool": 0.5}, {"pool": 99}):
        with pytest.raises(ServiceError) as caught:
            sdk.create_index("other", **wish)
        assert caught.value.status == 422


def test_alias_switches_under_a_condition_and_back(docs):
    first = docs.switch_alias("live", "docs", 1, if_none_match="*")
    assert docs.alias("live") == first
    assert docs.switch_alias("live", "docs", if_match=first.etag).number == 2
    for condition in ({"if_match": first.etag}, {"if_none_match": "*"}):
        with pytest.raises(ServiceError) as caught:
            docs.switch_alias("live", "docs", 1, **condition)
        assert (caught.value.status, caught.value.code) == (412, "precondition_failed")
    assert docs.rollback_alias("live").number == 1
    assert docs.passage("live", "x").text == "part 1"
    assert [(each.alias, each.previous.number) for each in docs.aliases()] == [("live", 2)]
    with pytest.raises(ServiceError) as caught:
        docs.drop_index("docs")
    assert caught.value.code == "index_in_use"
    assert docs.drop_alias("live", if_match=docs.alias("live").etag) is None
    assert docs.aliases() == []


def test_alias_without_a_version_before_cannot_go_back(docs):
    docs.switch_alias("live", "docs")
    with pytest.raises(ServiceError, match="'live' has no version before") as caught:
        docs.rollback_alias("live")
    assert caught.value.code == "no_previous"


def test_archive_is_made_and_restored(docs):
    made = docs.archive("docs", 1)
    docs.drop_index("docs")
    assert docs.archives("docs") == [made]
    docs.create_index("again")
    restored = docs.restore("again", made.id, of="docs")
    assert (restored.index, restored.number) == ("again", 1)
    assert docs.passage("again", "x").text == "part 1"
    docs.drop_archive("docs", made.id)
    assert docs.archives("docs") == []


@pytest.mark.parametrize("kind", ["list", "iterator", "file", "gzip"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_passages_and_deletions_are_staged(client, sdk, directory, tmp_path, kind, asynchronous):
    sdk.create_index("docs")
    source: Any = PASSAGES if kind == "list" else iter(PASSAGES)
    if kind in ("file", "gzip"):
        source = tmp_path / "passages.jsonl"
        content = "".join(json.dumps(each) + "\n" for each in PASSAGES).encode()
        source.write_bytes(gzip.compress(content) if kind == "gzip" else content)
        source = str(source)

    async def stage() -> list[Any]:
        async with AsyncClient("http://testserver", transport=through(client)) as other:
            return [await other.upload_passages("docs", source), await other.upload_deletions("docs", ["a", "old"])]

    if asynchronous:
        staged, deleted = asyncio.run(stage())
    else:
        staged, deleted = sdk.upload_passages("docs", source), sdk.upload_deletions("docs", ["a", "old"])
    assert (staged.staged, staged.rejected, staged.errors[0].line) == (2, 1, 2)
    assert [each.passage.text for each in read_upload(directory, "docs", staged.upload)] == ["one", "três"]
    assert list(read_upload(directory, "docs", deleted.upload)) == [Delete("a"), Delete("old")]


def test_upload_without_a_good_line_names_the_first_bad_one(sdk):
    sdk.create_index("docs")
    with pytest.raises(ServiceError, match=r"line 1: `text` is missing.*; and 1 more") as caught:
        sdk.upload_passages("docs", [{"id": "a"}, {"id": "b"}])
    assert caught.value.status == 422


def test_upload_holds_little_of_it_in_memory():
    drawn = 0

    def endless() -> Iterator[dict[str, str]]:
        nonlocal drawn
        while True:
            drawn += 1
            yield {"id": str(drawn), "text": "x" * 1_000}

    chunks = Lines(endless(), dict).sent()
    for _ in range(3):
        assert len(next(chunks)) < 2**17
    assert drawn < 300


def test_file_that_cannot_be_read_is_named(sdk, tmp_path):
    sdk.create_index("docs")
    with pytest.raises(InputError, match="no such file"):
        sdk.upload_passages("docs", tmp_path / "none.jsonl")
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(json.dumps(PASSAGES[0]).encode())[:-9])
    with pytest.raises(InputError, match=r"cut\.jsonl\.gz: the gzip file is broken"):
        sdk.upload_passages("docs", cut)


def test_refused_upload_is_sent_again_whole(ask, pauses):
    refused = httpx.Response(503, headers={"Retry-After": "3"})
    _, asked = ask([refused, httpx.Response(202, json=UPLOADED)], "upload_passages", "docs", PASSAGES)
    assert asked[0].content == asked[1].content and asked[1].content.count(b"\n") == 3
    assert pauses == [0.0, 3.0]


def test_what_an_iterator_gave_away_is_not_sent_again(ask, pauses):
    with pytest.raises(ServiceError) as caught:
        ask([httpx.Response(503)], "upload_passages", "docs", iter(PASSAGES))
    assert (caught.value.status, pauses) == (503, [0.0])


@pytest.mark.parametrize(
    ("method", "arguments", "options"),
    [
        ("create_index", ("docs",), {}),
        ("drop_index", ("docs",), {}),
        ("switch_alias", ("live", "docs"), {"if_match": '"1"'}),
        ("upload_passages", ("docs", PASSAGES), {}),
        ("archive", ("docs",), {}),
        ("restore", ("docs", "000001-00000000"), {}),
    ],
)
def test_what_may_have_been_done_is_not_done_twice(ask, pauses, method, arguments, options):
    with pytest.raises(ServiceError, match="look whether it was done") as caught:
        ask([httpx.RemoteProtocolError("cut")], method, *arguments, **options)
    assert (caught.value.status, pauses) == (None, [0.0])
    with pytest.raises(ServiceError, match="is the service running"):
        ask([httpx.ConnectError("refused")], method, *arguments, **options, retries=Retries(attempts=2))
    assert len(pauses) == 4


def test_upload_that_broke_off_is_sent_again():
    class Breaking(httpx.BaseTransport):
        asked = 0

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            self.asked += 1
            if self.asked == 1:
                next(iter(request.stream))
                raise httpx.WriteError("broken pipe")
            return httpx.Response(202, json=UPLOADED, request=request)

    transport = Breaking()
    Client(transport=transport, retries=Retries(first_s=0)).upload_passages("docs", PASSAGES)
    assert transport.asked == 2


def test_build_is_one_job_however_often_it_is_sent(ask, pauses):
    broken = [httpx.ReadError("cut"), httpx.Response(503), httpx.Response(202, json={**JOB, "state": "queued"})]
    keys = []
    for _ in range(2):
        started, asked = ask(broken, "start_build", "docs", "full")
        assert started.id == "docs~1" and len(asked) == 3
        assert json.loads(asked[2].content) == {"mode": "full"}
        keys.append({each.headers["idempotency-key"] for each in asked})
    assert [len(each) for each in keys] == [1, 1] and keys[0] != keys[1]
    _, asked = ask(broken, "start_build", "docs", key="monday")
    assert asked[0].headers["idempotency-key"] == "monday"


def test_jobs_are_listed_told_and_cancelled(sdk):
    sdk.create_index("docs")
    started = sdk.start_build("docs", key="monday")
    assert sdk.start_build("docs", key="monday") == started
    assert sdk.job(started) == sdk.job(started.id) == started
    other = sdk.start_build("docs", "full")
    assert [each.id for each in sdk.jobs(index="docs", limit=1)] == [other.id]
    assert sdk.cancel_job(other).state == "cancelled"
    with pytest.raises(ServiceError, match="was cancelled") as caught:
        sdk.wait(other)
    assert caught.value.code == "job_cancelled"


def test_wait_reports_each_change_and_returns_the_version(ask, pauses):
    running = [job("running", progress={**STAGE, "done": done}) for done in (3, 3, 9)]
    answers = [job("queued"), *running, httpx.Response(503, headers={"Retry-After": "2"}), job("succeeded", number=7)]
    seen = []
    built, asked = ask(answers, "wait", "docs~1", poll_s=0.25, on_progress=seen.append)
    assert built.number == 7
    assert [(each.state, each.progress and each.progress.done) for each in seen] == [
        ("queued", None),
        ("running", 3),
        ("running", 9),
        ("succeeded", None),
    ]
    assert {each.url.path for each in asked} == {"/v1/jobs/docs~1"}
    assert [pause for pause in pauses if pause] == [0.25, 0.25, 0.25, 0.25, 2.0]


def test_wait_tells_why_a_job_failed(ask, pauses):
    with pytest.raises(ServiceError, match="docs~1 failed: the disk is full") as caught:
        ask([job("running"), job("failed", error="the disk is full")], "wait", "docs~1")
    assert caught.value.code == "job_failed"


def test_wait_ends_at_its_limit_and_the_job_goes_on(ask, pauses):
    with pytest.raises(ServiceError, match="is running after 0 s; it goes on") as caught:
        ask([job("running")], "wait", "docs~1", timeout_s=0)
    assert (caught.value.code, caught.value.status) == ("job_not_ended", None)


def test_a_longer_wait_is_for_one_answer_only():
    waits = []

    def answer(sent: httpx.Request) -> httpx.Response:
        waits.append(sent.extensions["timeout"]["read"])
        return httpx.Response(200, json={"index": "docs", "number": 1, "snapshots": []})

    with Client(transport=httpx.MockTransport(answer), timeout_s=3) as client:
        client.restore("docs", "000001-00000000", timeout_s=600)
        client.archives("docs")
    assert waits == [600, 3]
