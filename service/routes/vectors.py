"""POST /v1/encode and POST /v1/rerank: the encoder without an index."""

from __future__ import annotations

import base64

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from drdecr.encoder.types import Encoded, EncoderSpec
from drdecr.encoder.windows import MAX_WINDOWS
from service.deadline import Deadline
from service.problems import documented
from service.responses import json_response
from service.schemas import (
    Embedding,
    EncodeRequest,
    EncodeResponse,
    RerankRequest,
    RerankResponse,
    RerankResult,
    Warned,
)
from service.searching import encode, encode_passages, query_warnings, relevance
from service.state import JsonOnly, ServiceDependency
from service.texts import checked, checked_all

router = APIRouter(tags=["vectors"])
_STATUSES = (400, 401, 413, 415, 422, 429, 500, 503, 504)


@router.post(
    "/v1/encode",
    response_model=EncodeResponse,
    dependencies=[JsonOnly],
    responses=documented(*_STATUSES),
    summary="Return the token vectors of queries or passages",
)
async def encode_texts(body: EncodeRequest, request: Request, service: ServiceDependency) -> Response:
    watch = service.stopwatch(request)
    encoder = service.engine.encoder
    limit = service.settings.max_query_chars if body.kind == "query" else service.settings.max_text_chars
    texts = checked_all(body.texts, "/texts", limit, keep_lines=body.kind == "passage")

    def work(deadline: Deadline) -> Response:
        watch.add("queue", watch.elapsed_ms())
        encoded = encode(encoder, texts, body.kind, watch, deadline)
        deadline.check()
        as_text = body.format == "base64"
        return json_response(
            EncodeResponse(
                student=encoder.spec.fingerprint,
                dim=encoder.spec.dim,
                sentence_dim=encoder.spec.sentence_dim,
                embeddings=[
                    _embedding(encoder.spec, encoded.select(number, number + 1), body, as_text)
                    for number in range(len(encoded))
                ],
                took_ms=watch.took_ms(),
            )
        )

    async with service.admitted(request, body.timeout_ms) as deadline:
        response = await service.queue.run(deadline, work, deadline)
    service.metrics.observe_stages(watch.stages)
    return response


@router.post(
    "/v1/rerank",
    response_model=RerankResponse,
    dependencies=[JsonOnly],
    responses=documented(*_STATUSES),
    summary="Order given texts by their relevance to a query",
)
async def rerank_texts(body: RerankRequest, request: Request, service: ServiceDependency) -> Response:
    watch = service.stopwatch(request)
    encoder = service.engine.encoder
    query = checked(body.query, "/query", service.settings.max_query_chars)
    texts = checked_all(body.texts, "/texts", service.settings.max_text_chars, keep_lines=True)

    def work(deadline: Deadline) -> Response:
        watch.add("queue", watch.elapsed_ms())
        asked = encode(encoder, [query], "query", watch)
        given = encode_passages(encoder, texts, deadline, watch)
        deadline.check()
        with watch.stage("search"):
            scores = relevance(asked, given, encoder.spec)
            order = np.argsort(-scores, kind="stable")[: body.k]
        warnings = query_warnings(encoder, asked)
        if cut := int(given.windows.truncated.sum()):
            message = f"The ends of {cut} of the texts were not read (at most {MAX_WINDOWS} windows are)."
            warnings.append(Warned(code="text_truncated", message=message))
        results = [RerankResult(index=int(number), score=round(float(scores[number]), 6)) for number in order]
        return json_response(RerankResponse(results=results, took_ms=watch.took_ms(), warnings=warnings))

    async with service.admitted(request, body.timeout_ms) as deadline:
        response = await service.queue.run(deadline, work, deadline)
    service.metrics.observe_stages(watch.stages)
    return response


def _embedding(spec: EncoderSpec, encoded: Encoded, body: EncodeRequest, as_text: bool) -> Embedding:
    limit = spec.query_length if body.kind == "query" else spec.passage_length
    warnings = []
    if encoded.truncated[0]:
        message = f"Cut at {limit} tokens."
        if body.kind == "query":
            warnings.append(Warned(code="query_truncated", message=message))
        else:
            end = int(encoded.spans[:, 1].max(initial=0))
            message = f"Cut at {limit} tokens, before character {end}; send the rest as a text of its own."
            warnings.append(Warned(code="text_truncated", message=message))
    sentence = None if encoded.sentences is None else encoded.sentences[0]
    return Embedding(
        vectors=_base64(encoded.vectors) if as_text else encoded.vectors.tolist(),
        sentence=None if sentence is None else _base64(sentence) if as_text else sentence.tolist(),
        spans=[(int(start), int(end)) for start, end in encoded.spans],
        warnings=warnings,
    )


def _base64(values: NDArray[np.float32]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")
