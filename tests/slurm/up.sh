#!/usr/bin/env bash
# up.sh WORKDIR -- start a private Slurm on loopback for tests, without systemd and without cgroups.
#
# Everything it writes is under WORKDIR (plus one short folder for sockets, recorded in WORKDIR/shortdir,
# when WORKDIR's own path is too long for a Unix socket).  Daemons run in the foreground as children of this script and are recorded
# by pid and start time; down.sh WORKDIR ends exactly those.
# Exit: 0 all nodes idle (after a restart that kept jobs: idle or at work); 1 could not start (what had started is stopped again); 2 usage; 3 packages missing.
#
# Environment (all optional):
#   SLURM_LAB_NODES   how many slurmd daemons, each a node of its own          (4)
#   SLURM_LAB_CPUS    CPUs that each node claims; may exceed the real number   (2)
#   SLURM_LAB_MEM_MB  memory that each node claims                            (2048)
#   SLURM_LAB_PORT    first of NODES+1 consecutive TCP ports                  (first free run from 26817)
#   SLURM_LAB_PART    partition name                                          (lab)
#   SLURM_LAB_MAXTIME / SLURM_LAB_DEFTIME  partition time limits              (01:00:00 / 00:10:00)
#   SLURM_LAB_MINJOBAGE  seconds a finished job stays visible to squeue/scontrol (300, Slurm's default)
#   SLURM_LAB_KILLWAIT   seconds from TERM to KILL                            (2; Slurm's default is 30)
#   SLURM_LAB_CRED_EXPIRE  seconds; a requeued job waits this long plus one before it may start again (5; Slurm's default is 120)
#   SLURM_LAB_CONF    extra lines for slurm.conf
#   SLURM_LAB_INSTALL 1: apt-get install what is missing, as root; 0: never   (0)
#   SLURM_LAB_WAIT    seconds to wait for idle nodes                          (60)
set -u
umask 022
me=${0##*/}
die() { echo "$me: $*" >&2; exit 1; }
[ $# -eq 1 ] && [ -n "$1" ] || { echo "usage: $me WORKDIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" || exit 1
W=$(cd "$1" && pwd -P)
case $W in *[[:space:]%#,\"]*) die "WORKDIR may not hold blanks, %, #, commas or quotes (slurm.conf cannot carry them)";; esac

nodes=${SLURM_LAB_NODES:-4}; cpus=${SLURM_LAB_CPUS:-2}; mem=${SLURM_LAB_MEM_MB:-2048}
part=${SLURM_LAB_PART:-lab}; maxt=${SLURM_LAB_MAXTIME:-01:00:00}; deft=${SLURM_LAB_DEFTIME:-00:10:00}
age=${SLURM_LAB_MINJOBAGE:-300}; kw=${SLURM_LAB_KILLWAIT:-2}; wait_s=${SLURM_LAB_WAIT:-60}

# start time of a process: with the pid it names one process, even after pids wrap around
born() { local s; s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1; s=${s##*) }; set -- $s; echo "${20}"; }
alive() { [ "$(born "$1")" = "$2" ] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }

# one instance per folder
if [ -s "$W/pids" ]; then
  while read -r name pid t0; do
    alive "$pid" "$t0" && die "already running in $W ($name, pid $pid); run down.sh first"
  done <"$W/pids"
fi
PATH=$PATH:/usr/sbin:/sbin; export PATH

# --- packages -----------------------------------------------------------------------------------------
missing=()
for p in munged:munge slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client; do
  command -v "${p%%:*}" >/dev/null || missing+=("${p#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "${SLURM_LAB_INSTALL:-0}" != 1 ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "$me: missing packages: ${missing[*]}" >&2; exit 3
  fi
  # the packages' install scripts would start their services: a refusing policy keeps them from it
  made=; [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d && made=1; }
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${missing[@]}"; } >"$W/apt.log" 2>&1
  rc=$?; [ -n "$made" ] && rm -f /usr/sbin/policy-rc.d
  [ $rc = 0 ] || { echo "$me: apt-get failed, see $W/apt.log" >&2; exit 3; }
fi

# --- ports --------------------------------------------------------------------------------------------
used=" $(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4=="0A"{n=split($2,a,":"); printf "%s ", a[n]}') "
taken() { case $used in *" $(printf %04X "$1") "*) return 0;; esac; return 1; }
run_free() { local i; for ((i = 0; i <= nodes; i++)); do taken $(($1 + i)) && return 1; done; return 0; }
port=${SLURM_LAB_PORT:-}
if [ -n "$port" ]; then run_free "$port" || die "a port from $port on is taken"
else port=26817; until run_free "$port"; do port=$((port + nodes + 1)); [ "$port" -lt 32000 ] || die "no free ports"; done; fi

# --- files --------------------------------------------------------------------------------------------
mkdir -p "$W/etc" "$W/log" "$W/run" "$W/state" "$W/munge"; chmod 700 "$W/munge"
# Unix sockets (munge's, and one per job step in the spool folder) may have 107 characters at most
S=$W
if [ ${#W} -gt 60 ]; then
  S=$(cat "$W/shortdir" 2>/dev/null)
  [ -n "$S" ] && [ -d "$S" ] || S=$(mktemp -d "/run/slurm-lab.XXXXXX" 2>/dev/null || mktemp -d "/tmp/slurm-lab.XXXXXX") || exit 1
  chmod 755 "$S"; echo "$S" >"$W/shortdir"
fi
for ((i = 1; i <= nodes; i++)); do mkdir -p "$S/spool/n$i"; done
sock=$S/munge.sock
if [ ! -s "$W/munge/key" ]; then (umask 077; dd if=/dev/urandom of="$W/munge/key" bs=128 count=1 status=none); fi
host=$(hostname -s); user=$(id -un)

# Bind to loopback only where the host's own name resolves to loopback; otherwise Slurm would bind that address.
bind=; case $(getent ahostsv4 "$host" 2>/dev/null | awk 'NR==1{print $1}') in 127.*) bind="CommunicationParameters=NoInAddrAny,NoCtldInAddrAny";; esac

cat >"$W/etc/slurm.conf" <<C
ClusterName=lab
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
$bind
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$sock,cred_expire=${SLURM_LAB_CRED_EXPIRE:-5}
StateSaveLocation=$W/state
SlurmdSpoolDir=$S/spool/%n
SlurmctldPidFile=$W/run/slurmctld.pid
SlurmdPidFile=$W/run/slurmd-%n.pid
SlurmctldLogFile=$W/log/slurmctld.log
SlurmdLogFile=$W/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
# no cgroups, no binding, no usage sampling
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
PropagateResourceLimits=NONE
# no database: sacct cannot answer; one text line per finished job instead
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$W/log/jobcomp.txt
# claim what the file says, not what the machine has
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=$((mem / cpus / 4 > 0 ? mem / cpus / 4 : 1))
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,bf_interval=2
ReturnToService=2
MinJobAge=$age
KillWait=$kw
SlurmctldTimeout=30
SlurmdTimeout=60
JobRequeue=1
MaxArraySize=10001
MaxJobCount=20000
${SLURM_LAB_CONF:-}
C
for ((i = 1; i <= nodes; i++)); do
  echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + i)) CPUs=$cpus RealMemory=$mem State=UNKNOWN"
done >>"$W/etc/slurm.conf"
echo "PartitionName=$part Nodes=ALL Default=YES MaxTime=$maxt DefaultTime=$deft State=UP" >>"$W/etc/slurm.conf"
printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' >"$W/etc/cgroup.conf"   # read, never used
: >"$W/etc/plugstack.conf"                                                    # none of the host's plug-ins
printf 'export SLURM_CONF=%s\n' "$W/etc/slurm.conf" >"$W/env.sh"
export SLURM_CONF=$W/etc/slurm.conf

# --- daemons ------------------------------------------------------------------------------------------
: >"$W/pids"
start() { # NAME COMMAND...: in a session of its own, pid recorded before anything is waited for
  local name=$1 pid t0; shift
  setsid "$@" </dev/null >>"$W/log/$name.out" 2>&1 &
  pid=$!; t0=$(born "$pid") || t0=0; echo "$name $pid $t0" >>"$W/pids"
}
fail() {
  echo "$me: $*" >&2
  for f in "$W"/log/*.out "$W"/log/*.log; do [ -s "$f" ] && { echo "--- ${f##*/}"; tail -5 "$f"; } >&2; done
  "$here/down.sh" "$W" >&2; exit 1
}
all_alive() { local n p t; while read -r n p t; do alive "$p" "$t" || fail "$n has ended"; done <"$W/pids"; }

t_start=$(date +%s%N)
start munged munged --foreground --force --num-threads=2 --key-file="$W/munge/key" --socket="$sock" \
  --pid-file="$W/run/munged.pid" --log-file="$W/log/munged.log" --seed-file="$W/munge/seed"
for ((i = 0; i < 100; i++)); do munge -S "$sock" -n </dev/null 2>/dev/null | unmunge -S "$sock" >/dev/null 2>&1 && break; all_alive; sleep 0.05; done
[ $i -lt 100 ] || fail "munged does not answer"
start slurmctld slurmctld -D -f "$SLURM_CONF"
# a slurmd that finds no controller tries again a second later: start it when the controller answers
for ((i = 0; i < 200; i++)); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; all_alive; sleep 0.05; done
for ((i = 1; i <= nodes; i++)); do start "slurmd-n$i" slurmd -D -f "$SLURM_CONF" -N "n$i"; done

end=$((SECONDS + wait_s))
while :; do
  n=$(sinfo -h -r -N -p "$part" -t idle,mix,alloc -o %N 2>/dev/null | sort -u | wc -l)
  [ "$n" = "$nodes" ] && break
  all_alive
  [ $SECONDS -lt $end ] || { sinfo -N -l -R >&2; fail "only $n of $nodes nodes up after $wait_s s"; }
  sleep 0.1
done
echo "up: $nodes node(s) x $cpus CPU, ports $port-$((port + nodes)), $(( ($(date +%s%N) - t_start) / 1000000 )) ms"
echo "export SLURM_CONF=$SLURM_CONF"
