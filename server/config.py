"""What can be chosen when a server starts; `server.cli` documents and checks each flag."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The flags of `python -m server`."""

    host: str
    port: int  # 0 binds a free one
    models: Path
    default_model: str
    max_batch: int  # images
    max_queue: int  # calls
    intra_op_threads: int
    metrics_port: int | None
    drain_seconds: float
    log_format: str
