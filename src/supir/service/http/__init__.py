"""`supir serve` over HTTP: what stands between `supir.service` and the network. The room that imports fastapi.

middleware: request ID, origin, errors as sentences -> routes: who asks, what for -> Engine
"""

from supir.errors import MissingExtraError

try:
    import fastapi
    import prometheus_client
    import uvicorn
except ImportError as error:
    raise MissingExtraError(error.name or "fastapi", "serve", "the service") from error
