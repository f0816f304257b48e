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
most=${WORKER_MAX_DOWNLOAD:-17179869184} # bytes of a source file
limit=67108864                           # bytes of any other answer
reserve=67108864                         # bytes of the disk that stay free

# The key is sent unencrypted only to this machine, and there without a proxy, unless WORKER_ALLOW_HTTP says otherwise.
direct=()
if [[ $base =~ ^http://(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?(/|$) ]]; then
  direct=(--noproxy '*')
elif [[ ${BRIDGE_KEY-} && $base != https://* && ${WORKER_ALLOW_HTTP-} != 1 ]]; then
  echo "worker.sh: BRIDGE_URL: the key would go unencrypted; use https://, or set WORKER_ALLOW_HTTP=1" >&2
  exit 2
fi

umask 077
# Remove temporary files of killed workers: the name has their process ID.
for left in "${TMPDIR:-/tmp}"/bridge-worker-sh.*; do
  pid=${left#*/bridge-worker-sh.}
  if [[ -O $left && ${pid%%.*} =~ ^[0-9]+$ ]] && ! kill -0 "${pid%%.*}" 2>/dev/null; then rm -rf "$left"; fi
done
tmp=$(mktemp -d "${TMPDIR:-/tmp}/bridge-worker-sh.$$.XXXXXX")
# Again after a second if a process that was being ended still wrote. Only by this shell: a process that is ended just
# after its fork has this trap, too, and would remove the worker's directory.
trap 'if [[ $BASHPID == "$$" ]]; then rm -rf "$tmp" 2>/dev/null || { sleep 1; rm -rf "$tmp"; }; fi' EXIT
# Secrets are passed to curl in files: its arguments are visible to every user of the machine.
printf '%s\n' "${BRIDGE_KEY:+Authorization: Bearer $BRIDGE_KEY}" >"$tmp/key"
unset BRIDGE_KEY

# Log one line, whatever foreign text it contains.
log() {
  local text=${*//[[:cntrl:]]/ }
  printf '%(%FT%T%z)T %s\n' -1 "${text:0:1000}" >&2
}

# Whatever reads the bridge's JSON gets at most 1 GiB of memory.
jq() (ulimit -v 1048576 && exec jq "$@")

# The process that `run` started, what it is for, and the signals received meanwhile.
child='' doing='' stopping='' heard=''

# Whether the job is known to be over: the heartbeats, in another process, report it by a file, since bash may miss a
# signal that comes just as it begins to wait.
gone() { [[ -e $tmp/gone ]]; }

# Whether an operator asks this worker to end: it finishes its job and takes no other.
drained() { [[ -e $tmp/drained ]]; }

# hear_drain NAME: from the answer to a poll or a heartbeat.
hear_drain() {
  if [[ ! -e $tmp/drained && $(jq .drain "$tmp/$1.body" 2>/dev/null) == true ]]; then
    log "an operator drains this worker"
    : >"$tmp/drained"
  fi
}

unwanted() {
  case $doing in
    poll) [[ $stopping ]] || drained ;;
    job) gone ;;
    *) false ;;
  esac
}

hear() {
  heard=1
  if [[ $child ]] && unwanted; then end_group "$child"; fi
}

# end_group ID: SIGTERM, twice: a process that was just forked may still have this shell's traps.
end_group() {
  kill -- "-$1"
  (sleep 0.5 && kill -- "-$1") &
} 2>/dev/null
trap 'stopping=1; hear' TERM INT

# end_job: end the work for a job that is no longer wanted. Called from the heartbeats while `run` runs: this notes the end
# first, then checks what runs; `run` notes what runs, then checks for the end. So one of them ends it.
end_job() {
  local running
  : >"$tmp/gone"
  running=$(<"$tmp/running")
  if [[ $running ]]; then end_group "$running"; fi
}

# run COMMAND …: run it while handling signals, and end it with all of its children if it is no longer wanted (by its
# process group, which is why job control is on for a moment). If it ends just when a signal interrupts `wait`, bash
# loses track of it and would wait for ever: so its status is in a file too, and there is no second `wait` for a
# process that has ended.
run() {
  local status
  if unwanted; then return 143; fi
  rm -f "$tmp/status"
  set -m
  {
    "$@" 2>&3 3>&-
    status=$?
    echo "$status" >"$tmp/status"
    exit "$status"
  } 3>&2 2>/dev/null </dev/null &
  child=$!
  set +m
  if [[ $doing == job ]]; then echo "$child" >"$tmp/running"; fi
  hear
  while
    heard=''
    wait "$child" 2>/dev/null
    status=$?
    [[ $heard ]] && kill -0 "$child" 2>/dev/null
  do :; done
  if [[ $heard ]]; then
    status=143
    if [[ -s $tmp/status ]]; then status=$(<"$tmp/status"); fi
  fi
  : >"$tmp/running"
  child=''
  return "$status"
}

# bounded BYTES COMMAND …: run it with a limit on the files it writes; it is killed beyond that.
bounded() (ulimit -f $((($1 + 1023) / 1024)) && shift && exec "$@")

# call NAME METHOD PATH [curl's options]: one request. `http` is its status, 000 without an answer; the answer is in
# NAME.body and NAME.head, at most `limit` bytes. Fails unless the whole answer came, unencoded. PATH `store` is the
# address in $tmp/store, of another server, which does not get the key.
call() {
  local name=$1 method=$2 path=$3 status where
  shift 3
  where=(--header "@$tmp/key" "$base$path")
  if [[ $path == store ]]; then where=(--config "$tmp/store"); fi
  : >"$tmp/$name.head"
  : >"$tmp/$name.body"
  run bounded "$limit" curl --disable --silent --globoff "${direct[@]}" --request "$method" \
    --connect-timeout 10 --proto =http,https --max-filesize "$limit" "$@" --output "$tmp/$name.body" \
    --dump-header "$tmp/$name.head" --write-out '%{http_code}' "${where[@]}" >"$tmp/$name.http"
  status=$?
  http=$(<"$tmp/$name.http")
  http=${http:-000}
  if [[ $name != part && $(encoding "$name") ]]; then # a small answer must not become a large one
    : >"$tmp/$name.body"
    return 1
  fi
  return "$status"
}

header() { sed -n "s/\r\$//; s/^$2: *//Ip" "$tmp/$1.head" | tail -n 1; }

encoding() { header "$1" Content-Encoding | grep -iv '^identity$'; }

problem() {
  local text
  text=$(head -c 65536 "$tmp/$1.body" | jq -r '[.code, .detail] | map(strings) | join(": ")' 2>/dev/null)
  text=${text//[[:cntrl:]]/ }
  echo "${text:0:300}"
}

# Whether an answer about a job says that it is over.
over() {
  local status
  status=$(header "$1" X-Job-Status)
  [[ $status && $status != processing ]]
}

# Whether the same call may succeed later: no (whole) answer, too many, or an error of the server.
passing() { [[ $1 != 0 || $http == 429 || $http == 5?? ]]; }

# rest NAME N: pause before the next try, exponentially with jitter, and at least for Retry-After.
rest() {
  local asked
  asked=$(header "$1" Retry-After)
  [[ $asked =~ ^[0-9]{1,9}$ ]] || asked=0
  asked=$((10#$asked < 3600 ? 10#$asked : 3600))
  log "$1: HTTP $http, $(problem "$1"); again soon"
  run sleep "$((asked + RANDOM % (1 << ($2 < 5 ? $2 : 5)))).$((100 + RANDOM % 900))"
}

# insist NAME METHOD PATH [curl's options]: `call` until there is an answer, it is no longer wanted, or the time
# (`patience`, seconds since 1970) is over.
insist() {
  local n
  for ((n = 0; ; n++)); do
    call "$@"
    passing $? || return 0
    if [[ $1 == poll && $http == 429 ]]; then hear_drain poll; fi
    if unwanted || (($(date +%s) > patience)); then return 1; fi
    rest "$1" "$n"
    if unwanted; then return 1; fi
  done
}

# Signs of life, in the background. The first one comes at once: it acknowledges the claim.
beat() {
  trap - TERM INT EXIT
  run() { "$@"; } # it needs no separate group: this whole group is ended with the job
  local every=$((lease / 3 < 20 ? lease / 3 : 20)) reason=''
  # A killed worker cannot end its heartbeats: they must not keep the job from the next worker.
  while kill -0 $$ 2>/dev/null; do
    if call beat POST "$jobs/$id/heartbeat" --header "@$tmp/lease" --max-time 10; then
      case $http in
        200)
          [[ $(jq .cancel_requested "$tmp/beat.body") != true ]] || reason=cancelled
          hear_drain beat
          ;;
        429 | 5??) ;;
        *) reason=$(problem beat) ;;
      esac
    fi
    if over beat; then reason="it is $(header beat X-Job-Status)"; fi
    if [[ $reason ]]; then
      log "job $id is no longer wanted: $reason"
      end_job
      return
    fi
    if [[ $http == 200 ]]; then sleep "$every"; else sleep 2; fi
  done
}

# from_store SIZE ETAG: fetch the rest of the file from the address that the bridge names. A refusal may pass with
# another answer of the bridge, so it counts as a 503.
from_store() {
  local address range=() form='^https?://[A-Za-z0-9._:-]+/[A-Za-z0-9._~:/?=&%+,;!*()-]*$'
  address=$(header part Location)
  if [[ ! $address =~ $form || ($base == https:* && $address != https:*) ]]; then
    log "the bridge sends the download to no address that can be fetched from"
    http=503
    return 1
  fi
  printf 'url = "%s"\n' "$address" >"$tmp/store"
  if (($1)) && [[ $2 && $(header part ETag) == "$2" ]]; then range=(--header "Range: bytes=$1-"); fi
  call part GET store --speed-limit 1 --speed-time 60 "${range[@]}" || return
  [[ $http == 20? || $http == 416 ]] || http=503
}

# from_its_server SIZE ETAG: the same from the address that the job's producer names, over TLS and without redirects.
# curl does not check where a name leads: allow this only where there is no internal network to reach.
from_its_server() {
  local address range=() form='^https://[]A-Za-z0-9._:[-]+(/[]A-Za-z0-9._~:/?=&%+,;!*()@$'"'"'[-]*)?$'
  address=$(header part Location)
  if [[ ${WORKER_SOURCE_FETCH-} != 1 ]]; then
    refused="The source is to be fetched by the worker, which this one does not do (WORKER_SOURCE_FETCH)"
  elif [[ ! $address =~ $form ]]; then
    refused="The source's address is none that can be fetched from"
  fi
  if [[ $refused ]]; then return 1; fi
  printf 'url = "%s"\n' "$address" >"$tmp/store"
  if (($1)) && [[ $2 ]]; then range=(--header "Range: bytes=$1-" --header "If-Range: $2"); fi
  call part GET store --proto =https --noproxy '*' --speed-limit 1 --speed-time 60 "${range[@]}"
  status=$?
  if ((status == 3)); then refused="The source's address is none that can be fetched from"; fi # a port that is none
  tag=$(header part ETag)
  case $http in
    20? | 416 | 408 | 425 | 429 | 5?? | 000) ;;
    *) refused="The source's server answers $http" ;;
  esac
  if [[ $http == 408 || $http == 425 ]]; then http=503; fi
  if [[ $tag == W/* ]]; then tag=''; fi
  return "$status"
}

# fetch PATH: fetch the source file, resuming where a connection broke off if it is still the same file. `unfit` says why
# this machine cannot take it, `refused` why no machine can.
fetch() {
  local n size status free etag='' range limit tag digest want came wrong=''
  : >"$tmp/source"
  for ((n = 0; ; n++)); do
    size=$(stat -c %s "$tmp/source")
    range=()
    if ((size)) && [[ $etag ]]; then range=(--header "Range: bytes=$size-" --header "If-Range: $etag"); fi
    free=$(($(df --output=avail -B1 "$tmp" | tail -n 1) - reserve))
    if ((size)); then free=$((free / 2)); fi # for a moment a part is stored twice
    limit=$((most - size < free ? most - size : free))
    if ((free <= 0 || free < told - size)); then
      unfit="no room on the disk: $free bytes for a file of $told"
      return 1
    elif ((limit <= 0 || told > most)); then
      refused="The source file has more than $most bytes (WORKER_MAX_DOWNLOAD)"
      return 1
    fi
    call part GET "$1" --header "@$tmp/lease" --speed-limit 1 --speed-time 60 "${range[@]}"
    status=$?
    if over part; then : >"$tmp/gone"; fi
    if unwanted; then return 1; fi
    tag=$(header part ETag) digest=$(header part Repr-Digest)
    if [[ $http == 307 && $(header part X-Source-Fetch) == worker ]]; then
      from_its_server "$size" "$etag"
      status=$?
      if [[ $refused ]] || unwanted; then return 1; fi
    elif [[ $http == 307 ]]; then
      from_store "$size" "$etag"
      status=$?
      if unwanted; then return 1; fi
    fi
    if [[ $http == 20? && $(encoding part) ]]; then
      unfit="the source file came with Content-Encoding $(encoding part): what stands between must not encode"
      return 1
    fi
    if ((status == 63 || status == 128 + 25)); then # too large by its length, or while it came (SIGXFSZ)
      if ((limit == free)); then
        unfit="no room on the disk for the source file: $free bytes"
      else
        refused="The source file has more than $most bytes (WORKER_MAX_DOWNLOAD)"
      fi
      return 1
    fi
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
    if [[ $http == 20? ]]; then etag=$tag; fi
    want=$declared # by the claim, as a proxy may remove the header
    if [[ ! $want && $digest =~ sha-256=:([A-Za-z0-9+/]{43}=): ]]; then
      want=$(base64 -d <<<"${BASH_REMATCH[1]}" | od -An -v -tx1 | tr -d ' \n')
    fi
    if [[ $status == 0 && $http == 20? && $want ]]; then
      came=$(sha256sum <"$tmp/source" | cut -c 1-64)
      if [[ $came != "$want" && $came == "$wrong" ]]; then # the way here does not change the same bytes twice
        refused="The source file is not the one that was declared: its SHA-256 is $came, not $want"
        return 1
      elif [[ $came != "$want" ]]; then
        log "the bytes that came are not those of their digest"
        : >"$tmp/source"
        wrong=$came status=1
      fi
    fi
    passing "$status" || return 0
    if (($(date +%s) > patience)); then return 1; fi
    rest part "$n"
    if unwanted; then return 1; fi
  done
}

give_back() {
  call release POST "$jobs/$(jq -r .job_id "$tmp/job")/release" --header "@$tmp/lease" --max-time 10
  log "job $(jq -r .job_id "$tmp/job") given back: HTTP $http"
}

failure() { # MESSAGE RETRYABLE
  jq -n --arg message "$1" --argjson retryable "$2" '{success: false, error_message: $message, $retryable}'
}

# work COMMAND …: process the claimed job, from its file to its result.
work() {
  local id status beats began=$SECONDS
  id=$(jq -r .job_id "$tmp/job")
  log "job $id begun, attempt $(jq .attempt "$tmp/job")"
  patience=$(date -d "$(jq -r .timeout_at "$tmp/job")" +%s) # after the deadline the bridge takes nothing of this claim
  told=$(jq -r '.source_size // 0' "$tmp/job")
  declared=$(jq -r '.source_sha256 | strings | select(test("\\A[0-9a-f]{64}\\z"))' "$tmp/job")
  rm -f "$tmp/gone"
  : >"$tmp/running"
  doing=job unfit='' refused=''
  set -m
  beat &
  beats=$!
  set +m
  if ! fetch "$(jq -r .source_file_url "$tmp/job")"; then
    # 401, 403, 409, or a job that is not in processing: it is over, and nothing is submitted.
    case $http in
      401 | 403 | 409) : >"$tmp/gone" ;;
      404) [[ $(header part X-Job-Status) == processing ]] || : >"$tmp/gone" ;;
    esac
    if [[ $refused ]]; then
      failure "$refused" false >"$tmp/result"
    else
      failure "The source file could not be fetched: HTTP $http, $(problem part)" \
        "$([[ $http == 404 ]] && echo false || echo true)" >"$tmp/result"
    fi
  else
    run env JOB_ID="$id" JOB_CONTENT_TYPE="$(jq -r .content_type "$tmp/job")" \
      JOB_OPTIONS="$(jq -c .task_options "$tmp/job")" "$@" "$tmp/source" >"$tmp/out" 2>"$tmp/err"
    status=$?
    if ((status == 0)); then
      jq -n --rawfile content "$tmp/out" '{success: true, $content}' >"$tmp/result"
    else
      # 65 is EX_DATAERR of sysexits.h: the input is bad, and will be the next time.
      failure "$(tail -c 1000 "$tmp/err" | tr -d '\0')" "$([[ $status == 65 ]] && echo false || echo true)" >"$tmp/result"
    fi
  fi
  if ! gone && [[ $unfit ]]; then
    log "job $id: $unfit"
    give_back
  elif ! gone; then
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
  end_group "$beats"
  if kill -0 "$beats" 2>/dev/null; then wait "$beats" 2>/dev/null; fi
  doing=''
  if [[ $unfit ]]; then # no retry is spent; but the next job would fail as well at once
    faults=$((faults < 8 ? faults + 1 : 8))
    if [[ ! $stopping ]]; then run sleep $((1 << faults)); fi
  else
    faults=0
  fi
}

# poll SECONDS HOW: claim one job under the current claim ID; `insist` or `call`.
poll() {
  "$2" poll GET "$jobs/poll" --get --data-urlencode "worker_id=$worker_id" --data-urlencode "content_types=$types" \
    --data-urlencode "wait=$1" --data-urlencode "lease=$lease" --data-urlencode "claim_id=$claim_id" \
    --max-time $(($1 + 15))
}

faults=0
log "worker $worker_id takes $types from $base"
while [[ ! $stopping ]] && ! drained; do
  claim_id=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  patience=$((1 << 40)) # as long as it takes
  doing=poll asked=$SECONDS
  poll "$wait" insist
  got=$?
  doing=''
  # A stop or a drain ended the poll: ask once more for what its answer may have held, to give it back.
  if ((got)); then poll 0 call && [[ $http == 200 ]] || break; fi
  if [[ $http != 200 ]]; then
    log "the bridge refuses this worker: HTTP $http, $(problem poll)"
    exit 1
  fi
  jq '.jobs[0] // empty' "$tmp/poll.body" >"$tmp/job" 2>"$tmp/form"
  if [[ ! -s $tmp/job ]]; then
    if ((SECONDS - asked < 2)) && [[ ! $stopping ]]; then run sleep 0.5; fi # no job, and sooner than asked for
    continue
  fi
  # Only values of the right form are put into an address: others could name another host.
  jq 'def text(form): type == "string" and test("\\A" + form + "\\z");
      def count: type == "number" and . >= 0 and . < 9007199254740992 and . == floor;
      (.job_id | text("[A-Za-z0-9_-]{1,64}")) and
      (.source_file_url | text("/[A-Za-z0-9._~%?=&-][A-Za-z0-9._~%?=&/-]{0,2000}")) and
      (.lease_token | text("[!-~]{1,500}")) and (.task_options | type == "object") and
      (.content_type | text("[a-z0-9._-]{1,50}")) and (.attempt | count) and (.source_size // 0 | count) and
      (.timeout_at | text("[0-9]{4}-[0-9:T.+-]{1,40}Z?"))' "$tmp/job" >"$tmp/form" 2>&1
  if [[ $(<"$tmp/form") != true ]]; then
    log "a claim was not understood and goes back unacknowledged"
    run sleep 1
    continue
  fi
  printf 'X-Lease-Token: %s\n' "$(jq -r .lease_token "$tmp/job")" >"$tmp/lease"
  if [[ $stopping ]]; then
    give_back
  else
    work "$@"
  fi
done
log "worker $worker_id ended"
