"""The files that operators copy: each is held against its tool's own rules and against what the service exposes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
EXPRESSIONS = [
    *(rule["expr"] for rule in ALERTS),
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]),
]
PROMTOOL = shutil.which("promtool")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def run(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr


def tool(name: str) -> Path:
    return Path(sys.executable).with_name(name)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_that_is_named_exists(client, expression):
    exposed = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", client.get("/metrics").text, flags=re.MULTILINE):
        exposed |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    named = set(re.findall(r"\b(?:drdecr|process)_\w+", re.sub(r'"[^"]*"', "", expression)))
    assert named or "up{" in expression
    assert named <= exposed


def test_the_labels_that_are_asked_for_exist(client):
    client.post("/v1/indexes/demo/search", json={"query": "cat"})
    shown = client.get("/metrics").text
    for expression in EXPRESSIONS:
        for route in re.findall(r'route="([^"]+)"', expression):
            assert f'route="{route}"' in shown
        for outcome in re.findall(r'query_cache_total\{[^}]*outcome="([^"]+)"', expression):
            assert f'drdecr_query_cache_total{{outcome="{outcome}"}}' in shown or outcome == "hit"


def test_panels_have_ids_titles_and_places_of_their_own():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
        assert panel["description"]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian: prometheus) is not installed")
def test_promtool_accepts_configuration_rules_and_every_expression(tmp_path):
    run("promtool", "check", "rules", "alerts.yml")
    run("promtool", "test", "rules", "alerts.test.yml")
    plain = [re.sub(r"\$__rate_interval", "5m", expression) for expression in EXPRESSIONS]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(plain)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    run("promtool", "check", "rules", tmp_path / "rules.yml")
    config = (PROMETHEUS / "prometheus.yml").read_text().replace("/etc/prometheus", str(PROMETHEUS))
    (tmp_path / "prometheus.yml").write_text(config)
    run("promtool", "check", "config", tmp_path / "prometheus.yml")


def test_every_alert_is_tested_and_says_what_to_do():
    tested = (PROMETHEUS / "alerts.test.yml").read_text(encoding="utf-8")
    for rule in ALERTS:
        assert tested.count(rule["alert"]) == 2
        assert rule["annotations"].keys() == {"summary", "description"}


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.ray.yml"])
def test_the_compose_files_follow_their_schema(name):
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", ROOT / name)


def test_the_ray_nodes_share_a_token_and_publish_no_port_but_the_front():
    services = yaml.safe_load((ROOT / "docker-compose.ray.yml").read_text(encoding="utf-8"))["services"]
    assert {name for name, service in services.items() if "ports" in service} == {"front"}
    for service in services.values():
        assert service["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["cap_drop"] == ["ALL"] and service["read_only"] is True


KUBERAY = list(yaml.safe_load_all((ROOT / "deploy" / "kuberay" / "drdecr.yaml").read_text(encoding="utf-8")))
GROUPS = [KUBERAY[0]["spec"]["headGroupSpec"], *KUBERAY[0]["spec"]["workerGroupSpecs"]]


def test_the_kubernetes_objects_follow_their_schema():
    for document in KUBERAY[1:]:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.get("groupName", "head"))
def test_the_pods_of_the_ray_cluster_follow_their_schema(group):
    template = group["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **template.get("metadata", {})}}
    kubernetes_validate.validate({**pod, "spec": template["spec"]}, kubernetes_validate.latest_version(), strict=True)
    (container,) = template["spec"]["containers"]
    # The operator leaves the command alone, so it has to start ray itself.
    assert KUBERAY[0]["metadata"]["annotations"]["ray.io/overwrite-container-cmd"] == "true"
    assert "$KUBERAY_GEN_RAY_START_CMD" in container["args"][0]
    assert {each["name"] for each in container["env"]} >= {"RAY_AUTH_TOKEN", "RAY_AUTH_MODE"}
    assert container["securityContext"]["runAsNonRoot"] is True


def container_of(group):
    return group["template"]["spec"]["containers"][0]


def told_to_the_front():
    return {each["name"]: each.get("value") for each in container_of(GROUPS[-1])["env"]}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.get("groupName", "head"))
def test_no_node_gives_its_metrics_on_the_port_of_the_service(group):
    served = re.search(r"AS ray\n.*?DRDECR_PORT=(\d+)", DOCKERFILE, flags=re.DOTALL)
    ports = {each["name"]: each["containerPort"] for each in container_of(group).get("ports", ())}
    # Where either is missing the operator fills in 8080.
    assert group["rayStartParams"]["metrics-export-port"] == str(ports["metrics"])
    assert ports["metrics"] != int(served[1])
    assert len(set(ports.values())) == len(ports)
    if group is GROUPS[-1]:
        assert ports["http"] == int(served[1])


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.get("groupName", "head"))
def test_every_ray_container_has_probes_that_need_no_program_of_the_image(group):
    container = container_of(group)
    for probe in (container["readinessProbe"], container["livenessProbe"]):
        assert "httpGet" in probe and "exec" not in probe
    if group is not GROUPS[-1]:
        from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
        from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

        asked = container["livenessProbe"]["httpGet"]
        assert asked == container["readinessProbe"]["httpGet"]
        assert asked["port"] == DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
        # Others want the token, which no probe of Kubernetes sends.
        assert asked["path"] in PUBLIC_EXACT_PATHS


def test_two_versions_of_the_shards_fit_on_the_nodes_at_once():
    told, shards = told_to_the_front(), GROUPS[1]
    cpus, threads, parts, replicas = (
        int(told[f"DRDECR_{name}"]) for name in ("SHARD_CPUS", "SHARD_THREADS", "SHARDS", "REPLICAS")
    )
    node = int(shards["rayStartParams"]["num-cpus"])
    assert node == int(container_of(shards)["resources"]["requests"]["cpu"])
    assert threads == cpus
    assert 2 * parts * replicas <= shards["replicas"] * (node // cpus)
    assert replicas <= shards["replicas"]
    if not KUBERAY[0]["spec"].get("enableInTreeAutoscaling"):
        for group in GROUPS[1:]:
            assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]


def test_only_the_operator_and_the_own_pods_reach_ray():
    (policy,) = (each for each in KUBERAY if each["kind"] == "NetworkPolicy")
    to_all, to_http = policy["spec"]["ingress"]
    assert to_http == {"ports": [{"port": "http"}]}
    allowed = [peer["podSelector"]["matchLabels"] for peer in to_all["from"]]
    own = {"ray.io/cluster": KUBERAY[0]["metadata"]["name"]}
    assert policy["spec"]["podSelector"]["matchLabels"] == own
    # What the operator sets on its own pod, by Helm as by kustomize, and on no pod of a Ray cluster.
    assert allowed == [own, {"app.kubernetes.io/component": "kuberay-operator"}]


def test_what_the_service_is_told_on_a_cluster_are_settings_of_its():
    compose = yaml.safe_load((ROOT / "docker-compose.ray.yml").read_text(encoding="utf-8"))["services"]
    told = set(compose["front"]["environment"])
    told |= told_to_the_front().keys()
    ours = {name.removeprefix("DRDECR_").lower() for name in told if name.startswith("DRDECR_")}
    assert ours >= {"ray", "shards", "replicas"}
    assert ours <= Settings.model_fields.keys()


def test_files_that_compose_mounts_exist():
    for service in yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"].values():
        for volume in service.get("volumes", ()):
            if isinstance(volume, str) and volume.startswith("./"):
                assert (ROOT / volume.partition(":")[0]).is_file()


def stages_of_the_dockerfile():
    return {
        text.split(maxsplit=3)[3].split("\n", 1)[0]: text
        for text in re.split(r"^(?=FROM )", DOCKERFILE, flags=re.M)[1:]
    }


def test_whoever_installs_torch_may_name_an_index_of_its_builds():
    for stage in stages_of_the_dockerfile().values():
        if "${TORCH}" in stage:
            assert "\nARG PIP_EXTRA_INDEX_URL\n" in stage.partition("\nRUN")[0]
    (train,) = (text for name, text in stages_of_the_dockerfile().items() if name == "install-train")
    # First and alone, in the version that the Makefile and the README name.
    assert re.search(r"pip install \"\$\{TORCH\}\" && pip install", train)
    version = re.search(r'ARG TORCH="(torch==[\d.]+)"', train)[1]
    assert f"TORCH ?= {version}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"pip install {version} " in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_node_of_a_cluster_can_do_all_that_a_build_there_offers():
    extras = re.search(r"pip install '\.\[([\w,]+)\]' s3fs", stages_of_the_dockerfile()["install-ray"])[1]
    assert set(extras.split(",")) == {"cpu", "otel", "pool", "ray"}


def test_hadolint_finds_nothing_in_the_dockerfile():
    run(tool("hadolint"), ROOT / "Dockerfile")


def test_images_run_as_a_user_and_the_service_is_checked():
    text = DOCKERFILE
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, flags=re.MULTILINE)
    targets = {name: parent for parent, name in stages}
    assert all(targets[target] == "runtime" for target in ("gpu", "train", "ray", "cpu"))
    runtime = text[text.index("AS runtime") : text.index("FROM runtime AS gpu")]
    assert re.search(r"^USER [1-9]\d*$", runtime, flags=re.MULTILINE)
    assert "HEALTHCHECK" in text[text.index("FROM runtime AS cpu") :]
