"""The service's calls."""

import math
from collections.abc import Iterator, Mapping
from reprlib import repr as shortened  # what is quoted may be megabytes

import grpc

from proto.inference import grpc_service_pb2 as pb
from proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceServicer
from server.errors import Forbidden, InvalidInput, ModelNotFound, NotReady
from server.interceptors import to_status
from server.repository import NAME, VERSION, Entry, Served
from server.servicers.common import Core
from server.servicers.inference import descriptions, inputs, outputs, parameters


class InferenceServicer(GRPCInferenceServiceServicer):
    """`inference.GRPCInferenceService`.

    Args:
        core: the way to the models.
        allow_model_control: whether callers may load and unload models.
    """

    def __init__(self, core: Core, *, allow_model_control: bool) -> None:
        self._core = core
        self._repository = core.repository
        self._allow_model_control = allow_model_control

    def ServerLive(
        self, request: pb.ServerLiveRequest, context: grpc.ServicerContext
    ) -> pb.ServerLiveResponse:
        """Answers."""
        return pb.ServerLiveResponse(live=True)

    def ServerReady(
        self, request: pb.ServerReadyRequest, context: grpc.ServicerContext
    ) -> pb.ServerReadyResponse:
        """Says what health says of the whole server."""
        default = self._repository.newest(self._repository.default)
        return pb.ServerReadyResponse(ready=default is not None)

    def ModelReady(
        self, request: pb.ModelReadyRequest, context: grpc.ServicerContext
    ) -> pb.ModelReadyResponse:
        """Says whether ModelInfer would be answered; as in Triton no error where not."""
        try:
            self._served(request.name, request.version)
        except (ModelNotFound, NotReady):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ServerMetadataResponse:
        """Describes the server."""
        return descriptions.server()

    def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ModelMetadataResponse:
        """Describes what a model takes and gives."""
        served = self._served(request.name, request.version)
        if request.version:
            return descriptions.metadata(served.name, [served.version])
        ready = [entry.version for entry in self._entries(served.name) if entry.served]
        return descriptions.metadata(served.name, ready)

    def ModelConfig(
        self, request: pb.ModelConfigRequest, context: grpc.ServicerContext
    ) -> pb.ModelConfigResponse:
        """Describes how a model is served."""
        served = self._served(request.name, request.version)
        return pb.ModelConfigResponse(
            config=descriptions.config(served.name, self._repository.limits)
        )

    def ModelInfer(
        self, request: pb.ModelInferRequest, context: grpc.ServicerContext
    ) -> pb.ModelInferResponse:
        """Answers up to `max_batch` images."""
        name = _name(request.model_name, "model_name")
        version = _version(request.model_version, "model_version")
        settings = parameters.read(request.parameters, "parameters", parameters.REQUEST)
        wanted = outputs.wanted(request.outputs)
        pixels = inputs.read(request, self._repository.limits.max_batch)
        timeout = settings.get("timeout", 0) / 1e6 or math.inf
        served, answers = self._core.answer(name, version, pixels, context, timeout)
        response = outputs.response(answers, wanted, raw=bool(request.raw_input_contents))
        response.model_name, response.model_version = served.name, str(served.version)
        response.id = request.id
        return response

    def ModelStreamInfer(
        self, request_iterator: Iterator[pb.ModelInferRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        """Answers requests as they come; a bad one is answered with its error."""
        with self._core.stream():
            for request in request_iterator:
                yield self._answer_item(request, context)

    def _answer_item(
        self, request: pb.ModelInferRequest, context: grpc.ServicerContext
    ) -> pb.ModelStreamInferResponse:
        try:
            response = self.ModelInfer(request, context)
        except Exception as error:  # noqa: BLE001 - an item's failure must not end the stream
            # The id stays, or nobody would know which of their requests it was.
            return pb.ModelStreamInferResponse(
                error_message=to_status(error).message,
                infer_response=pb.ModelInferResponse(id=request.id),
            )
        response.parameters["triton_final_response"].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response)

    def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: grpc.ServicerContext
    ) -> pb.ModelStatisticsResponse:
        """Tells what the named versions have done, or all that are ready."""
        if request.version:
            chosen = [self._served(request.name, request.version)]
        else:
            if request.name:
                self._served(request.name, "")
            chosen = [entry.served for entry in self._entries(request.name) if entry.served]
        return pb.ModelStatisticsResponse(model_stats=map(descriptions.statistics, chosen))

    def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: grpc.ServicerContext
    ) -> pb.RepositoryIndexResponse:
        """Lists every version with its state."""
        _only_repository(request.repository_name)
        entries = self._entries()
        return pb.RepositoryIndexResponse(
            models=[
                descriptions.index(entry) for entry in entries if entry.served or not request.ready
            ]
        )

    def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: grpc.ServicerContext
    ) -> pb.RepositoryModelLoadResponse:
        """Loads what lies in the repository under a name, and returns when it answers."""
        self._repository.load(self._controlled(request, parameters.LOAD))
        return pb.RepositoryModelLoadResponse()

    def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: grpc.ServicerContext
    ) -> pb.RepositoryModelUnloadResponse:
        """Takes a model out of service; the calls it has are finished."""
        self._repository.unload(self._controlled(request, parameters.UNLOAD))
        return pb.RepositoryModelUnloadResponse()

    def _served(self, name: str, version: str) -> Served:
        return self._repository.get(_name(name, "name"), _version(version, "version"))

    def _entries(self, name: str = "") -> list[Entry]:
        return [entry for entry in self._repository.entries() if name in {"", entry.name}]

    def _controlled(
        self,
        request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest,
        known: Mapping[str, parameters.Kind],
    ) -> str:
        """Returns the name of the model that is to be loaded or unloaded."""
        if not self._allow_model_control:
            raise Forbidden(
                "This server lets nobody load or unload models: start it with "
                "--allow-model-control, or change what lies in its models directory."
            )
        _only_repository(request.repository_name)
        parameters.read(request.parameters, "parameters", known, strict=True)
        return _name(request.model_name, "model_name")


def _name(name: str, field: str) -> str:
    if not NAME.fullmatch(name):
        raise InvalidInput(
            field,
            f"{shortened(name)} is no model's name: send letters, digits, `.`, `_` and `-`, with a "
            "letter or digit first.",
        )
    return name


def _version(version: str, field: str) -> int:
    """Returns a version's number, 0 for the newest."""
    if not version:
        return 0
    if not VERSION.fullmatch(version):
        raise InvalidInput(
            field,
            f"{shortened(version)} is no version: send a number such as '1', or nothing for the "
            "newest.",
        )
    return int(version)


def _only_repository(name: str) -> None:
    if name:
        raise InvalidInput("repository_name", "there is one repository: leave its name out.")
