"""`python -m gateway.healthcheck`: exits 0 if the gateway beside it answers, else 1 and says why.

For containers, which ask every few seconds; so it imports none of the gateway's packages.
It reads the gateway's own variables, MNIST_GATEWAY_PORT or PORT and MNIST_GATEWAY_HOST.
"""

import os
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

SECONDS = 2.0


def main() -> None:
    """Asks for /healthz, and ends the process."""
    host = os.environ.get("MNIST_GATEWAY_HOST") or "127.0.0.1"  # 0.0.0.0 leads here, too
    port = os.environ.get("MNIST_GATEWAY_PORT") or os.environ.get("PORT") or "8015"
    try:
        connection = HTTPConnection(host, int(port), timeout=SECONDS)
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, HTTPException, ValueError) as error:
        sys.exit(f"No answer from the gateway: {error}.")
    if status != HTTPStatus.OK:
        sys.exit(f"The gateway answers with {status}.")


if __name__ == "__main__":
    main()
