# The programs with all that they need, for machines with NVIDIA GPUs and for CPUs:
#
#   docker build --tag reasoner .
#   docker run --rm --init --gpus all --shm-size 8g --volume "$PWD/data:/app/data" \
#       --volume "$PWD/checkpoints:/app/checkpoints" reasoner pretrain.py experiment=quickstart
#   docker run --rm --init --gpus all --shm-size 8g reasoner -m torch.distributed.run --nproc-per-node 4 pretrain.py experiment=maze_hard
FROM python:3.12-slim
# the compiler makes the fused operators for CPUs, and what torch.compile makes
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.txt ./
RUN python -m pip install --no-cache-dir --requirement requirements.txt
COPY . ./
# SIGTERM of `docker stop` ends a run after its step, with a checkpoint; give it time: docker stop --time 120
STOPSIGNAL SIGTERM
ENTRYPOINT ["python"]
CMD ["pretrain.py", "--help"]
