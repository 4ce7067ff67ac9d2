"""The client of the HTTP service: `Client`, and `AsyncClient` with the same methods to await.

>>> from service.client import Client
>>> with Client("http://127.0.0.1:8080") as client:  # doctest: +SKIP
...     for hit in client.search("demo", "画像を編集するプログラム", k=3).hits:
...         print(hit.score, hit.title)

With a service that keeps indexes of its own: upload, build, and let an alias answer from the new version.

>>> with Client("http://127.0.0.1:8080") as client:  # doctest: +SKIP
...     client.upload_passages("manuals", "passages.jsonl")
...     built = client.wait(client.start_build("manuals"))
...     client.switch_alias("live", "manuals", built.number)

Answers are the models of `service.schemas` and its neighbours; every failure of the service, and of a job
that is waited for, is a `drdecr.errors.ServiceError`.
"""

from drdecr.errors import ServiceError
from service.client.async_client import AsyncClient
from service.client.data_calls import Alias
from service.client.retries import Retries
from service.client.sync_client import Client

__all__ = ["Alias", "AsyncClient", "Client", "Retries", "ServiceError"]
