#!/usr/bin/env bash
# Show in one call of under 9 minutes what a GPU must show: correctness, then speed.
#
#   benchmarks/gpu_session.sh [FOLDER]            write FOLDER/gpu.json (default: results)
#   benchmarks/gpu_session.sh --dry-run [FOLDER]  the same on a CPU and tiny: it tests the code,
#                                                 and writes FOLDER/gpu.dry-run.json
#
# A machine without a GPU makes a dry run by itself. The exit status is 1 if a check or a row fails.
# Then `python -m benchmarks.gpu_page FOLDER/gpu.json` writes the table of docs/performance.md.
set -uo pipefail
TOTAL_S=515 CHECKS_S=150

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 0
fi
tiny=()
if [[ ${1:-} == --dry-run ]]; then
    tiny=(--tiny)
    shift
elif [[ ! -e /dev/nvidiactl ]] && ! nvidia-smi -L >/dev/null 2>&1; then
    echo "There is no GPU (nvidia-smi -L), so this is a dry run on the CPU." >&2
    tiny=(--tiny)
fi
if [[ $# -gt 1 || ${1:-} == -* ]]; then
    echo "gpu_session.sh: unknown argument ${*: -1}; allowed: --dry-run, and one folder" >&2
    exit 2
fi
folder=${1:+$(realpath -m "$1")}
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
folder=${folder:-$PWD/results}
mkdir -p "$folder" || exit 2
visible=${CUDA_VISIBLE_DEVICES-0}
export CUDA_VISIBLE_DEVICES=${visible%%,*}  # one GPU, the first that the environment allows
python=${PYTHON:-python3}
[[ -z ${PYTHON:-} && -x .venv/bin/python ]] && python=.venv/bin/python
file="$folder/gpu${tiny:+.dry-run}.json"
rm -f "$file"  # results of an earlier session

status=0
timeout --kill-after=10 $((CHECKS_S + 20)) "$python" -m benchmarks.gpu_checks \
    ${tiny[@]+"${tiny[@]}"} --budget "$CHECKS_S" --into "$file" || status=1
left_s=$((TOTAL_S - SECONDS))
timeout --kill-after=10 $((left_s + 5)) "$python" -m benchmarks.gpu \
    ${tiny[@]+"${tiny[@]}"} --budget $((left_s - 25)) --into "$file" || status=1
echo "$file: exit status $status, $SECONDS s"
exit "$status"
