"""The server beside a handler that does nothing, and beside bare onnxruntime, in one run.

    python -m bench.serving

The servers have CPU 0 to themselves, the load comes from CPU 1. Every figure is the
median of several rounds; ratios are taken within a round, since machines drift.
What it finds goes to bench/serving.json.
"""

import subprocess
import sys
from pathlib import Path

from bench.h2load import load
from bench.observing import asking_health, cpu_share
from bench.records import keep
from bench.servers import LOAD_CPU, MODELS, OURS, SERVER_CPU, Running, running

ROUNDS = 5
BATCH = 64
IDLE_SECONDS = 30
WARM_UP_CALLS = 10_000  # by then all threads that the loads need are there
RESULTS = Path("bench/serving.json")


def main() -> None:
    """Measures, prints a table and stores it."""
    with running("bench.noop") as noop, running("server", *OURS) as ours:
        idle = cpu_share(ours.pid, IDLE_SECONDS)
        load(ours.port, "Predict", calls=WARM_UP_CALLS, connections=4, streams=40, cpu=LOAD_CPU)
        rounds = [measure(noop, ours) for _ in range(ROUNDS)]
    keep(
        RESULTS,
        rounds,
        ("grpcio", "onnxruntime", "protobuf"),
        idle_share_of_a_core=round(idle, 4),
    )


def measure(noop: Running, ours: Running) -> dict[str, float]:
    """Returns one round's figures."""
    ports = (noop.port, ours.port)
    noop_crowd, our_crowd = (
        load(port, "Predict", calls=8000, connections=4, streams=8, cpu=LOAD_CPU) for port in ports
    )
    infer_crowd = load(ours.port, "ModelInfer", calls=8000, connections=4, streams=8, cpu=LOAD_CPU)
    noop_alone, our_alone = (
        load(port, "Predict", calls=2000, connections=1, streams=1, cpu=LOAD_CPU) for port in ports
    )
    with asking_health(ours.port) as health:
        noop_flood, our_flood = (
            load(port, "Predict", calls=8000, connections=4, streams=40, cpu=LOAD_CPU)
            for port in ports
        )
    noop_batches, batches = (
        load(port, "PredictBatch", images=BATCH, calls=500, connections=1, streams=4, cpu=LOAD_CPU)
        for port in ports
    )
    our_images = batches.per_second * BATCH
    bare_images = bare_images_per_second()
    return {
        "no-op: calls/s, 32 in flight": noop_crowd.per_second,
        "Predict: calls/s, 32 in flight": our_crowd.per_second,
        "Predict / no-op: calls/s": our_crowd.per_second / noop_crowd.per_second,
        "ModelInfer: calls/s, 32 in flight": infer_crowd.per_second,
        "ModelInfer / Predict: calls/s": infer_crowd.per_second / our_crowd.per_second,
        "no-op: p50 µs, one in flight": noop_alone.p50_us,
        "Predict: p50 µs, one in flight": our_alone.p50_us,
        "Predict / no-op: p50": our_alone.p50_us / noop_alone.p50_us,
        "Predict: calls/s, 160 in flight": our_flood.per_second,
        "Predict: 160 / 32 in flight": our_flood.per_second / our_crowd.per_second,
        "no-op: 160 / 32 in flight": noop_flood.per_second / noop_crowd.per_second,
        "health: slowest ms, 160 in flight": max(health),
        "server: MiB resident": ours.resident_mib(),
        f"bare onnxruntime: images/s in {BATCH}s": bare_images,
        f"no-op: images/s in {BATCH}s": noop_batches.per_second * BATCH,
        f"PredictBatch: images/s in {BATCH}s": our_images,
        "PredictBatch / bare onnxruntime": our_images / bare_images,
    }


def bare_images_per_second() -> float:
    """Returns what onnxruntime alone does on the server's CPU, in a process of its own."""
    code = f"""
import time, numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession({str(MODELS / "tiny/1/model.onnx")!r}, options)
pixels = np.random.default_rng(0).random(({BATCH}, 1, 28, 28), np.float32)
session.run(None, {{"pixels": pixels}})
started = time.perf_counter()
for _ in range(1000):
    session.run(None, {{"pixels": pixels}})
print({BATCH} * 1000 / (time.perf_counter() - started))
"""
    command = ["taskset", "--cpu-list", str(SERVER_CPU), sys.executable, "-c", code]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


if __name__ == "__main__":
    main()
