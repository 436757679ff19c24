#!/bin/bash
# Eight ranks on two nodes of four GPUs each: sbatch slurm.sh. Change: the modules, the paths, how your cluster names GPUs.
#SBATCH --job-name=kto
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-task=1
#SBATCH --gpu-bind=single:1
#SBATCH --time=08:00:00
#SBATCH --requeue
set -euo pipefail

module load openmpi node

# After a requeue the run goes on from its last good checkpoint.
resume=
compgen -G "$SCRATCH/aligned/checkpoint-*" > /dev/null && resume=--resume_from_checkpoint

# srun starts the ranks itself, each with one GPU to see where cgroup.conf has ConstrainDevices=yes (Vulkan does not read
# CUDA_VISIBLE_DEVICES). mpirun does too, where Open MPI knows of Slurm:
#   mpirun npx kto-webgpu train ...
srun --mpi=pmix --kill-on-bad-exit=1 npx kto-webgpu train \
  --model_name_or_path "$SCRATCH/model" \
  --dataset_name "$SCRATCH/feedback.jsonl" \
  --output_dir "$SCRATCH/aligned" $resume
