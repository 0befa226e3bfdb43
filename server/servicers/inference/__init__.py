"""`inference.GRPCInferenceService`: the Open Inference Protocol, with some of Triton's extensions.

https://github.com/kserve/open-inference-protocol
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from server.servicers.inference.servicer import InferenceServicer

__all__ = ["InferenceServicer"]
