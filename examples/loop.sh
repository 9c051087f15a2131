#!/usr/bin/env bash
# The whole loop by hand, one command a stage, in miniature: what `freeprm demo` does at full size.
set -euo pipefail
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT

freeprm sample arithmetic --model solver:base --split train --n-problems 60 --n 8 --max-new-tokens 200 --out "$runs/rollouts"
freeprm grade "$runs/rollouts" --out "$runs/graded"
freeprm train "$runs/graded" --model solver:base --preset embedded --objective ce --out "$runs/prm"
freeprm sample arithmetic --model solver:base --split test --n-problems 20 --n 16 --max-new-tokens 200 --out "$runs/held-out"
freeprm grade "$runs/held-out" --out "$runs/held-out-graded"
freeprm score "$runs/held-out-graded" --prm "$runs/prm" --reward with-reference,without-reference,reference-only --out "$runs/scores"
freeprm select "$runs/scores" --n 1,4,16 --by level --out "$runs/selection"
freeprm evaluate "$runs/scores" --out "$runs/evaluation"
