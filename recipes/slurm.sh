#!/usr/bin/env bash
# One library, built by as many Slurm tasks as the array has elements; all do the same.
#
#   sbatch --array=1-16 recipes/slurm.sh recipe.toml
#
# No element has a share of its own: each claims what nobody works on, so any number of them may start late, end early
# or be requeued. Submit it again until `lorary status` says that all is done. Give a GPU to each, where there are some:
# sbatch --gpus=1 --array=... The library's directory must be on a disk that all nodes share.
#SBATCH --job-name=lorary
#SBATCH --cpus-per-task=4
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
set -euo pipefail
recipe=${1:?usage: sbatch --array=1-N recipes/slurm.sh RECIPE}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-4}

# One worker an element, with all cores of it: the same number everywhere, so that the bits are the same.
exec "${LORARY:-lorary}" build --recipe "$recipe" --workers 1 --threads "$OMP_NUM_THREADS"
