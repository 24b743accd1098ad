"""HTTP with time to answer: where the cores are shared, the five seconds that httpx2 waits are few."""

from __future__ import annotations

from functools import partial

import httpx2

SECONDS = 60.0
get, post = partial(httpx2.get, timeout=SECONDS), partial(httpx2.post, timeout=SECONDS)
delete, head = partial(httpx2.delete, timeout=SECONDS), partial(httpx2.head, timeout=SECONDS)
request, stream = partial(httpx2.request, timeout=SECONDS), partial(httpx2.stream, timeout=SECONDS)
