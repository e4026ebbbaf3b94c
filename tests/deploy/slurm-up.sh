#!/usr/bin/env bash
# A throw-away but real SLURM on this machine: munged, slurmctld and several slurmd on loopback, run as root.
# No systemd, no cgroups, no network. Everything lies under one folder; nothing of an installed SLURM is touched.
#
#   slurm-up.sh install | up | down | status | kill-node NAME | start-node NAME
#
#   SLURM_ROOT   the folder (not needed to install)
#   NODES        4; the first half are "gpu", with two fake GPUs each, the rest are "cpu"
#   CPUS, MEM    2 cores and 4000 MB that each node claims to have
#   PORT         18000; the first of NODES + 1 ports
#
# Then: export SLURM_CONF=$SLURM_ROOT/slurm.conf, and use sbatch, squeue, scancel and the others as ever.
set -euo pipefail
ROOT=${SLURM_ROOT:-} NODES=${NODES:-4} CPUS=${CPUS:-2} MEM=${MEM:-4000} PORT=${PORT:-18000}
GPUS=$((NODES / 2))
export SLURM_CONF=$ROOT/slurm.conf

install() {
    exec 9> "${TMPDIR:-/tmp}/petaseg-apt.lock"
    flock 9  # tests run in several processes
    local program missing=
    for program in slurmctld slurmd sbatch munged flock pgrep; do command -v "$program" >/dev/null || missing=yes; done
    [ -n "$missing" ] || return 0
    apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=600 \
        slurmctld slurmd slurm-client munge procps >/dev/null
}

configure() {
    mkdir -p "$ROOT"/{state,spool,log,run,munge}
    chmod 755 "$ROOT" "$ROOT/munge"
    dd if=/dev/urandom of="$ROOT/munge/munge.key" bs=128 count=1 status=none
    chmod 600 "$ROOT/munge/munge.key"
    cat > "$ROOT/slurm.conf" <<CONF
ClusterName=petaseg
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire is also the wait before a job that was queued again may start
AuthInfo=socket=$ROOT/munge/munge.socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
# nodes may claim cores and memory that this machine has not
SlurmdParameters=config_overrides
# a node that does not answer is down, and its jobs start elsewhere, after 10 to 17 s
SlurmdTimeout=5
SlurmctldTimeout=5
MessageTimeout=5
KillWait=2
ReturnToService=2
JobRequeue=1
MinJobAge=300
AccountingStorageType=accounting_storage/none
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool/%n
SlurmctldPidFile=$ROOT/run/slurmctld.pid
SlurmdPidFile=$ROOT/run/slurmd-%n.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd-%n.log
GresTypes=gpu
Licenses=matlab:4
MailProg=/bin/true
CONF
    : > "$ROOT/gres.conf"
    local i gres
    for i in $(seq "$NODES"); do
        gres=
        if [ "$i" -le "$GPUS" ]; then
            gres="Gres=gpu:2 Feature=fake,gpu"  # slurmd insists on devices, of any kind
            echo "NodeName=node$i Name=gpu File=/dev/null Flags=nvidia_gpu_env" >> "$ROOT/gres.conf"
            echo "NodeName=node$i Name=gpu File=/dev/zero Flags=nvidia_gpu_env" >> "$ROOT/gres.conf"
        fi
        echo "NodeName=node$i NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((PORT + i))" \
            "CPUS=$CPUS RealMemory=$MEM TmpDisk=9000 $gres" >> "$ROOT/slurm.conf"
    done
    cat >> "$ROOT/slurm.conf" <<CONF
PartitionName=cpu Nodes=node[$((GPUS + 1))-$NODES] Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=node[1-$GPUS] MaxTime=INFINITE State=UP
CONF
}

start_node() {
    mkdir -p "$ROOT/spool/$1"
    slurmd -N "$1" -f "$ROOT/slurm.conf"
}

tree() {
    echo "$1"
    local child
    for child in $(pgrep -P "$1" || true); do tree "$child"; done
}

kill_node() {  # the loss of a node: slurmd, every slurmstepd of it and all of their jobs' processes, SIGKILL
    local victims step
    victims=$(cat "$ROOT/run/slurmd-$1.pid")
    for step in $(pgrep -x slurmstepd || true); do  # it holds the log of its node's slurmd open
        if ls -l "/proc/$step/fd" 2>/dev/null | grep -q "$ROOT/log/slurmd-$1.log"; then
            victims="$victims $(tree "$step")"
        fi
    done
    # shellcheck disable=SC2086
    kill -9 $victims 2>/dev/null || true
    rm -f "$ROOT/run/slurmd-$1.pid"
}

up() {
    configure
    munged --force --socket="$ROOT/munge/munge.socket" --key-file="$ROOT/munge/munge.key" \
        --pid-file="$ROOT/munge/munged.pid" --log-file="$ROOT/munge/munged.log" \
        --seed-file="$ROOT/munge/munge.seed" --num-threads=4
    slurmctld -f "$ROOT/slurm.conf" -c
    local i idle
    for i in $(seq "$NODES"); do start_node "node$i"; done
    while [ "$SECONDS" -lt 120 ]; do
        idle=$(timeout 5 sinfo -h -N -o %T 2>/dev/null | grep -c '^idle$' || true)
        [ "$idle" = "$NODES" ] && return
        sleep 0.1
    done
    echo "the nodes did not come up" >&2
    tail -n 5 "$ROOT"/log/*.log >&2
    return 1
}

down() {
    local file pid pids="" i
    [ -s "$ROOT/slurm.conf" ] || return 0  # not a folder of ours
    for i in $(seq "$NODES"); do kill_node "node$i" 2>/dev/null || true; done
    for file in "$ROOT/run/slurmctld.pid" "$ROOT/munge/munged.pid"; do
        [ -s "$file" ] || continue
        pid=$(cat "$file")
        kill "$pid" 2>/dev/null && pids="$pids $pid"
    done
    for pid in $pids; do
        for i in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null || true
    done
    rm -rf "$ROOT"
}

[ "${1:-}" = install ] || : "${SLURM_ROOT:?is to be the folder of the cluster}"
case ${1:-} in
    install) install ;;
    up) up ;;
    down) down ;;
    status) sinfo -N -l && squeue -a ;;
    kill-node) kill_node "$2" ;;
    start-node) start_node "$2" ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
