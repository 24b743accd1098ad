"""`supir serve` over HTTP: what stands between `supir.service` and the network. The room that imports fastapi.

middleware: request ID, origin, errors as sentences -> routes: who asks, what for -> Engine
"""
