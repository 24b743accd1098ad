# The service in a container. On a processor:    docker build -t supir .
# On NVIDIA's GPUs:  docker build -t supir:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
# docs/containers.md says how it is run, and what of this was not tried.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS wheel
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
# What it needs, as lines for pip: this file changes only when pyproject.toml does, and the layer made of it likewise.
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; e = p['optional-dependencies']; print('\n'.join(p['dependencies'] + e['serve'] + e['lora'] + e['caption'] + e['storage']))" > /wheels/needs.txt

FROM python:${PYTHON}-slim-bookworm
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
COPY constraints.txt /tmp/
# The largest layer first, which changes least; then the other packages; ours, which changes most, last and small.
RUN pip install --constraint /tmp/constraints.txt --index-url "${TORCH_INDEX}" torch
COPY --from=wheel /wheels/needs.txt /tmp/
RUN pip install --constraint /tmp/constraints.txt --requirement /tmp/needs.txt
COPY --from=wheel /wheels/*.whl /tmp/
RUN pip install --no-deps /tmp/*.whl && rm -rf /tmp/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin supir \
    && install -d -o supir -g supir /data

# Everything that is written goes to /data and /tmp, so that the root may be read-only.
ENV HOME=/data XDG_CACHE_HOME=/data/cache HF_HUB_OFFLINE=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8189
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8189/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["supir"]
CMD ["serve", "--host", "0.0.0.0", "--data", "/data/service", "--keys", "/run/secrets/keys"]
