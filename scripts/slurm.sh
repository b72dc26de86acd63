#!/bin/bash
# Train on a cluster with Slurm, on one node or several, and go on after preemption and after the time limit:
#
#   sbatch --gpus-per-node=4 scripts/slurm.sh pretrain.py experiment=maze_hard run_name=mine
#   sbatch --nodes=2 --gpus-per-node=8 scripts/slurm.sh pretrain.py experiment=arc1 run_name=arc1
#
# One agent of torchrun runs on each node, and starts a process for each GPU. The folder of the program must be on a disk
# that all nodes share. A signal of Slurm (preemption, or USR1 five minutes before the time limit) ends the run after its
# step, with a checkpoint; the job then puts itself into the queue again, and goes on from there (load_checkpoint=latest,
# which is added to the command). A run that ends by itself, or with an error, is not queued again.
#
# Environment, all optional:
#   PYTHON      the interpreter; by default that of .venv, else `python`
#   RANKS       processes a node; by default its GPUs
#   NODES       nodes for torchrun, such as 1:2 to go on with one of two when the other is lost; by default all
#   RDZV_CONF   further options of the rendezvous, such as last_call_timeout=10
#
#SBATCH --job-name=reasoner
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300

set -u
if [[ $# -eq 0 || $1 != *.py ]]; then
    echo "usage: sbatch [OPTIONS] scripts/slurm.sh PROGRAM.py OVERRIDES" >&2
    exit 2
fi
if [[ -z ${SLURM_JOB_ID:-} ]]; then
    echo "error: this is no job of Slurm (SLURM_JOB_ID is not set): start it with sbatch" >&2
    exit 2
fi

python=${PYTHON:-}
if [[ -z $python ]]; then
    if [[ -x .venv/bin/python ]]; then python=.venv/bin/python; else python=python; fi
fi
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${nodes%%$'\n'*}
port=$((20000 + SLURM_JOB_ID % 30000)) # several jobs may share a node

case $1 in
*pretrain*.py) set -- "$@" load_checkpoint=latest ;;
esac

asked="" # the signal that asks the job to end
pass_on() {
    asked=$1
    interrupted=1
    kill -USR1 "$launcher" 2>/dev/null # srun passes it on to the agents, and these to the ranks
}

srun --kill-on-bad-exit=0 "$python" -m torch.distributed.run \
    --nnodes="${NODES:-$SLURM_NNODES}" \
    --nproc-per-node="${RANKS:-${SLURM_GPUS_ON_NODE:-1}}" \
    --rdzv-backend=c10d \
    --rdzv-endpoint="$first:$port" \
    --rdzv-id="$SLURM_JOB_ID" \
    ${RDZV_CONF:+--rdzv-conf="$RDZV_CONF"} \
    --max-restarts=3 \
    --signals-to-handle=SIGTERM,SIGINT,SIGUSR1,SIGXCPU \
    "$@" &
launcher=$!
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM

interrupted=1
while [[ -n $interrupted ]]; do # a signal ends the wait, and not the launcher
    interrupted=""
    wait "$launcher"
    status=$?
done

if [[ $status -ne 0 && -n $asked ]]; then
    echo "stopped by SIG$asked: job $SLURM_JOB_ID goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID" || echo "it is not queued again; start it with the same command" >&2
    exit 75
fi
exit "$status"
