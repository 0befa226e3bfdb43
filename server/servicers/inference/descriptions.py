"""Describes the server and its models in the protocol's terms."""

from proto.inference import grpc_service_pb2 as pb
from server import __version__
from server.model import MODEL_FILE
from server.repository import Entry, Limits, Served
from server.servicers.inference.tensors import INPUT, OUTPUTS, Tensor
from server.statistics import Duration

PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"

# https://github.com/triton-inference-server/server/tree/main/docs/protocol
EXTENSIONS = (
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)

ANY_NUMBER = -1


def server() -> pb.ServerMetadataResponse:
    """Returns what the server calls itself, and what it speaks."""
    return pb.ServerMetadataResponse(
        name="mnist-inference", version=__version__, extensions=EXTENSIONS
    )


def metadata(name: str, versions: list[int]) -> pb.ModelMetadataResponse:
    """Returns what a model takes and gives."""
    return pb.ModelMetadataResponse(
        name=name,
        versions=map(str, versions),
        platform=PLATFORM,
        inputs=[_metadata(INPUT)],
        outputs=[_metadata(output) for output in OUTPUTS],
    )


def _metadata(tensor: Tensor) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.datatype, shape=(ANY_NUMBER, *tensor.shape)
    )


def config(name: str, limits: Limits) -> pb.ModelConfig:
    """Returns how a model is served."""
    return pb.ModelConfig(
        name=name,
        platform=PLATFORM,
        backend=BACKEND,
        version_policy=pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All()),
        max_batch_size=limits.max_batch,
        input=[pb.ModelInput(name=INPUT.name, data_type=INPUT.config, dims=INPUT.shape)],
        output=[
            pb.ModelOutput(name=output.name, data_type=output.config, dims=output.shape)
            for output in OUTPUTS
        ],
        instance_group=[
            pb.ModelInstanceGroup(name=name, count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
        ],
        default_model_filename=MODEL_FILE,
        dynamic_batching=pb.ModelDynamicBatching(
            default_queue_policy=pb.ModelQueuePolicy(
                allow_timeout_override=True, max_queue_size=limits.max_queue
            )
        ),
    )


def statistics(served: Served) -> pb.ModelStatistics:
    """Returns what a version has done since it was loaded."""
    found = served.metrics.statistics()
    # Not told apart from the wait before a run and the answer after it. Triton's
    # perf_analyzer stops where these counts are not those of compute_infer.
    untold = pb.StatisticDuration(count=found.compute.count)
    return pb.ModelStatistics(
        name=served.name,
        version=str(served.version),
        last_inference=round(found.last_run_ended * 1000),
        inference_count=found.images,
        execution_count=sum(runs.count for runs in found.batches.values()),
        inference_stats=pb.InferStatistics(
            success=pb.StatisticDuration(
                count=found.compute.count, ns=found.queue.ns + found.compute.ns
            ),
            fail=_duration(found.fail),
            queue=_duration(found.queue),
            compute_input=untold,
            compute_infer=_duration(found.compute),
            compute_output=untold,
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=images, compute_infer=_duration(runs))
            for images, runs in sorted(found.batches.items())
        ],
    )


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)


def index(entry: Entry) -> pb.RepositoryIndexResponse.ModelIndex:
    """Returns a version's state."""
    return pb.RepositoryIndexResponse.ModelIndex(
        name=entry.name,
        version=str(entry.version),
        state="READY" if entry.served else "UNAVAILABLE",
        reason=entry.reason,
    )
