"""The gateway and its server beside the plain arrangement that they replace, in one run.

    python -m bench.gateway

Each arrangement has CPU 0 to itself, gateway and server together; the load comes from
CPU 1. Every figure is the median of several rounds; ratios and differences are taken
within a round, since machines drift. What it finds goes to bench/gateway.json.
"""

from pathlib import Path

from bench.h2load import load, load_http
from bench.observing import cpu_seconds
from bench.records import keep
from bench.servers import LOAD_CPU, OURS, Running, connects, running

ROUNDS = 5
CROWD, CROWD_OF_PLAIN, ALONE = 8000, 3000, 2000  # requests
RESULTS = Path("bench/gateway.json")


def main() -> None:
    """Measures, prints a table and stores it."""
    with running("server", *OURS) as server:
        behind = ("--server", f"127.0.0.1:{server.port}", "--port")
        with (
            running("gateway", *behind, ready=connects) as gateway,
            running("bench.plain", ready=connects) as plain,
        ):
            for port in (gateway.port, plain.port):
                load_http(port, requests=1000, connections=32, cpu=LOAD_CPU)
            rounds = [measure(server, gateway, plain) for _ in range(ROUNDS)]
    packages = ("fastapi", "grpcio", "httptools", "msgspec", "onnxruntime", "torch", "uvicorn")
    keep(RESULTS, rounds, packages)


def measure(server: Running, gateway: Running, plain: Running) -> dict[str, float]:
    """Returns one round's figures."""
    plain_crowd = load_http(plain.port, requests=CROWD_OF_PLAIN, connections=32, cpu=LOAD_CPU)
    before = cpu_seconds(gateway.pid)
    our_crowd = load_http(gateway.port, requests=CROWD, connections=32, cpu=LOAD_CPU)
    own_seconds = cpu_seconds(gateway.pid) - before
    call = load(server.port, "Predict", calls=ALONE, connections=1, streams=1, cpu=LOAD_CPU)
    request = load_http(gateway.port, requests=ALONE, connections=1, cpu=LOAD_CPU)
    return {
        "plain: requests/s, 32 in flight": plain_crowd.per_second,
        "gateway and server: requests/s, 32 in flight": our_crowd.per_second,
        "gateway and server / plain: requests/s": our_crowd.per_second / plain_crowd.per_second,
        "gateway: requests per second of its own CPU": CROWD / own_seconds,
        "gRPC call: p50 µs, one in flight": call.p50_us,
        "through the gateway: p50 µs, one in flight": request.p50_us,
        "the gateway adds: p50 µs": request.p50_us - call.p50_us,
    }


if __name__ == "__main__":
    main()
