#!/usr/bin/env bash
#SBATCH --job-name=joulebed
#SBATCH --nodes=5
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
# A Ray cluster for the length of a job: the first machine has the head and the orchestrator, the others a testbed each.
# Not tried on a Slurm cluster by the makers of JouleBed. Submit it in the folder of the experiment, with the
# environment active: sbatch slurm.sh exp.py
set -euo pipefail
config=$1
head=$(hostname)
port=6379
RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0
export JOULEBED_RAY_DATA=${JOULEBED_RAY_DATA:-/tmp/joulebed-$USER}

ray start --head --node-ip-address="$head" --port="$port" --num-cpus=0 --num-gpus=0
srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
  ray start --address="$head:$port" --resources='{"joulebed_testbed": 1}' --block &
trap 'ray stop' EXIT

# Until all machines are there: the orchestrator takes the testbeds that it finds.
while [[ $(python -c "import ray; ray.init('$head:$port', logging_level='ERROR'); \
print(int(ray.cluster_resources().get('joulebed_testbed', 0)))") -lt $((SLURM_JOB_NUM_NODES - 1)) ]]; do sleep 5; done

# Slurm's SIGTERM five minutes before the end stops it after the current trials; the same job again goes on.
orchestrator run "$config" --ray "$head:$port" --no-progress &
campaign=$!
trap 'kill -TERM "$campaign"' TERM
wait "$campaign" || wait "$campaign"
