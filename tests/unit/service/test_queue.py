"""The bounded queue and the deadline, seen through the routes."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from service.metrics import Metrics
from service.problems import Problem
from service.threads import any_left
from service.work import WorkQueue

SEARCH = "/v1/indexes/demo/search"


def test_requests_beyond_the_queue_are_refused_and_those_within_are_answered(make_client, encoder):
    client = make_client(threads=1, queue_depth=1)
    encoder.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        admitted = [pool.submit(client.post, SEARCH, json={"query": "cat"}) for _ in range(2)]
        while "drdecr_queue_admitted 2.0" not in client.get("/metrics").text:
            pass
        refused = client.post(SEARCH, json={"query": "cat"})
        assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (
            429,
            "queue_full",
            "1",
        )
        encoder.gate.set()
        assert [answer.result().status_code for answer in admitted] == [200, 200]
    assert client.post(SEARCH, json={"query": "cat"}).status_code == 200


def test_late_answer_is_a_504(make_client, encoder):
    client = make_client(threads=1)
    encoder.gate.clear()
    answer = client.post(SEARCH, json={"query": "cat", "timeout_ms": 30})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")


def test_work_that_nobody_waits_for_is_never_begun(make_client, encoder):
    client = make_client(threads=1)
    encoder.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, SEARCH, json={"query": "first"})
        assert encoder.entered.acquire(timeout=150)
        assert client.post(SEARCH, json={"query": "late", "timeout_ms": 30}).status_code == 504
        encoder.gate.set()
        assert first.result().status_code == 200
    assert client.post(SEARCH, json={"query": "last"}).status_code == 200
    assert encoder.texts == ["first", "last"]


def test_the_services_own_limit_holds_where_the_request_names_none(make_client, encoder):
    client = make_client(timeout_ms=30)
    encoder.gate.clear()
    assert client.post(SEARCH, json={"query": "cat"}).status_code == 504


class Held:
    """What a request held, such as the version of an index that is replaced meanwhile."""


def test_idle_worker_keeps_nothing_of_its_last_work():
    queue = WorkQueue(1, 1, Metrics())
    held, done = Held(), threading.Event()
    gone = weakref.ref(held)
    queue.submit(partial(lambda _: done.set(), held))
    del held
    assert done.wait(30)
    deadline = time.monotonic() + 10
    while gone() is not None:
        assert time.monotonic() < deadline
    queue.close(30)


def test_work_that_raises_is_logged_and_ends_no_worker(logged):
    def broken() -> None:
        raise RuntimeError("broken")

    queue, done = WorkQueue(1, 1, Metrics()), threading.Event()
    queue.submit(broken)
    queue.submit(done.set)
    assert done.wait(30)
    queue.close(30)
    assert [entry["event"] for entry in logged] == ["work failed"]


def test_closing_leaves_behind_what_does_not_end():
    queue, begun, end = WorkQueue(2, 0, Metrics()), threading.Event(), threading.Event()

    def endless() -> None:
        begun.set()
        end.wait()

    queue.submit(endless)
    assert begun.wait(30)
    queue.close(0.05)
    assert any_left()
    end.set()


def test_the_refusals_of_a_flood_wait_and_those_of_a_crowd_do_not():
    async def told(asking: int) -> tuple[int, int]:
        """Return how many of so many requests are refused at once, and how many in the end."""
        queue = WorkQueue(1, 0, Metrics())

        async def ask() -> None:
            async with queue.admission():
                pass

        async with queue.admission():
            asked = [asyncio.create_task(ask()) for _ in range(asking)]
            for _ in range(3):
                await asyncio.sleep(0)
            at_once = sum(one.done() for one in asked)
            answers = await asyncio.gather(*asked, return_exceptions=True)
        queue.close(30)
        return at_once, sum(isinstance(answer, Problem) and answer.status_code == 429 for answer in answers)

    assert asyncio.run(told(60)) == (60, 60)
    assert asyncio.run(told(250)) == (100, 250)
