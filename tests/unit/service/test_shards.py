"""What the service does with a Ray cluster, without one."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace

import pytest

from service.cluster.serve import Shards
from service.settings import Settings

OLD = "drdecr-demo-0123456789ab-012345-1of2"
OTHERS = ("drdecr-demo-more-0123456789ab-012345-1of2", "drdecr-other-0123456789ab-012345-1of2", "somebody's")


class FabricatedFronts:
    """This front and another one, which uses `others`; None: it does not say."""

    def __init__(self) -> None:
        self.own: list[str] = []
        self.others: set[str] | None = set()

    def tell(self, used: Collection[str]) -> None:
        self.own = sorted(used)

    def used(self) -> set[str] | None:
        return None if self.others is None else self.others | set(self.own)


@pytest.fixture
def fronts(monkeypatch: pytest.MonkeyPatch) -> FabricatedFronts:
    made = FabricatedFronts()
    monkeypatch.setattr("service.cluster.serve.Fronts", lambda: made)
    return made


@pytest.fixture
def deleted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from ray import serve

    names: list[str] = []
    monkeypatch.setattr(serve, "delete", lambda name, **_: names.append(name))
    return names


@pytest.fixture
def shards(monkeypatch: pytest.MonkeyPatch, fronts: FabricatedFronts) -> Shards:
    from ray import serve

    monkeypatch.setattr(serve, "start", lambda **_: None)
    applications = dict.fromkeys([OLD, OLD.replace("1of", "2of"), *OTHERS])
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications=applications))
    settings = Settings(student="student", index="demo=snapshot", ray="127.0.0.1:1", retire_s=0.0)
    assert settings.cluster is not None
    return Shards(settings.cluster, verify=False)


def test_who_has_left_the_cluster_retires_nothing_and_begins_no_other(shards: Shards, deleted: list[str]) -> None:
    import ray

    assert not ray.is_initialized()
    shards._release([OLD])
    assert not ray.is_initialized()
    assert deleted == []


def test_an_indexs_applications_that_no_front_uses_go(
    shards: Shards, fronts: FabricatedFronts, deleted: list[str]
) -> None:
    fronts.others = {OLD}
    shards._let_go_of_others("demo", [])
    assert deleted == [OLD.replace("1of", "2of")]
    fronts.others = None
    shards._let_go_of_others("demo", [])
    assert deleted == [OLD.replace("1of", "2of")]


def test_what_is_used_twice_here_goes_with_its_second_user(
    shards: Shards, fronts: FabricatedFronts, deleted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    shards._hold([OLD])
    shards._hold([OLD])
    assert fronts.own == [OLD]
    shards._release([OLD])
    assert deleted == [] and fronts.own == [OLD]
    shards._release([OLD])
    assert deleted == [OLD] and fronts.own == []


def test_what_another_front_uses_stays(
    shards: Shards, fronts: FabricatedFronts, deleted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    fronts.others = {OLD}
    shards._hold([OLD])
    shards._release([OLD])
    assert deleted == [] and fronts.own == []
