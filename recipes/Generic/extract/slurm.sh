#!/bin/bash
# A SLURM array over the parts of one corpus, all into one store on the shared file system:
#   sbatch slurm.sh corpus/manifest.csv corpus-features --pools mean,std
# A task that is killed, requeued or run twice does what is missing of its part and nothing else;
# `sbatch --array=17 slurm.sh ...` does one part again.
#SBATCH --array=1-64
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -eu
parts=${PARTS:-64} # those of the array above, also when only some of them are asked for
input=$1 store=$2
shift 2
exec exhubert extract "$input" -o "$store" --part "$SLURM_ARRAY_TASK_ID/$parts" "$@"
