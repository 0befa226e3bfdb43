"""What can be chosen when a server starts; `server.cli` documents and checks each flag."""

from dataclasses import asdict, dataclass
from pathlib import Path

ENVIRONMENT_PREFIX = "MNIST_SERVER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The flags of `python -m server`."""

    host: str
    port: int  # 0 binds a free one
    models: Path
    default_model: str
    allow_model_control: bool
    workers: int  # processes
    max_batch: int  # images
    max_queue: int  # calls
    intra_op_threads: int
    metrics_port: int | None
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    auth_token_file: Path | None
    allow_plaintext_tokens: bool
    max_connection_age: float  # seconds
    drain_seconds: float
    log_format: str

    def environment(self) -> dict[str, str]:
        """Returns the variables from which a server takes this very configuration."""
        return {
            f"{ENVIRONMENT_PREFIX}_{name.upper()}": str(value)
            for name, value in asdict(self).items()
            if value is not None
        }
