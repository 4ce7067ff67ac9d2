from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

import service.app
from service.routes.pages import content_policy

FILES = sorted((Path(service.app.__file__).parent / "pages").iterdir())


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_runs_only_its_own_script_and_style(client, path):
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "unsafe" not in policy
    sources = dict(part.split(maxsplit=1) for part in policy.split("; "))
    for tag in ("script", "style"):
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, flags=re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks]
        assert sources[f"{tag}-src"].split() == ([f"'sha256-{digest}'" for digest in digests] or ["'none'"])


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_cannot_be_framed_send_forms_or_reach_other_hosts(client, path):
    headers = client.get(path).headers
    sources = dict(part.split(maxsplit=1) for part in headers["content-security-policy"].split("; "))
    for name in ("default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types"):
        assert sources[name] == "'none'"
    assert (sources["connect-src"], sources["require-trusted-types-for"]) == ("'self'", "'script'")
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]


def test_playground_holds_every_file_that_it_is_made_of(client):
    html = client.get("/").text
    assert "<!--" not in html
    for file in FILES:
        if file.suffix in (".js", ".css"):
            assert file.read_text(encoding="utf-8") in html


def test_script_that_the_page_does_not_hold_is_not_allowed():
    assert "script-src 'none'" in content_policy("<style>p {}</style>")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_page_needs_no_other_host_and_no_inline_attribute(file):
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href|url\(|@import|fetch\()\s*[=(]?\s*[\"'`]?(?:https?:)?//", text)
    assert not re.search(r"\s(?:on[a-z]+|style)=", text)
    assert "innerHTML" not in text
    assert file.suffix != ".html" or 'lang="en"' in text


def test_playground_offers_a_query_in_each_language(client):
    html = client.get("/").text
    assert re.findall(r'\["([a-z]{2})", "', html) == ["ja", "ko", "ru", "de", "fr", "es", "pt", "tr", "zh"]


def test_docs_list_every_route_of_the_document(client):
    html = client.get("/docs").text
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in html


def operations(client):
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_every_route_of_the_contract_is_documented(client):
    assert {(method, path) for method, path, _ in operations(client)} == {
        ("post", "/v1/indexes/{alias}/search"),
        ("post", "/v1/search/batch"),
        ("post", "/v1/encode"),
        ("post", "/v1/rerank"),
        ("get", "/v1/indexes"),
        ("post", "/v1/indexes"),
        ("get", "/v1/indexes/{name}"),
        ("delete", "/v1/indexes/{name}"),
        ("post", "/v1/indexes/{name}/passages"),
        ("post", "/v1/indexes/{name}/deletions"),
        ("post", "/v1/indexes/{name}/builds"),
        ("get", "/v1/indexes/{name}/snapshots"),
        ("post", "/v1/indexes/{name}/snapshots"),
        ("get", "/v1/indexes/{name}/snapshots/{id}"),
        ("delete", "/v1/indexes/{name}/snapshots/{id}"),
        ("post", "/v1/indexes/{name}/restore"),
        ("get", "/v1/jobs"),
        ("get", "/v1/jobs/{id}"),
        ("delete", "/v1/jobs/{id}"),
        ("get", "/v1/jobs/{id}/events"),
        ("get", "/v1/aliases"),
        ("get", "/v1/aliases/{alias}"),
        ("put", "/v1/aliases/{alias}"),
        ("delete", "/v1/aliases/{alias}"),
        ("get", "/v1/indexes/{name}/passages/{id}"),
        ("get", "/livez"),
        ("get", "/readyz"),
        ("get", "/health"),
        ("get", "/metrics"),
        ("get", "/v1/info"),
    }


def test_errors_are_documented_as_problems(client):
    for _, path, operation in operations(client):
        for status, response in operation["responses"].items():
            if status >= "400" and not (status == "503" and path in ("/readyz", "/health")):
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ProblemBody"}


def test_every_reference_of_the_document_leads_somewhere(client):
    document = client.get("/openapi.json")
    names = set(document.json()["components"]["schemas"])
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', document.text)) <= names
    assert "HTTPValidationError" not in names


def test_posts_document_what_the_gate_and_the_queue_answer(client):
    for method, _, operation in operations(client):
        # The others change the data directory, and wait in no queue.
        if method == "post" and "200" in operation["responses"]:
            assert {"200", "400", "401", "413", "415", "422", "429", "500", "503", "504"} <= set(
                operation["responses"]
            )
