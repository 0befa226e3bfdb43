"""docker-compose.yml: one server, three of them, and what trains and watches beside."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from callers import calling
from conftest import until
from containers import (
    BASE,
    CLIENT,
    DOCKER,
    ROOT,
    SERVER,
    docker,
    has_image,
    has_training_image,
    is_healthy,
    logs,
    program,
    readable,
    state,
)
from onnx import numpy_helper

from client import DigitClient

pytestmark = [pytest.mark.container, pytest.mark.usefixtures("images")]

PROJECT = "mnist-inference-tests"
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

# The programs that run a service from the same files where its image is not here.
STAND_INS = {"balancer": "envoy", "prometheus": "prometheus"}

Compose = Callable[..., str]


def has(service: str) -> bool:
    """Whether a service can run here without a download."""
    return has_image(SERVICES[service]["image"]) or program(STAND_INS[service]) is not None


def need(service: str) -> None:
    """Skips where a service cannot run."""
    if not has(service):
        pytest.skip(f"neither {SERVICES[service]['image']} nor {STAND_INS[service]} is here")


def in_container(network: str) -> list[str]:
    """The command that runs the callers in the client's image, asking `server` by its name."""
    mount = f"{ROOT / 'tests/callers.py'}:/callers.py:ro"
    flags = ("--rm", "--interactive", "--network", network, "--volume", mount)
    run = ("run", *flags, "--env", "PYTHONPATH=/app", "--entrypoint", "python", CLIENT)
    return [DOCKER, *run, "/callers.py", "dns:///server:50051"]


def answers(server: str) -> int:
    """How many answers a server has logged; it leaves out some when there are many."""
    return logs(server).count("PredictionService/Predict")


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """Runs `docker compose` in a project of the tests' own, which is gone at the end."""
    stand_ins = {
        service: {"image": BASE, "volumes": [f"{found}:/usr/local/bin/{name}:ro"]}
        for service, name in STAND_INS.items()
        if not has_image(SERVICES[service]["image"]) and (found := program(name))
    }
    override = tmp_path_factory.mktemp("compose") / "stand-ins.yml"
    override.write_text(json.dumps({"services": stand_ins}))
    flags = ("--project-name", PROJECT, "--file", "docker-compose.yml", "--file", str(override))
    # Free ports for all, and the quickest training.
    environment = {
        "PORT": "0",
        "GATEWAY_PORT": "0",
        "PROMETHEUS_PORT": "0",
        "DATASET": "digits",
        "EPOCHS": "1",
    }

    def run(*arguments: str) -> str:
        return docker("compose", *flags, *arguments, env=os.environ | environment)

    clean = ("--profile", "*", "down", "--volumes", "--timeout", "1")
    run(*clean)  # what an interrupted run left
    yield run
    run(*clean)


@pytest.fixture(scope="module")
def one(compose: Compose) -> str:
    """The address of what `docker compose up --wait` serves."""
    compose("up", "--wait")
    return compose("port", "server", "50051")


@pytest.fixture(scope="module")
def three(compose: Compose) -> list[str]:
    """The containers of three servers, with a balancer in front of them where there is one."""
    profile = ("--profile", "scale") if has("balancer") else ()
    compose(*profile, "up", "--wait", "--scale", "server=3")
    return compose("ps", "--quiet", "server").splitlines()


def client(address: str, *arguments: str) -> Any:
    """What the CLI on this machine says, as JSON."""
    command = [sys.executable, "-m", "client", *arguments, "--server", address, "--json"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def get(url: str) -> Any:
    """The JSON at an http URL."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - as its one sentence says
        return json.loads(answer.read())


def test_the_cli_asks_it_from_the_host(one: str) -> None:
    """It is healthy, and recognises the samples."""
    assert client(one, "health")["status"] == "SERVING"
    answers = client(one, "predict", "--samples")["predictions"]
    assert [answer["digit"] for answer in answers] == list(range(10))


def test_it_serves_as_it_was_measured(one: str, mnist: Path) -> None:
    """On all test images it is right as often as at export, to the image."""
    found = client(one, "evaluate", "--data", str(mnist), "--mode", "batch")
    assert found["images"] == 10_000
    assert found["accuracy"] == found["expected_accuracy"]


@pytest.mark.usefixtures("one")
def test_the_cli_asks_it_from_a_container(compose: Compose) -> None:
    """The client's image finds the server by its name."""
    assert compose("run", "--rm", "--no-deps", "client", "health") == "SERVING"
    assert "answered by digitnet/1" in compose("run", "--rm", "--no-deps", "client")


@pytest.mark.usefixtures("one")
def test_its_limits_hold(compose: Compose) -> None:
    """The engine was told: no write, no capability, no more memory, CPU and processes than this."""
    host = json.loads(docker("inspect", compose("ps", "--quiet", "server")))[0]["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (256 << 20, 10**9, 512)
    assert {port["HostIp"] for ports in host["PortBindings"].values() for port in ports} == {
        "127.0.0.1"
    }


@pytest.mark.usefixtures("one")
def test_the_gateway_answers_for_it(compose: Compose) -> None:
    """Once it is healthy, the samples come with the server's answers."""
    compose("--profile", "gateway", "up", "--wait")
    url = f"http://{compose('--profile', 'gateway', 'port', 'gateway', '8015')}"
    samples = get(f"{url}/samples")["samples"]
    assert [sample["predicted_digit"] for sample in samples] == list(range(10))
    compose("--profile", "gateway", "stop", "gateway")
    left = compose("--profile", "gateway", "ps", "--all", "--quiet", "gateway")
    assert state(left)["ExitCode"] == 0


def test_a_trained_version_answers(compose: Compose, one: str) -> None:
    """The training service writes into the volume from which the running server picks it up."""
    if not has_training_image():
        pytest.skip("no training image of this code: `docker compose build train` (it is large)")
    compose("run", "--rm", "train")
    with DigitClient(one) as digits:
        until(lambda: digits.predict(np.zeros(784)).model_version == 2)
    compose("run", "--rm", "--entrypoint", "rm", "train", "-r", "models/digitnet/2")


def test_a_killed_server_of_three_is_not_missed(three: list[str]) -> None:
    """DigitClient asks all addresses of a name; when one is gone, no call is lost."""
    with calling(*in_container(f"{PROJECT}_default")) as outcomes:
        until(lambda: all(answers(server) for server in three))
        docker("kill", three[1])
        seen = answers(three[0])
        until(lambda: answers(three[0]) > seen + 200)
    docker("start", three[1])
    assert not [outcome for outcome in outcomes if not outcome.startswith("1 ")]


@pytest.mark.parametrize("leave", ["kill", "stop"])
def test_the_balancer_spreads_calls_and_loses_none(
    compose: Compose, three: list[str], leave: str
) -> None:
    """It spreads the calls of one connection over all servers, and those of one that leaves."""
    need("balancer")
    address = compose("port", "balancer", "50051")
    until(lambda: all(is_healthy(server) for server in three))
    before = Counter({server: answers(server) for server in three})
    with calling(sys.executable, "-m", "tests.callers", address, "--plain") as outcomes:
        until(lambda: all(answers(server) > before[server] for server in three))
        docker(leave, three[2])
        seen = answers(three[0])
        until(lambda: answers(three[0]) > seen + 200)
    docker("start", three[2])
    assert not [outcome for outcome in outcomes if not outcome.startswith("1 ")]


def second_version(models: Path) -> None:
    """Adds a version to a models directory whose logits are all higher by one."""
    model = onnx.load(shutil.copytree(models / "digitnet/1", models / "digitnet/2") / "model.onnx")
    bias = next(
        weights for weights in reversed(model.graph.initializer) if list(weights.dims) == [10]
    )
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
    onnx.save(model, models / "digitnet/2/model.onnx")
    with np.load(models / "digitnet/2/golden.npz") as golden:
        pixels, logits = golden["pixels"], golden["logits"]
    np.savez(models / "digitnet/2/golden.npz", pixels=pixels, logits=logits + 1)


@pytest.fixture
def network() -> Iterator[tuple[str, list[str]]]:
    """A network whose addresses are given out by the test, and six of them."""
    name = f"{PROJECT}-rolling"
    docker("network", "create", name)
    found = json.loads(docker("network", "inspect", name))[0]["IPAM"]["Config"][0]["Subnet"]
    docker("network", "rm", name)
    docker("network", "create", "--subnet", found, name)
    yield name, [str(ip_network(found)[host]) for host in range(101, 107)]
    containers = docker("ps", "--all", "--quiet", "--filter", f"network={name}").splitlines()
    docker("rm", "--force", *containers)
    docker("network", "rm", name)


def test_a_rolling_update_loses_no_call(
    network: tuple[str, list[str]], bundled_models: Path, tmp_path: Path
) -> None:
    """Three servers make way for three others, elsewhere, with a new version of the model.

    Every answer names the version whose logits it has.
    """
    name, addresses = network
    models = shutil.copytree(bundled_models, tmp_path / "models")
    second_version(models)
    new = ("--volume", f"{readable(models)}:/app/models:ro")

    def start(address: str, *flags: str) -> str:
        place = ("--network", name, "--ip", address, "--network-alias", "server")
        return docker("run", "--detach", *place, *flags, SERVER)

    servers = [start(address) for address in addresses[:3]]
    until(lambda: all(is_healthy(server) for server in servers))
    with calling(*in_container(name)) as outcomes:
        until(lambda: all(answers(server) for server in servers))
        for server, address in zip(servers, addresses[3:], strict=True):
            successor = start(address, *new)
            until(lambda: is_healthy(successor))  # noqa: B023 - called at once
            docker("stop", server)
            assert state(server)["ExitCode"] == 0
        until(lambda: answers(successor) > 100)
    first, second = sorted(outcome.split() for outcome in outcomes)
    assert (first[0], second[0]) == ("1", "2")
    assert float(second[1]) == pytest.approx(float(first[1]) + 1)


def test_prometheus_finds_every_server(compose: Compose, three: list[str]) -> None:
    """It scrapes them all under the name that the alerts expect, and has read the alerts."""
    need("prometheus")
    compose("--profile", "observe", "up", "--detach", "--scale", "server=3", "prometheus", "server")
    api = f"http://{compose('port', 'prometheus', '9090')}/api/v1"

    def up() -> list[str]:
        with contextlib.suppress(OSError):  # until it listens
            found = get(f'{api}/query?query=up{{job="mnist-server"}}')["data"]["result"]
            return [one["value"][1] for one in found]
        return []

    until(lambda: up() == ["1"] * len(three))
    groups = get(f"{api}/rules")["data"]["groups"]
    rules = [rule["name"] for group in groups for rule in group["rules"]]
    assert "MnistServerDown" in rules
