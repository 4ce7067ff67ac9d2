"""Which applications the fronts of a cluster use: an actor of each front tells the others, and ends with it."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any

from drdecr.ray_cluster import plain_errors

_NAMESPACE = "drdecr-fronts"
# Beside a busy node a process takes its time to start.
_START_S = 300.0
_ANSWER_S = 10.0


class Front:
    """What one front uses: the names of its applications, or None where it has not said."""

    def __init__(self) -> None:
        self._used: list[str] | None = None

    def tell(self, used: list[str]) -> None:
        self._used = used

    def used(self) -> list[str] | None:
        return self._used


class Fronts:
    """The fronts of the cluster that this process has joined, of which it becomes one.

    The actor reserves no processor. It lies on this process's own node, and Ray ends it with this process, however
    that ends.
    """

    def __init__(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options: dict[str, Any] = {
            "name": uuid.uuid4().hex,
            "namespace": _NAMESPACE,
            "num_cpus": 0,
            "max_restarts": -1,
            "max_task_retries": -1,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True),
        }
        self._own = ray.remote(Front).options(**options).remote()

    def tell(self, used: Collection[str]) -> None:
        """Tell what this front uses, and return once the others can see it. Raises: ResourceError."""
        import ray

        with plain_errors("telling the other fronts"):
            ray.get(self._own.tell.remote(sorted(used)), timeout=_START_S)

    def used(self) -> set[str] | None:
        """Return what any front uses, or None where one does not say."""
        import ray

        found: set[str] = set()
        for one in ray.util.list_named_actors(all_namespaces=True):
            if one["namespace"] != _NAMESPACE:
                continue
            try:
                actor = ray.get_actor(one["name"], namespace=_NAMESPACE)
                names = ray.get(actor.used.remote(), timeout=_ANSWER_S)
            except (ValueError, ray.exceptions.ActorDiedError):
                # It has ended meanwhile.
                continue
            except ray.exceptions.RayError:
                return None
            if names is None:
                return None
            found.update(names)
        return found
