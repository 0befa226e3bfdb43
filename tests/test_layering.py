"""The walls between the packages stand: who may import whom."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

OURS = {"proto", "training", "server", "client", "gateway"}

# What each package may not import; everything else of the outside world is a
# matter of pyproject.toml's extras.
FORBIDDEN = {
    "proto": OURS - {"proto"},
    "training": OURS - {"training"},
    "server": {"torch", "torchvision", "onnx", "training", "client", "gateway"},
    "client": {"torch", "torchvision", "onnx", "onnxruntime", "server", "training", "gateway"},
    "gateway": {"torch", "torchvision", "onnx", "onnxruntime", "grpc"}
    | OURS - {"gateway", "client"},
}


def _imported(package: Path) -> Iterator[tuple[Path, str]]:
    """Yields the file and the top-level name of every absolute import below `package`."""
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            yield from ((path, name.partition(".")[0]) for name in names)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_stays_within_its_walls(project: Path, package: str) -> None:
    """No module imports what its package must not know."""
    imported = list(_imported(project / package))
    assert imported
    assert not [
        f"{path.relative_to(project)} imports {name}"
        for path, name in imported
        if name in FORBIDDEN[package]
    ]


def test_the_server_runs_without_torch(project: Path) -> None:
    """Importing all of the server leaves torch and onnx out of the process."""
    code = "import server.cli, sys; print({'torch', 'onnx', 'training'} & sys.modules.keys())"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True
    )
    assert process.stdout == "set()\n"


@pytest.mark.parametrize("package", ["server", "training"])
def test_telemetry_is_off_before_onnxruntime_is_imported(project: Path, package: str) -> None:
    """Importing a package of ours is enough to switch onnxruntime's telemetry off."""
    code = f"import {package}, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout == "1\n"
