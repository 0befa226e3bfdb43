"""The gateway does what its own OpenAPI document says, whatever it is sent."""

from typing import Any

import httpx
import pytest
import schemathesis
from conftest import Server
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error, positive_data_acceptance

ASK = ("/predict", "/predict/batch", "/predict/image", "/samples")  # what there is to get wrong
LOOK = ("/healthz", "/readyz", "/models")
# A deadline may be too short for any answer, and a picture may show nothing.
EXCEPT: dict[str, list[Any]] = {path: [not_a_server_error] for path in ASK}
EXCEPT["/predict/image"].append(positive_data_acceptance)
RIGHT, WRONG = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
def document(gateway: Server) -> schemathesis.BaseSchema:
    """What the gateway says of itself."""
    return schemathesis.openapi.from_url(f"{gateway.address}/openapi.json")


def test_everything_is_documented(gateway: Server) -> None:
    """The document lists the paths that are tested here, and no others."""
    paths = httpx.get(f"{gateway.address}/openapi.json").json()["paths"]
    assert set(paths) == {*ASK, *LOOK}


@pytest.mark.parametrize("mode", [RIGHT, WRONG], ids=["right", "wrong"])
@pytest.mark.parametrize("path", ASK)
def test_it_does_as_it_says(
    document: schemathesis.BaseSchema, path: str, mode: GenerationMode
) -> None:
    """What is right is answered and what is wrong refused, and each answer is as it is listed."""
    (operation,) = document[path].values()

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def sent(case: schemathesis.Case[Any]) -> None:
        answer = case.call()
        assert answer.status_code not in {500, 502, 503}
        case.validate_response(answer, excluded_checks=EXCEPT[path])

    sent()


@pytest.mark.parametrize("path", LOOK)
def test_a_look_is_as_it_says(document: schemathesis.BaseSchema, path: str) -> None:
    """What takes no parameters answers as it is listed."""
    document[path]["GET"].Case().call_and_validate()
