"""Compose, Kubernetes, Prometheus and Grafana: their own linters, and agreement with each other and
the code.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import linters
import pytest
import yaml
from prometheus_client import Metric

from {{cookiecutter.package_name}}.monitoring.report import gauges
from {{cookiecutter.package_name}}.serving import app
from {{cookiecutter.package_name}}.serving.metrics import Metrics
from {{cookiecutter.package_name}}.serving.store import Store

Tool = Callable[..., str]
deploy, healthy, tool = linters.deploy, linters.healthy, linters.tool
SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("_sum", "_count"),
    "gauge": ("",),
    "unknown": ("",),
}
FOREIGN = {"node_textfile_mtime_seconds"}  # the node exporter's own
NUMBERS = (
    *("rows", "labelled", "error_rate", "abstention_rate", "duplicate_share"),
    *("mean_confidence", "mean_deviation", "mean_absolute_error"),
)


@pytest.fixture(scope="module")
def compose(deploy: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((deploy / "compose.yaml").read_text(encoding="utf-8")))


def manifests(deploy: Path) -> dict[str, dict[str, Any]]:
    files = sorted((deploy / "kubernetes").glob("*.yaml"))
    return {file.name: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}


def server_metrics(folder: Path) -> set[str]:
    families: list[Metric] = list(Metrics(Store(folder / "store.db"), lambda: 0).registry.collect())
    return {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}


def monitor_metrics() -> set[str]:
    report: dict[str, Any] = {"alarm": False, "verdict": "no alarm", "warnings": []}
    report["quality"] = dict.fromkeys(NUMBERS, 0) | {"label_shares": {"a": 1.0}}
    report["tests"] = [{"name": "a", "adjusted": 1.0, "effect": 0.0}]
    return {name for name, *_ in gauges(report)}


@pytest.mark.row("O6")
def test_prometheus_accepts_its_configuration(deploy: Path, tool: Tool) -> None:
    tool("promtool", "check", "config", deploy / "prometheus/prometheus.yml")


@pytest.mark.row("O6")
def test_alert_rules_fire_when_they_should(deploy: Path, tool: Tool) -> None:
    tool("promtool", "check", "rules", deploy / "prometheus/rules.yml")
    assert "SUCCESS" in tool("promtool", "test", "rules", deploy / "prometheus/rules_test.yml")


@pytest.mark.row("O6")
def test_every_alert_has_a_unit_test_and_says_what_to_do(deploy: Path) -> None:
    rules = yaml.safe_load((deploy / "prometheus/rules.yml").read_text(encoding="utf-8"))
    tested = yaml.safe_load((deploy / "prometheus/rules_test.yml").read_text(encoding="utf-8"))
    cases = [case for test in tested["tests"] for case in test["alert_rule_test"]]
    firing = {case["alertname"] for case in cases if case["exp_alerts"]}
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in alerts} == firing
    assert all({"summary", "action"} == set(rule["annotations"]) for rule in alerts)


@pytest.mark.row("O6")
@pytest.mark.parametrize(
    "file", ["prometheus/rules.yml", "prometheus/rules_test.yml", "grafana/dashboard.json"]
)
def test_every_metric_that_is_asked_for_exists(deploy: Path, file: str, tmp_path: Path) -> None:
    text = (deploy / file).read_text(encoding="utf-8")
    asked = set(re.findall(r"\b(?:model|http|store|process|node)_[a-z_]+", text))
    assert len(asked) > 8
    assert asked - server_metrics(tmp_path) - monitor_metrics() - FOREIGN == set()


@pytest.mark.row("O6")
def test_the_dashboard_is_one_that_grafana_can_load(deploy: Path) -> None:
    dashboard = json.loads((deploy / "grafana/dashboard.json").read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [v["type"] for v in dashboard["templating"]["list"]] == ["datasource"]
    charts = [panel for panel in panels if panel["type"] != "row"]
    assert all(
        panel["datasource"]["uid"] == "${datasource}" and panel["targets"] for panel in charts
    )
    taken = [
        (x, y)
        for p in panels
        for x in cells(p["gridPos"], "x", "w")
        for y in cells(p["gridPos"], "y", "h")
    ]
    assert len(taken) == len(set(taken)), "panels overlap"


def cells(place: dict[str, int], start: str, size: str) -> range:
    return range(place[start], place[start] + place[size])


@pytest.mark.row("O6")
def test_dashboard_queries_are_promql(deploy: Path, tool: Tool, tmp_path: Path) -> None:
    dashboard = json.loads((deploy / "grafana/dashboard.json").read_text(encoding="utf-8"))
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    rules = [{"record": f"query:{i}", "expr": query} for i, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8"
    )
    tool("promtool", "check", "rules", file)


@pytest.mark.row("P4")
def test_compose_services_are_hardened_and_pinned(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


@pytest.mark.row("P4")
def test_compose_asks_for_health_without_a_proxy(
    compose: dict[str, Any], healthy: Callable[[list[str], int], bool]
) -> None:
    _, *command = compose["services"]["server"]["healthcheck"]["test"]
    assert healthy(command, 200) and not healthy(command, 503)
    assert "serving.port=8000" in compose["services"]["server"]["entrypoint"]


@pytest.mark.row("P4")
def test_compose_mounts_and_names_exist(compose: dict[str, Any], deploy: Path) -> None:
    mounts = [
        mount.split(":")[0]
        for service in compose["services"].values()
        for mount in service.get("volumes", [])
    ]
    assert all((deploy / mount).exists() for mount in mounts if mount.startswith("./"))
    assert {mount for mount in mounts if not mount.startswith(".")} == set(compose["volumes"])
    assert (
        deploy / compose["services"]["server"]["build"]["dockerfile"].removeprefix("deploy/")
    ).is_file()
    scraped = yaml.safe_load((deploy / "prometheus/prometheus.yml").read_text(encoding="utf-8"))[
        "scrape_configs"
    ]
    targets = {
        t.split(":")[0]
        for job in scraped
        for group in job["static_configs"]
        for t in group["targets"]
    }
    assert targets <= set(compose["services"])


@pytest.mark.row("P4")
def test_docker_accepts_the_compose_file(deploy: Path) -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        # its linter comes with Docker alone; else the two tests above are all there is: see
        # deploy/README.md
        return
    command = [
        docker,
        "compose",
        "-f",
        str(deploy / "compose.yaml"),
        "--profile",
        "tracker",
        "config",
        "--quiet",
    ]
    environment = {**os.environ, "GRAFANA_PASSWORD": "x"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.row("P4")
def test_kubernetes_accepts_the_manifests(deploy: Path, tool: Tool) -> None:
    files = [
        deploy / "kubernetes" / name for name in manifests(deploy) if name != "kustomization.yaml"
    ]
    tool("kubernetes-validate", "--strict", *files)


@pytest.mark.row("P4")
def test_kustomization_lists_every_manifest_and_image(deploy: Path) -> None:
    found = manifests(deploy)
    kustomization = found.pop("kustomization.yaml")
    assert set(kustomization["resources"]) == set(found)
    images = {
        c["image"] for m in found.values() if m["kind"] == "Deployment" for c in containers(m)
    }
    assert {image["name"] for image in kustomization["images"]} == images
    assert not any("namespace" in manifest["metadata"] for manifest in found.values())


def containers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return list(manifest["spec"]["template"]["spec"]["containers"])


@pytest.mark.row("P4")
def test_pods_are_confined_and_probed(deploy: Path) -> None:
    source = Path(app.__file__).read_text(encoding="utf-8")
    pods = [m for m in manifests(deploy).values() if m["kind"] == "Deployment"]
    assert len(pods) == 2
    for manifest in pods:
        assert manifest["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
        [server] = containers(manifest)
        confined = server["securityContext"]
        assert confined["readOnlyRootFilesystem"] and not confined["allowPrivilegeEscalation"]
        assert server["resources"]["limits"].keys() >= {"cpu", "memory"}
        probes = [
            server[probe]["httpGet"]["path"]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe")
        ]
        assert all(f'"{path}"' in source for path in probes)


@pytest.mark.row("P4")
def test_service_reaches_champion_and_canary(deploy: Path) -> None:
    found = manifests(deploy)
    selector = found["service.yaml"]["spec"]["selector"].items()
    for name in ("deployment.yaml", "canary.yaml"):
        assert selector <= found[name]["spec"]["template"]["metadata"]["labels"].items()
    stable = found["deployment.yaml"]["metadata"]["name"]
    assert found["autoscaler.yaml"]["spec"]["scaleTargetRef"]["name"] == stable


@pytest.mark.row("P4")
def test_yaml_passes_its_linter(deploy: Path, tool: Tool) -> None:
    tool("yamllint", "--strict", *sorted([*deploy.rglob("*.yaml"), *deploy.rglob("*.yml")]))
