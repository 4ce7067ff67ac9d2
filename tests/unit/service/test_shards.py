"""What the service does with a Ray cluster, without one."""

from __future__ import annotations

import pytest

from service.cluster.serve import Shards
from service.settings import Settings


def test_who_has_left_the_cluster_retires_nothing_and_begins_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray import serve

    monkeypatch.setattr(serve, "start", lambda **_: None)
    settings = Settings(student="student", index="demo=snapshot", ray="127.0.0.1:1", retire_s=0.0)
    assert settings.cluster is not None
    shards = Shards(settings.cluster, verify=False)
    assert not ray.is_initialized()
    shards._delete(["drdecr-demo-1of1"])
    assert not ray.is_initialized()
