"""What Prometheus sees."""

from prometheus_client import Counter, Gauge, Histogram

# In seconds, from 0.5 ms to 10 s.
LATENCY_BUCKETS = (
    *(0.5e-3, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)

requests = Counter("mnist_gateway_requests", "Requests answered.", ["path", "status"])
request_seconds = Histogram(
    "mnist_gateway_request_seconds",
    "What answering a request took, the server behind included.",
    ["path"],
    buckets=LATENCY_BUCKETS,
)
in_flight = Gauge("mnist_gateway_in_flight", "Requests being answered.")
call_images = Histogram(
    "mnist_gateway_call_images",
    "Images that went to the server together.",
    buckets=tuple(2**power for power in range(9)),
)
