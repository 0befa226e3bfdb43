"""The manifests agree with the server, with each other, and with Kubernetes' own schemas.

`make check` holds the base against the schemas, file by file. Custom resources have none
that come with a package, so their fields are held to what is used of them here.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import grpc
import kubernetes_validate
import pytest
import yaml
from containers import ROOT
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.cli import main

KUBERNETES = ROOT / "deploy/kubernetes"
PRODUCTION = KUBERNETES / "overlays/production"
CUSTOM = {"ServiceMonitor", "InferenceService"}
LABELS = {"app.kubernetes.io/name": "mnist-server"}


def documents(path: Path) -> list[dict[str, Any]]:
    """Every object in a file."""
    return list(yaml.safe_load_all(path.read_text()))


BASE = {
    f"{found['kind']}/{found['metadata']['name']}": found
    for path in (KUBERNETES / "base").glob("*.yaml")
    if path.name != "kustomization.yaml"
    for found in documents(path)
}
POD = BASE["Deployment/mnist-server"]["spec"]["template"]
SERVER = POD["spec"]["containers"][0]
KSERVE = documents(KUBERNETES / "kserve/inferenceservice.yaml")[0]
MONITOR = documents(PRODUCTION / "servicemonitor.yaml")[0]
SIZE = documents(PRODUCTION / "size.yaml")[0]["spec"]["template"]["spec"]["containers"][0]


def environment(container: dict[str, Any]) -> dict[str, str]:
    """What a container's variables say."""
    return {variable["name"]: variable["value"] for variable in container["env"]}


@pytest.mark.parametrize("folder", ["base", "overlays/production"])
def test_a_kustomization_lists_its_files(folder: str) -> None:
    """No file is forgotten, and none is missing."""
    kustomization = documents(KUBERNETES / folder / "kustomization.yaml")[0]
    patches = [patch["path"] for patch in kustomization.get("patches", [])]
    listed = [name for name in (*kustomization["resources"], *patches) if not name.startswith("..")]
    here = {path.name for path in (KUBERNETES / folder).glob("*.yaml")} - {"kustomization.yaml"}
    assert sorted(listed) == sorted(here)


@pytest.mark.parametrize("overlay", ["base", "overlays/production"])
def test_kustomize_renders_what_kubernetes_accepts(overlay: str) -> None:
    """What would be applied has no unknown field, by the newest release's schemas."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not here, which renders kustomizations")
    command = [kubectl, "kustomize", str(KUBERNETES / overlay)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    rendered = list(yaml.safe_load_all(process.stdout))
    assert len(rendered) >= len(BASE)
    for found in rendered:
        if found["kind"] not in CUSTOM:
            kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("container", [SERVER, SIZE, KSERVE["spec"]["predictor"]["containers"][0]])
def test_every_variable_is_a_flags(container: dict[str, Any]) -> None:
    """A variable that no flag reads would change nothing, and nobody would hear of it."""
    flags = {f"MNIST_SERVER_{str(option.name).upper()}" for option in main.params}
    assert environment(container).keys() <= flags
    with click.Context(main) as context:
        for option in main.params:
            value = environment(container).get(f"MNIST_SERVER_{str(option.name).upper()}")
            assert value is None or option.type_cast_value(context, value) is not None


def test_a_pod_has_longer_to_leave_than_it_takes() -> None:
    """It is killed after preStop and --drain-seconds, with seconds to spare."""
    pause = SERVER["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = float(environment(SERVER)["MNIST_SERVER_DRAIN_SECONDS"])
    assert POD["spec"]["terminationGracePeriodSeconds"] >= pause + drain + 5


@pytest.mark.parametrize("container", [SERVER, SIZE], ids=["base", "production"])
def test_resources_are_in_step_with_workers(container: dict[str, Any]) -> None:
    """A CPU and 128 MiB are asked for each worker, and twice that memory is the limit."""
    workers = int(environment(container)["MNIST_SERVER_WORKERS"])
    asked, limits = (container["resources"][kind] for kind in ("requests", "limits"))
    assert int(asked["cpu"]) == workers
    assert (asked["memory"], limits["memory"]) == (f"{128 * workers}Mi", f"{256 * workers}Mi")


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_a_probe_asks_what_the_server_answers(server: Any, probe: str) -> None:
    """It calls the port that is open, for a service that is SERVING there."""
    asked = SERVER[probe]["grpc"]
    assert asked["port"] == SERVER["ports"][0]["containerPort"]
    with grpc.insecure_channel(server.address) as channel:
        request = health_pb2.HealthCheckRequest(service=asked.get("service", ""))
        status = health_pb2_grpc.HealthStub(channel).Check(request).status
    assert status == health_pb2.HealthCheckResponse.SERVING


def test_a_pod_may_do_little() -> None:
    """Nobody's user, no capability, no write but to /tmp, no token, no variables of others."""
    spec = POD["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] == 10001
    assert SERVER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert spec["automountServiceAccountToken"] is False
    # A Service named mnist-server sets MNIST_SERVER_PORT otherwise.
    assert spec["enableServiceLinks"] is False


def test_selectors_find_the_pods() -> None:
    """Whatever selects, selects what the Deployment makes; whatever scales, scales it."""
    assert POD["metadata"]["labels"] == LABELS
    for name in ("Deployment", "PodDisruptionBudget"):
        assert BASE[f"{name}/mnist-server"]["spec"]["selector"]["matchLabels"] == LABELS
    for name in ("mnist-server", "mnist-servers"):
        assert BASE[f"Service/{name}"]["spec"]["selector"] == LABELS
    policy = BASE["NetworkPolicy/mnist-server"]["spec"]
    assert policy["podSelector"]["matchLabels"] == LABELS
    target = BASE["HorizontalPodAutoscaler/mnist-server"]["spec"]["scaleTargetRef"]
    assert f"{target['kind']}/{target['name']}" in BASE


def test_ports_have_one_name_each() -> None:
    """Services, policies and the monitor name ports that the pod or the Service has."""
    names = {port["name"] for port in SERVER["ports"]}
    services = [
        BASE[f"Service/{name}"]["spec"]["ports"] for name in ("mnist-server", "mnist-servers")
    ]
    assert {port["targetPort"] for ports in services for port in ports} <= names
    policy = BASE["NetworkPolicy/mnist-server"]["spec"]
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == names
    metrics = {port["name"]: port["containerPort"] for port in SERVER["ports"]}["metrics"]
    assert environment(SERVER)["MNIST_SERVER_METRICS_PORT"] == str(metrics)


def test_the_headless_service_has_every_address() -> None:
    """Clients that balance by themselves need the pods' addresses, not the Service's."""
    assert BASE["Service/mnist-servers"]["spec"]["clusterIP"] == "None"
    assert "clusterIP" not in BASE["Service/mnist-server"]["spec"]


def test_the_monitor_scrapes_each_pod_once_under_the_alerts_name() -> None:
    """It selects one Service, and the job's name is what the alerts and the dashboard expect."""
    assert MONITOR["apiVersion"] == "monitoring.coreos.com/v1"
    spec = MONITOR["spec"]
    assert spec.keys() == {"jobLabel", "selector", "endpoints"}
    wanted = spec["selector"]["matchLabels"].items()
    services = [found for found in BASE.values() if found["kind"] == "Service"]
    (selected,) = [found for found in services if wanted <= found["metadata"]["labels"].items()]
    assert selected["metadata"]["labels"][spec["jobLabel"]] == "mnist-server"
    (endpoint,) = spec["endpoints"]
    assert endpoint["port"] in {port["name"] for port in selected["spec"]["ports"]}


def test_the_inference_service_is_the_same_server() -> None:
    """KServe's container is the Deployment's, on the port that it calls h2c for gRPC."""
    assert KSERVE["apiVersion"] == "serving.kserve.io/v1beta1"
    predictor = KSERVE["spec"]["predictor"]
    (container,) = predictor["containers"]
    assert container["name"] == "kserve-container"
    assert container["image"] == SERVER["image"]
    assert container["ports"] == [{"name": "h2c", "containerPort": 50051, "protocol": "TCP"}]
    assert predictor["enableServiceLinks"] is False
    # A pod's fields, by Kubernetes' own schema; the others are KServe's.
    scaling = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "predictor"},
        "spec": {name: value for name, value in predictor.items() if name not in scaling},
    }
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
