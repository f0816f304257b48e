# A worker with the reference handlers, without a GPU. From the root of a checkout:
#   docker build -f deploy/docker/worker.Dockerfile -t jobbridge-worker .
#   docker run --init -e BRIDGE_URL=https://… -e BRIDGE_KEY=… jobbridge-worker \
#     --handler document=bridge_worker.handlers.documents:handle
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements-worker.txt ./
COPY client ./client
COPY worker ./worker
COPY deploy/docker/install_worker.sh ./
RUN ./install_worker.sh /opt/worker handlers

FROM python:3.13-slim
RUN apt-get update && apt-get install -y --no-install-recommends tesseract-ocr && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home worker
COPY --from=build /opt/worker /opt/worker
USER worker
ENV PATH=/opt/worker/bin:$PATH
# `docker stop` waits 10 s by default, less than a conversion may need: use `--stop-timeout 120`.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --start-period=120s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9100/healthz', timeout=5)"]
ENTRYPOINT ["bridge-worker", "--health-port", "9100", "--drain-seconds", "60"]
