"""The plain arrangement: FastAPI takes lists of floats, and the handler runs the PyTorch model.

    python -m bench.plain PORT

It has what makes it fast and costs no thought: uvloop, httptools, one thread for
PyTorch, and a handler that runs in the event loop and not in a thread of its own.
"""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from training.models import ARCHITECTURES


class Request(BaseModel):
    """An image."""

    pixels: list[list[float]]


class Answer(BaseModel):
    """What the model sees in it."""

    predicted_digit: int
    confidence: float
    probabilities: list[float]


# Speed does not depend on what the weights are.
model = ARCHITECTURES["tiny"]().eval()
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Answer:
    """Answers one image."""
    with torch.inference_mode():
        probabilities = model(torch.tensor(request.pixels)[None, None]).softmax(1)[0].tolist()
    confidence = max(probabilities)
    return Answer(
        predicted_digit=probabilities.index(confidence),
        confidence=confidence,
        probabilities=probabilities,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    uvicorn.run(
        app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, ws="none"
    )
