#!/usr/bin/env bash
# A remote worker in bash, curl and jq, written from docs/protocol.md alone. README.md tells how to use it.
set -uo pipefail

if (($# < 2)) || [[ ! ${BRIDGE_URL-} ]]; then
  echo "usage: BRIDGE_URL=… BRIDGE_KEY=… worker.sh TYPE,… COMMAND [ARGUMENT…]" >&2
  exit 2
fi
types=$1
shift
base=${BRIDGE_URL%/}
jobs=/api/v1/remote-jobs
worker_id=${WORKER_ID:-$(uname -n)-$$}
lease=${WORKER_LEASE:-60}
wait=${WORKER_WAIT:-30}

# The key goes unencrypted to this machine alone, unless somebody says that the network is theirs.
if [[ ${BRIDGE_KEY-} && $base != https://* && ${WORKER_ALLOW_HTTP-} != 1 &&
  ! $base =~ ^http://(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?(/|$) ]]; then
  echo "worker.sh: BRIDGE_URL: the key would go unencrypted; use https://, or set WORKER_ALLOW_HTTP=1" >&2
  exit 2
fi

umask 077
# Temporary files of workers that were killed: the name has their process ID.
for left in "${TMPDIR:-/tmp}"/bridge-worker-sh.*; do
  pid=${left#*/bridge-worker-sh.}
  if [[ -O $left && ${pid%%.*} =~ ^[0-9]+$ ]] && ! kill -0 "${pid%%.*}" 2>/dev/null; then rm -rf "$left"; fi
done
tmp=$(mktemp -d "${TMPDIR:-/tmp}/bridge-worker-sh.$$.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
# Secrets go to curl in files: what stands in its arguments can be seen by every user of the machine.
printf '%s\n' "${BRIDGE_KEY:+Authorization: Bearer $BRIDGE_KEY}" >"$tmp/key"
unset BRIDGE_KEY

log() { printf '%(%FT%T%z)T %s\n' -1 "$*" >&2; }

# What runs now, as `run` started it, and what has been heard meanwhile.
child='' doing='' stopping='' gone='' heard=''

unwanted() { [[ ($doing == poll && $stopping) || ($doing == job && $gone) ]]; }

hear() {
  heard=1
  if [[ $child ]] && unwanted; then kill -- "-$child" 2>/dev/null; fi
}
trap 'stopping=1; hear' TERM INT
trap 'gone=1; hear' USR1 # from the heartbeats

# run COMMAND …: like running it, but signals are heard meanwhile, and what is not wanted any more is ended with all
# of its children (its process group, which is why job control is on for a moment).
run() {
  local status
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  hear
  while heard='' && { wait "$child" 2>/dev/null; status=$?; } && [[ $heard ]]; do :; done
  child=''
  return "$status"
}

# call NAME METHOD PATH [curl's options]: one request. `http` is its status, 000 without an answer; the answer is in
# NAME.body and NAME.head. Fails unless the whole answer came.
call() {
  local name=$1 method=$2 path=$3 status
  shift 3
  : >"$tmp/$name.head"
  : >"$tmp/$name.body"
  run curl --silent --request "$method" --header "@$tmp/key" --connect-timeout 10 \
    --proto =http,https --max-filesize 67108864 "$@" --output "$tmp/$name.body" \
    --dump-header "$tmp/$name.head" --write-out '%{http_code}' "$base$path" >"$tmp/$name.http"
  status=$?
  http=$(<"$tmp/$name.http")
  http=${http:-000}
  return "$status"
}

header() { sed -n "s/\r\$//; s/^$2: *//Ip" "$tmp/$1.head" | tail -n 1; }

problem() { jq -er '"\(.code): \(.detail)"' "$tmp/$1.body" 2>/dev/null || echo "broken off"; }

# Whether the same call may succeed later: no (whole) answer, too many, or an error of the server.
passing() { [[ $1 != 0 || $http == 429 || $http == 5?? ]]; }

# rest NAME N: before the next try, exponential with jitter, and never sooner than Retry-After.
rest() {
  local asked
  asked=$(header "$1" Retry-After)
  [[ $asked =~ ^[0-9]{1,9}$ ]] || asked=0
  asked=$((10#$asked < 3600 ? 10#$asked : 3600))
  log "$1: HTTP $http, $(problem "$1"); again soon"
  run sleep "$((asked + RANDOM % (1 << ($2 < 5 ? $2 : 5)))).$((100 + RANDOM % 900))"
}

# insist NAME METHOD PATH [curl's options]: `call` until there is an answer, nobody wants one any more, or the time
# (`patience`, seconds since 1970) is over.
insist() {
  local n
  for ((n = 0; ; n++)); do
    call "$@"
    passing $? || return 0
    if unwanted || (($(date +%s) > patience)); then return 1; fi
    rest "$1" "$n"
    if unwanted; then return 1; fi
  done
}

# Signs of life, in the background. The first one comes at once: it acknowledges the claim.
beat() {
  trap - TERM INT USR1 EXIT
  run() { "$@"; } # it needs no group of its own: the whole of this one is ended with the job
  local every=$((lease / 3 < 20 ? lease / 3 : 20)) reason=''
  # Killed, the worker cannot end its heartbeats: they must not keep its job from the next worker.
  while kill -0 $$ 2>/dev/null; do
    if call beat POST "$jobs/$id/heartbeat" --header "@$tmp/lease" --max-time 10; then
      case $http in
        200) [[ $(jq .cancel_requested "$tmp/beat.body") != true ]] || reason=cancelled ;;
        429 | 5??) ;;
        *) reason=$(problem beat) ;;
      esac
    fi
    if [[ $reason ]]; then
      log "job $id is no longer wanted: $reason"
      kill -USR1 $$
      return
    fi
    if [[ $http == 200 ]]; then sleep "$every"; else sleep 2; fi
  done
}

# fetch PATH: the source file, resumed where a connection broke off, if it is still the same file.
fetch() {
  local n size status etag='' range
  : >"$tmp/source"
  for ((n = 0; ; n++)); do
    size=$(stat -c %s "$tmp/source")
    range=()
    if ((size)) && [[ $etag ]]; then range=(--header "Range: bytes=$size-" --header "If-Range: $etag"); fi
    call part GET "$1" --header "@$tmp/lease" --max-filesize "${WORKER_MAX_DOWNLOAD:-17179869184}" --speed-limit 1 --speed-time 60 "${range[@]}"
    status=$?
    if unwanted; then return 1; fi
    case $http in
      200) mv "$tmp/part.body" "$tmp/source" ;;
      206)
        if [[ $(header part Content-Range) == "bytes $size-"* ]]; then
          cat "$tmp/part.body" >>"$tmp/source"
        else
          : >"$tmp/source"
          status=1
        fi
        ;;
      416) # The file is shorter than what we have.
        : >"$tmp/source"
        status=1
        ;;
      *) passing "$status" || return 1 ;;
    esac
    if [[ $http == 20? ]]; then etag=$(header part ETag); fi
    passing "$status" || return 0
    if (($(date +%s) > patience)); then return 1; fi
    rest part "$n"
    if unwanted; then return 1; fi
  done
}

failure() { # MESSAGE RETRYABLE
  jq -n --arg message "$1" --argjson retryable "$2" '{success: false, error_message: $message, $retryable}'
}

# work COMMAND …: what the poll gave, from its file to its result.
work() {
  local id status beats began=$SECONDS
  id=$(jq -r .job_id "$tmp/job")
  log "job $id begun, attempt $(jq .attempt "$tmp/job")"
  patience=$(date -d "$(jq -r .timeout_at "$tmp/job")" +%s) # after the deadline the bridge takes nothing of this claim
  gone='' doing=job
  set -m
  beat &
  beats=$!
  set +m
  if ! fetch "$(jq -r .source_file_url "$tmp/job")"; then
    # 401, 403, 409, or a job that is not in processing: it is over, and nothing is submitted.
    case $http in
      401 | 403 | 409) gone=1 ;;
      404) [[ $(header part X-Job-Status) == processing ]] || gone=1 ;;
    esac
    failure "The source file could not be fetched: HTTP $http, $(problem part)" \
      "$([[ $http == 404 ]] && echo false || echo true)" >"$tmp/result"
  else
    run env JOB_ID="$id" JOB_CONTENT_TYPE="$(jq -r .content_type "$tmp/job")" \
      JOB_OPTIONS="$(jq -c .task_options "$tmp/job")" "$@" "$tmp/source" >"$tmp/out" 2>"$tmp/err"
    status=$?
    if ((status == 0)); then
      jq -n --rawfile content "$tmp/out" '{success: true, $content}' >"$tmp/result"
    else
      # 65 is EX_DATAERR of sysexits.h: the input is bad, and would be the next time.
      failure "$(tail -c 1000 "$tmp/err" | tr -d '\0')" "$([[ $status == 65 ]] && echo false || echo true)" >"$tmp/result"
    fi
  fi
  if [[ ! $gone ]]; then
    doing=result # From here only the answer to the result decides.
    jq -c --argjson seconds $((SECONDS - began)) '. + {processing_time: $seconds}' "$tmp/result" >"$tmp/body"
    insist result PUT "$jobs/$id/result" --header "@$tmp/lease" --header "Content-Type: application/json" \
      --data-binary "@$tmp/body" --speed-limit 1 --speed-time 60
    if [[ $http == 200 ]]; then
      log "job $id is $(jq -r .status "$tmp/result.body")"
    else
      log "job $id: the result was not taken: HTTP $http, $(problem result)"
    fi
  fi
  kill -- "-$beats" 2>/dev/null
  wait "$beats" 2>/dev/null
  doing=''
}

# poll SECONDS HOW: claim one job under the current claim ID; `insist` or `call`.
poll() {
  "$2" poll GET "$jobs/poll" --get --data-urlencode "worker_id=$worker_id" --data-urlencode "content_types=$types" \
    --data-urlencode "wait=$1" --data-urlencode "lease=$lease" --data-urlencode "claim_id=$claim_id" \
    --max-time $(($1 + 15))
}

log "worker $worker_id takes $types from $base"
while [[ ! $stopping ]]; do
  claim_id=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  patience=$((1 << 40)) # as long as it takes
  doing=poll
  poll "$wait" insist
  got=$?
  doing=''
  # A stop ended the poll: what its answer may have held is asked for once more, to give it back.
  if ((got)); then poll 0 call && [[ $http == 200 ]] || break; fi
  if [[ $http != 200 ]]; then
    log "the bridge refuses this worker: HTTP $http, $(problem poll)"
    exit 1
  fi
  jq -e '.jobs[0] // empty' "$tmp/poll.body" >"$tmp/job" || continue
  # Only what has the right form goes into an address: another one could name another host.
  if ! jq -e '(.job_id | type == "string" and test("^[A-Za-z0-9_-]{1,64}$")) and
      (.source_file_url | type == "string" and test("^/[A-Za-z0-9._~%?=&-][A-Za-z0-9._~%?=&/-]*$")) and
      (.lease_token | type == "string" and test("^[!-~]{1,500}$")) and (.task_options | type == "object") and
      (.content_type | type == "string" and test("^[a-z0-9._-]{1,50}$"))' "$tmp/job" >"$tmp/form"; then
    log "a claim was not understood and goes back unacknowledged"
    run sleep 1
    continue
  fi
  printf 'X-Lease-Token: %s\n' "$(jq -r .lease_token "$tmp/job")" >"$tmp/lease"
  if [[ $stopping ]]; then
    call release POST "$jobs/$(jq -r .job_id "$tmp/job")/release" --header "@$tmp/lease" --max-time 10
    log "job $(jq -r .job_id "$tmp/job") given back: HTTP $http"
  else
    work "$@"
  fi
done
log "worker $worker_id ended"
