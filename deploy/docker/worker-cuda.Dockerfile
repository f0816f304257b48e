# A worker with faster-whisper on an NVIDIA GPU. From the root of a checkout:
#   docker build -f deploy/docker/worker-cuda.Dockerfile -t jobbridge-worker-cuda .
#   docker run --init --gpus all -v /models:/models:ro -e BRIDGE_URL=https://… -e BRIDGE_KEY=… jobbridge-worker-cuda \
#     --content-types audio,video --handler bridge_worker.handlers.whisper:Whisper \
#     --option model=/models/large-v3 --option device=cuda
FROM nvidia/cuda:12.4.1-cudnn-runtime-ubuntu22.04
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home worker
WORKDIR /src
COPY client ./client
COPY worker ./worker
COPY deploy/docker/install_worker.sh ./
RUN ./install_worker.sh /opt/worker whisper && rm -rf /src
USER worker
WORKDIR /home/worker
ENV PATH=/opt/worker/bin:$PATH
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --start-period=600s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9100/healthz', timeout=5)"]
ENTRYPOINT ["bridge-worker", "--health-port", "9100", "--drain-seconds", "60"]
