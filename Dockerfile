# `docker build .` makes the server's image; `--target` client, gateway and training make the
# others. BASE may be any Debian or Ubuntu whose `python` is 3.11 or newer.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS base
ENV PATH=/opt/venv/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1
WORKDIR /app
LABEL org.opencontainers.image.title="mnist-inference" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"

# Everything is installed and compiled in stages on this one, and copied from there: the
# images get no pip of ours, no cache and no build tool.
FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_PYTHON=/opt/venv/bin/python \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_QUIET=1
RUN python -m venv --without-pip /opt/venv


FROM build AS training-build
# Wheels that lie in wheels/ come first: a CPU-only torch there saves gigabytes of CUDA.
COPY pyproject.toml wheel[s]/ /tmp/
RUN --mount=type=cache,target=/root/.cache/pip cd /tmp \
 && python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["training"], sep="\n")' > requirements.txt \
 && pip install --find-links . -r requirements.txt
COPY training training
COPY models /volumes/models
RUN mkdir /volumes/data /volumes/runs \
 && python -m compileall -q . \
 && chmod -R u=rwX,go=rX . /volumes

FROM base AS training
COPY --from=training-build /opt/venv /opt/venv
COPY --from=training-build /app /app
COPY --from=training-build --chown=10001:10001 /volumes .
ARG REVISION=unknown
LABEL org.opencontainers.image.description="Trains small MNIST networks and exports them to ONNX." \
      org.opencontainers.image.revision=$REVISION
USER 10001:10001
ENV MPLCONFIGDIR=/tmp/matplotlib
# As Ctrl-C: what is trained by then can be resumed.
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "-m", "training"]
CMD ["train", "export"]


FROM build AS client-build
COPY client/requirements.txt /tmp/
RUN --mount=type=cache,target=/root/.cache/pip pip install --require-hashes -r /tmp/requirements.txt
COPY proto proto
COPY client client
RUN python -m compileall -q . && chmod -R u=rwX,go=rX .

FROM base AS client
COPY --from=client-build /opt/venv /opt/venv
COPY --from=client-build /app /app
ARG REVISION=unknown
LABEL org.opencontainers.image.description="Asks an MNIST inference server about digits." \
      org.opencontainers.image.revision=$REVISION
USER 10001:10001
ENV MPLCONFIGDIR=/tmp/matplotlib
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "-m", "client"]
CMD ["--help"]


FROM build AS gateway-build
COPY gateway/requirements.txt /tmp/
RUN --mount=type=cache,target=/root/.cache/pip pip install --require-hashes -r /tmp/requirements.txt
COPY proto proto
COPY client client
COPY gateway gateway
RUN python -m compileall -q . && chmod -R u=rwX,go=rX .

FROM base AS gateway
COPY --from=gateway-build /opt/venv /opt/venv
COPY --from=gateway-build /app /app
ARG REVISION=unknown
LABEL org.opencontainers.image.description="Answers HTTP for an MNIST inference server." \
      org.opencontainers.image.revision=$REVISION
USER 10001:10001
ENV MNIST_GATEWAY_HOST=0.0.0.0
EXPOSE 8015
HEALTHCHECK --interval=2s --timeout=3s --retries=3 CMD ["python", "-m", "gateway.healthcheck"]
ENTRYPOINT ["python", "-m", "gateway"]


FROM build AS server-build
COPY server/requirements.txt /tmp/
RUN --mount=type=cache,target=/root/.cache/pip pip install --require-hashes -r /tmp/requirements.txt
# What serving never opens: onnxruntime's library for programs in C, of which its Python
# module has a copy inside (29 MB), its tools for making models (4 MB), numpy's for wrapping
# Fortran (2 MB), tests and C headers (11 MB).
RUN cd /opt/venv/lib/python3*/site-packages \
 && rm -r onnxruntime/capi/libonnxruntime.so.* onnxruntime/quantization onnxruntime/tools \
          onnxruntime/transformers numpy/distutils numpy/f2py \
 && find . \( -name tests -o -name include -o -name '*.pyi' -o -name '*.a' \) -prune -exec rm -r {} +
COPY proto proto
COPY server server
COPY models /volumes/models
RUN python -m compileall -q . && chmod -R u=rwX,go=rX . /volumes

FROM base AS server
COPY --from=server-build /opt/venv /opt/venv
COPY --from=server-build /app /app
# The user's own: training writes to the volume that starts as a copy of them.
COPY --from=server-build --chown=10001:10001 /volumes .
ARG REVISION=unknown
LABEL org.opencontainers.image.description="Serves MNIST models over gRPC with onnxruntime." \
      org.opencontainers.image.revision=$REVISION
USER 10001:10001
# `docker stop` waits for ten seconds before it kills.
ENV MNIST_SERVER_HOST=0.0.0.0 \
    MNIST_SERVER_DRAIN_SECONDS=8
EXPOSE 50051
HEALTHCHECK --interval=2s --timeout=3s --retries=3 CMD ["python", "-m", "server.healthcheck"]
ENTRYPOINT ["python", "-m", "server"]
