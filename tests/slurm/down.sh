#!/usr/bin/env bash
# down.sh WORKDIR -- end exactly the daemons that up.sh recorded in WORKDIR/pids, and the job steps
# that they left.  Nothing is matched by name: a pid counts only with the start time recorded for it.
# Environment: SLURM_LAB_KEEP_JOBS=1 leaves the queue as it is (to test a restart); else all jobs are cancelled.
# Exit: 0 nothing of it runs any more; 1 something would not end; 2 usage.
set -u
me=${0##*/}
[ $# -eq 1 ] && [ -d "$1" ] || { echo "usage: $me WORKDIR" >&2; exit 2; }
W=$(cd "$1" && pwd -P); PATH=$PATH:/usr/sbin:/sbin
born() { local s; s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1; s=${s##*) }; set -- $s; echo "${20}"; }
alive() { [ "$(born "$1")" = "$2" ] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }
[ -s "$W/pids" ] || { echo "down: nothing recorded"; exit 0; }
export SLURM_CONF=$W/etc/slurm.conf

# slurmstepd re-parents to init, so it is not in pids: it is known by the SLURM_CONF in its environment
steps() { # the step daemons and job processes of this instance: PID START
  local d p e
  for d in /proc/[0-9]*; do
    p=${d#/proc/}; [ "$p" = $$ ] && continue
    e=$( (tr '\0' '\n' <"$d/environ") 2>/dev/null) || continue
    grep -qxF "SLURM_CONF=$SLURM_CONF" <<<"$e" || continue
    grep -q '^SLURM_JOB_ID=' <<<"$e" || case $(readlink "$d/exe") in */slurmstepd*) ;; *) continue;; esac
    echo "$p $(born "$p")"
  done
}
if [ "${SLURM_LAB_KEEP_JOBS:-0}" != 1 ] && grep -q '^slurmctld ' "$W/pids"; then
  timeout 5 scancel --user="$(id -un)" >/dev/null 2>&1
  for ((i = 0; i < 40; i++)); do [ -z "$(timeout 5 squeue -h -t R,CG -o %i 2>/dev/null)" ] && break; sleep 0.1; done
fi
stop() { # PID START SIGNAL SECONDS
  alive "$1" "$2" || return 0
  kill "-$3" "$1" 2>/dev/null
  local i; for ((i = 0; i < $4 * 20; i++)); do alive "$1" "$2" || return 0; sleep 0.05; done; return 1
}
rc=0
for pat in slurmd- slurmctld munged; do          # workers first, the authenticator last
  while read -r name pid t0; do
    case $name in $pat*) stop "$pid" "$t0" TERM 10 || stop "$pid" "$t0" KILL 2 || { echo "$me: $name ($pid) is still there" >&2; rc=1; };; esac
  done <"$W/pids"
done
if [ "${SLURM_LAB_KEEP_JOBS:-0}" != 1 ]; then
  while read -r pid t0; do stop "$pid" "$t0" TERM 1 || stop "$pid" "$t0" KILL 2 || rc=1; done < <(steps)
fi
[ $rc = 0 ] && : >"$W/pids"
if [ $rc = 0 ] && [ "${SLURM_LAB_KEEP_JOBS:-0}" != 1 ] && [ -s "$W/shortdir" ]; then
  d=$(cat "$W/shortdir"); case $d in /run/slurm-lab.*|/tmp/slurm-lab.*) rm -rf -- "$d";; esac; rm -f "$W/shortdir"
fi
echo "down: rc $rc"
exit $rc
