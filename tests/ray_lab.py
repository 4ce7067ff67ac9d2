"""Small Ray clusters for tests: nodes on this machine, each with processes of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Before ray is imported. The token keeps it from writing one into the home directory.
os.environ.setdefault("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
os.environ.setdefault("RAY_DEDUP_LOGS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray gives way to every other process (niceness 15): beside other tests a replica took minutes to start.
os.environ.setdefault("RAY_worker_niceness", "0")
# A node that is killed is given up after two to three seconds, not fifteen.
os.environ.setdefault("RAY_health_check_period_ms", "1000")
os.environ.setdefault("RAY_health_check_timeout_ms", "1000")
os.environ.setdefault("RAY_health_check_failure_threshold", "2")
_STORE_BYTES = 80 * 2**20


@contextmanager
def ray_cluster(nodes: int, cpus: int = 2) -> Iterator[Any]:
    """Start a head without processors and so many nodes, connect to it, and stop it all at the end."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.pop("RAY_ADDRESS", None)
    head = {"num_cpus": 0, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            add_node(cluster, cpus)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster: Any, cpus: int = 2) -> Any:
    """Add a node that runs work."""
    return cluster.add_node(num_cpus=cpus, object_store_memory=_STORE_BYTES)


def kill_node(cluster: Any) -> None:
    """Kill the newest node with everything it runs, without a word of farewell."""
    import psutil

    node = max(cluster.worker_nodes, key=lambda each: dict(each.live_processes())["raylet"].pid)
    for _, started in node.live_processes():
        root = psutil.Process(started.pid)
        for process in [*root.children(recursive=True), root]:
            process.kill()
        started.wait()
    cluster.worker_nodes.remove(node)


def running_replicas(*, front_only: bool = False) -> int:
    """Count the replicas that Ray Serve takes for healthy; of a service's applications only, those named `demo`."""
    from ray import serve

    applications = serve.status().applications.items()
    return sum(
        deployment.replica_states.get("RUNNING", 0)
        for name, each in applications
        if not front_only or (name.startswith("drdecr-demo-") and each.status.value == "RUNNING")
        for deployment in each.deployments.values()
    )
