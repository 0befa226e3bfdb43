"""A study trains one seed after the other, and stops when it is told to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from conftest import until


def test_ctrl_c_ends_a_study(project: Path, tmp_path: Path) -> None:
    """Ctrl-C ends the run under way as well, and no other seed is begun."""
    command = [sys.executable, "-m", "training", "study", "--arch=light", "--dataset=digits"]
    command += [f"--data={tmp_path / 'data'}", f"--runs={tmp_path / 'runs'}", "--jobs=1"]
    # Shells start what runs in the background with SIGINT ignored, and the child would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*command, f"--results={tmp_path / 'results'}", "--recipe=best", "--seeds=9"],
        cwd=project,
        start_new_session=True,  # whose processes all hear Ctrl-C, as in a terminal
        stderr=subprocess.PIPE,
        text=True,
    )
    until((tmp_path / "runs/light-best-0/checkpoint.pt").exists)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.strip() == "Aborted!"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["light-best-0"]
    assert not (tmp_path / "results").exists()
