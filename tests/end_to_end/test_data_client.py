"""The client fills and switches an index of a real service, whose worker builds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_process import WAIT_S, RunningService, running_service
from worker_process import running_worker

from service.client import AsyncClient, Client, ServiceError
from service.schemas_data import JobBody


@pytest.fixture
def service(tiny_student: Path, tmp_path: Path) -> Iterator[RunningService]:
    with running_service(tmp_path / "serve.log", "--student", tiny_student, "--data", tmp_path / "data") as running:
        yield running


def test_upload_build_wait_switch_and_roll_back(tiny_student: Path, service: RunningService, tmp_path: Path) -> None:
    file = tmp_path / "passages.jsonl"
    records = [{"id": f"cats-{number}", "text": f"All about cats, part {number}."} for number in range(300)]
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    seen: list[JobBody] = []

    async def fill() -> None:
        async with AsyncClient(service.url, timeout_s=WAIT_S) as client:
            await client.create_index("docs", bits=8)
            assert (await client.upload_passages("docs", file)).staged == 300
            started = await client.start_build("docs")
            with pytest.raises(ServiceError, match="is queued after") as caught:
                await client.wait(started, timeout_s=0.1, poll_s=0.05)
            assert caught.value.code == "job_not_ended"
            with running_worker(tmp_path / "worker.log", tiny_student, tmp_path / "data"):
                built = await client.wait(started, timeout_s=WAIT_S, poll_s=0.02, on_progress=seen.append)
                assert built.number == 1
                await client.switch_alias("live", "docs", built.number, if_none_match="*")
                await client.upload_deletions("docs", (record["id"] for record in records[1:]))
                await client.wait(await client.start_build("docs", "full"), timeout_s=WAIT_S)
            switched = await client.switch_alias("live", "docs", if_match=(await client.alias("live")).etag)
            assert switched.number == 2
            assert [hit.id for hit in (await client.search("live", "all about cats")).hits] == ["cats-0"]
            assert (await client.rollback_alias("live")).number == 1
            assert len((await client.search("live", "all about cats")).hits) == 10

    asyncio.run(fill())
    assert seen[-1].state == "succeeded"
    assert any(job.progress is not None for job in seen)


def test_refusal_is_read_though_the_upload_goes_on(service: RunningService) -> None:
    passages = ({"id": str(number), "text": "x" * 1_000} for number in range(20_000))
    with (
        Client(service.url, timeout_s=WAIT_S) as client,
        pytest.raises(ServiceError, match="No index 'none'") as caught,
    ):
        client.upload_passages("none", passages)
    assert caught.value.status == 404
