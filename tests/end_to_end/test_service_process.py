"""`drdecr serve` as a process, over a tiny student and a snapshot that `drdecr index build` made."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from service_process import THINGS, WAIT_S, RunningService, environment, running_service, serve_and_fail

from drdecr import __version__
from service.keys import new_key

SEARCH = "/v1/indexes/demo/search"


@pytest.fixture(scope="module")
def service(tiny_student: Path, snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with running_service(
        log, "--student", tiny_student, "--index", f"demo={snapshot}", "--index", snapshot
    ) as running:
        yield running


@pytest.mark.parametrize("thing", THINGS)
def test_search_finds_the_passages_that_share_the_most(service: RunningService, thing: str):
    answer = service.client.post(SEARCH, json={"query": f"all about {thing}", "k": 3}).json()
    assert {hit["title"] for hit in answer["hits"]} == {thing.title()}


@pytest.mark.parametrize("query", ["すべて", "고양이", "кошки и собаки", "القطط", "猫", "แมว", "🐈‍⬛", "a\u0000b"])
def test_any_script_is_answered(service: RunningService, query: str):
    answer = service.client.post(SEARCH, json={"query": query, "explain": True, "highlight": True})
    assert answer.status_code == 200


def test_explanation_fits_the_text_and_the_score(service: RunningService):
    hit = service.client.post(SEARCH, json={"query": "violins part", "k": 1, "explain": True}).json()["hits"][0]
    for token in hit["explanation"]["tokens"]:
        span = token["passage"]
        assert hit[span["field"]][span["start"] : span["end"]] == span["text"] != ""
    parts = hit["explanation"]["maxsim"] + hit["explanation"]["sentence"]
    assert parts == pytest.approx(hit["score"], abs=1e-3)


def test_rerank_agrees_with_search(service: RunningService):
    hits = service.client.post(SEARCH, json={"query": "moons and rivers", "k": 5}).json()["hits"]
    texts = [f"{hit['title']}: {hit['text']}" for hit in hits]
    results = service.client.post("/v1/rerank", json={"query": "moons and rivers", "texts": texts}).json()["results"]
    scores = {result["index"]: result["score"] for result in results}
    # The snapshot stores half precision, the encoder gives single.
    assert [scores[number] for number in range(5)] == pytest.approx([hit["score"] for hit in hits], abs=0.02)


def test_stored_passage_is_returned(service: RunningService):
    passage = service.client.get("/v1/indexes/demo/passages/cats-0").json()
    assert passage == {"id": "cats-0", "title": "Cats", "text": "All about cats, part 0.", "metadata": {}}


def test_bare_snapshot_is_served_under_its_directorys_name(service: RunningService):
    names = [index["name"] for index in service.client.get("/v1/indexes").json()["indexes"]]
    assert names == ["demo", "snapshot"]
    assert service.client.get("/v1/info").json()["version"] == __version__


def test_each_request_is_logged_with_its_id_and_without_its_query(service: RunningService):
    service.client.post(SEARCH, json={"query": "private words"}, headers={"X-Request-ID": "find-me"})
    (entry,) = (entry for entry in service.entries() if entry.get("request_id") == "find-me")
    assert (entry["event"], entry["status"], entry["path"]) == ("request", 200, SEARCH)
    assert "private" not in json.dumps(entry)


def test_endless_body_is_refused_before_it_ends(service: RunningService):
    host, port = service.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=WAIT_S)
    connection.putrequest("POST", SEARCH)
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    chunk = b"%x\r\n%s\r\n" % (2**16, b" " * 2**16)
    for _ in range(8 * 2**20 // 2**16 + 1):
        connection.send(chunk)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (413, "body_too_large")
    connection.close()


def test_declared_gigabyte_is_refused_before_a_byte_of_it(service: RunningService):
    host, port = service.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=WAIT_S)
    connection.putrequest("POST", SEARCH)
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(2**30))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"\x16\x03\x01\x00"]
)
def test_bytes_that_are_not_http_do_no_harm(service: RunningService, sent: bytes):
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert not connection.recv(4_096).startswith(b"HTTP/1.1 5")
    assert service.client.get("/readyz").status_code == 200


def test_sigterm_under_load_loses_no_request(tiny_student: Path, snapshot: Path, tmp_path: Path):
    statuses: list[int] = []
    problems: list[Exception] = []
    ready_after: list[int] = []

    def ask_until_sent_away(url: str) -> None:
        with httpx.Client(base_url=url, timeout=WAIT_S) as client:
            try:
                while True:
                    answer = client.post(SEARCH, json={"query": "all about rivers", "k": 5})
                    statuses.append(answer.status_code)
                    if answer.headers.get("connection") == "close":
                        ready_after.append(client.get("/readyz").status_code)
                        return
            except httpx.HTTPError as error:
                problems.append(error)

    with running_service(
        tmp_path / "log", "--student", tiny_student, "--index", f"demo={snapshot}", DRAIN_S="1"
    ) as service:
        clients = [threading.Thread(target=ask_until_sent_away, args=(service.url,)) for _ in range(6)]
        for client in clients:
            client.start()
        while len(statuses) < 50:
            time.sleep(0.01)
        assert service.stop() == 0
        for client in clients:
            client.join(WAIT_S)
    assert problems == []
    assert set(statuses) == {200}
    assert ready_after == [503] * 6


def test_more_than_the_queue_holds_is_shed_and_the_service_recovers(
    tiny_student: Path, snapshot: Path, tmp_path: Path
):
    answers: list[httpx.Response] = []
    options = ("--student", tiny_student, "--index", f"demo={snapshot}", "--threads", "1")

    def insist(url: str, name: int) -> None:
        with httpx.Client(base_url=url, timeout=WAIT_S) as client:
            for number in range(60):
                answers.append(client.post(SEARCH, json={"query": f"all about {name} {number}", "k": 60}))

    def memory_bytes(service: RunningService) -> float:
        lines = service.client.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("process_resident_memory_bytes"))

    with running_service(tmp_path / "log", *options, QUEUE_DEPTH="2", QUERY_CACHE_BYTES="0") as service:
        before = memory_bytes(service)
        clients = [threading.Thread(target=insist, args=(service.url, name)) for name in range(16)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(WAIT_S)
        assert {answer.status_code for answer in answers} == {200, 429}
        assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 429)
        assert all(service.client.post(SEARCH, json={"query": "rivers"}).status_code == 200 for _ in range(20))
        assert memory_bytes(service) - before < 64 * 2**20


def test_work_in_flight_is_finished_even_without_a_drain_window(tiny_student: Path, snapshot: Path, tmp_path: Path):
    answers: list[httpx.Response] = []
    body = {"index": "demo", "queries": [{"query": f"all about {thing}", "k": 50} for thing in THINGS] * 80}

    def ask(url: str) -> None:
        answers.append(httpx.post(f"{url}/v1/search/batch", json=body, timeout=WAIT_S))

    with running_service(
        tmp_path / "log", "--student", tiny_student, "--index", f"demo={snapshot}", DRAIN_S="0"
    ) as service:
        clients = [threading.Thread(target=ask, args=(service.url,)) for _ in range(3)]
        for client in clients:
            client.start()
        while "drdecr_queue_admitted 3.0" not in service.client.get("/metrics").text:
            pass
        assert service.stop() == 0
        for client in clients:
            client.join(WAIT_S)
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert all(result["status"] == 200 for answer in answers for result in answer.json()["results"])


def test_work_for_a_client_that_has_gone_is_stopped(service: RunningService):
    body = {"index": "demo", "queries": [{"query": f"gone {number}", "k": 60} for number in range(1_000)]}
    host, port = service.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=WAIT_S)
    connection.request("POST", "/v1/search/batch", json.dumps(body), {"Content-Type": "application/json"})
    while "drdecr_queue_admitted 1.0" not in service.client.get("/metrics").text:
        pass
    connection.close()
    while 'drdecr_refused_total{reason="client_gone"} 1.0' not in (text := service.client.get("/metrics").text):
        assert "drdecr_queue_admitted 1.0" in text
    answered = float(next(line for line in text.splitlines() if line.startswith("drdecr_queries_total")).split()[1])
    assert answered < 1_000


def test_ctrl_c_stops_at_once_and_well(tiny_student: Path, snapshot: Path, tmp_path: Path):
    options = ("--student", tiny_student, "--index", f"demo={snapshot}")
    with running_service(tmp_path / "log", *options, DRAIN_S="3600") as service:
        assert service.stop(signal.SIGINT) == 0


def test_keys_and_settings_come_from_the_environment(tiny_student: Path, snapshot: Path, tmp_path: Path):
    key, stored = new_key()
    with running_service(
        tmp_path / "log",
        STUDENT=str(tiny_student),
        INDEX=f"demo={snapshot}",
        API_KEY_HASHES=str(stored),
        MAX_QUERY_CHARS="20",
    ) as service:
        assert service.client.post(SEARCH, json={"query": "cats"}).status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert service.client.post(SEARCH, json={"query": "cats"}, headers=headers).status_code == 200
        assert service.client.post(SEARCH, json={"query": "c" * 21}, headers=headers).status_code == 422
        assert key not in json.dumps(service.entries())


def assert_one_line(failed: subprocess.CompletedProcess[str], status: int, *parts: str) -> None:
    *logged, line = failed.stderr.splitlines()
    assert failed.returncode == status, failed.stderr
    assert line.startswith("drdecr: ")
    assert all(part in line for part in parts), line
    assert all(json.loads(entry)["level"] == "info" for entry in logged)


def test_port_in_use(tiny_student: Path, snapshot: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        failed = serve_and_fail("--student", tiny_student, "--index", snapshot, "--port", port)
    assert_one_line(failed, 1, f"port {port}", "in use", "--port")


def test_snapshot_with_a_flipped_byte(tiny_student: Path, snapshot: Path, tmp_path: Path):
    damaged = tmp_path / "damaged"
    shutil.copytree(snapshot, damaged)
    largest = max((path for path in damaged.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    failed = serve_and_fail("--student", tiny_student, "--index", damaged, "--port", "0")
    assert_one_line(failed, 1, "damaged", largest.name)


def test_student_of_another_dimension(another_student: Path, snapshot: Path):
    failed = serve_and_fail("--student", another_student, "--index", snapshot, "--port", "0")
    assert_one_line(failed, 1, "24 token", "16 token")


def test_directories_that_are_neither_student_nor_snapshot(tiny_student: Path, snapshot: Path, tmp_path: Path):
    assert_one_line(serve_and_fail("--student", tmp_path, "--index", snapshot, "--port", "0"), 1, str(tmp_path))
    failed = serve_and_fail("--student", tiny_student, "--index", f"x={tmp_path}", "--port", "0")
    assert_one_line(failed, 1, str(tmp_path), "not a snapshot")


def test_public_address_without_a_key(tiny_student: Path, snapshot: Path):
    failed = serve_and_fail("--student", tiny_student, "--index", snapshot, "--host", "0.0.0.0", "--port", "0")
    assert_one_line(failed, 2, "0.0.0.0", "--insecure")


def test_missing_options():
    assert_one_line(serve_and_fail(), 2, "--student", "--index")


def test_torch_is_never_imported(tiny_student: Path, snapshot: Path):
    program = """
import atexit, sys
atexit.register(lambda: print(*sorted({name.partition(".")[0] for name in sys.modules})))
from drdecr.cli import main
sys.argv[0] = "drdecr"
main()
"""
    command = [sys.executable, "-c", program, "serve", "--student", tiny_student, "--index", f"demo={snapshot}"]
    process = subprocess.Popen(
        [*command, "--port", "0"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    url = json.loads(process.stderr.readline())["url"]
    assert json.loads(process.stderr.readline())["event"] == "ready"
    assert httpx.post(url + SEARCH, json={"query": "cats", "explain": True}).status_code == 200
    assert httpx.post(url + "/v1/encode", json={"texts": ["cats"]}).status_code == 200
    assert httpx.post(url + "/v1/rerank", json={"query": "cats", "texts": ["cats"]}).status_code == 200
    process.send_signal(signal.SIGINT)
    modules = set(process.communicate(timeout=WAIT_S)[0].split())
    assert {"service", "onnxruntime", "faiss"} <= modules
    assert not modules & {"torch", "transformers", "sentence_transformers", "training", "indexer"}
