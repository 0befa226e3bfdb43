"""Serves exported MNIST models over gRPC with onnxruntime on the CPU."""

import os

__version__ = "0.1.0"

# onnxruntime carries telemetry with an upload address and reads this when it is
# first imported, so it has to stand before any module of ours imports it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# gRPC's core prints what it also raises, above the one sentence that says what to do.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
