#!/usr/bin/env bash
# Downloads a model that models.txt describes, and lets only the right file through.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'END'
Usage: scripts/fetch-model.sh NAME [--dir DIR] [--url URL] [--models FILE]
       scripts/fetch-model.sh --list

Downloads the model NAME, as models.txt describes it, and prints the path of the file.

  --list         the models there are: size, memory needed, licence
  --dir DIR      where to put the file (default: models/ of the project)
  --url URL      fetch from this address instead (a mirror, a file server of yours)
  --models FILE  read this list instead of models.txt
  --help         this text

The environment variable QUERN_MODELS_URL names a mirror for all models: FILE is fetched from $QUERN_MODELS_URL/FILE.

The download goes to FILE.part. An interrupted one is continued when the same command is run again. Only a file of exactly
the right size and SHA-256 digest gets its final name, so a model that has its name is whole. One that is already there
is checked and kept.
END
}

size_of() { stat -c %s -- "$1" 2>/dev/null || echo 0; }
digest_of() { sha256sum <"$1" | cut -d ' ' -f 1; }
mb() { awk -v n="$1" 'BEGIN { printf "%.1f MB", n / 1e6 }'; }

list_models() {
    local name state file
    printf '%-24s %12s %12s  %s\n' NAME DOWNLOAD 'NEEDS RAM' LICENCE
    while IFS= read -r name; do
        file=$dir/$(model_field "$name" file "$models")
        state=
        [ -f "$file" ] && state=' [here]'
        printf '%-24s %12s %12s  %s%s\n' "$name" "$(mb "$(model_field "$name" bytes "$models")")" \
            "$(model_field "$name" ram_mb "$models") MB" "$(model_field "$name" licence "$models")" "$state"
    done < <(model_names "$models")
}

# download URL: one attempt, continuing $part where it ends. Sets $http to the last status; returns curl's exit code.
download() {
    local progress=(--no-progress-meter) code=0
    [ -t 2 ] && progress=(--progress-bar)
    # Two guards against a file that has no end: --max-filesize where the length is announced, a limit on what may be
    # written (in KiB) where it is not. With -C - curl asks for the rest only, and itself refuses an answer that is not that.
    http=$(
        ulimit -c 0
        ulimit -f $((bytes / 1024 + 1))
        exec curl --fail --location --proto '=http,https' --connect-timeout 20 --speed-limit 1 --speed-time 60 \
            --max-filesize "$bytes" "${progress[@]}" --show-error -C - -o "$part" -w '%{http_code}' -- "$1"
    ) || code=$?
    return "$code"
}

# fetch_from URL: downloads until $part has $bytes bytes. Returns 1, with the reason said, when this address will not do.
fetch_from() {
    local code now best failures=0 start
    start=$(size_of "$part")
    best=$start
    while :; do
        code=0
        download "$1" || code=$?
        now=$(size_of "$part")
        # A download that got further than ever before has earned a new set of attempts.
        if [ "$now" -gt "$best" ]; then
            best=$now
            failures=0
        fi
        if [ "$now" -gt "$bytes" ]; then
            : >"$part"
            say "The file at that address is longer than the $bytes bytes of models.txt: not this model." \
                "What came is thrown away."
            return 1
        fi
        case $code in
            0)
                [ "$now" -eq "$bytes" ] && return 0
                : >"$part"
                say "The file at that address has $now bytes, and models.txt says $bytes: not this model." \
                    "What came is thrown away."
                return 1
                ;;
            6)
                [ "$best" -gt "$start" ] || {
                    say "The server's name cannot be resolved: is this machine offline, or its DNS not working?"
                    return 1
                }
                ;;
            7)
                [ "$best" -gt "$start" ] || {
                    say "The server does not accept connections: is this machine offline, or behind a firewall?"
                    return 1
                }
                ;;
            22)
                case $http in
                    404 | 410)
                        say "There is no such file at that address (HTTP $http). It may have moved: find it and pass --url."
                        return 1
                        ;;
                    401 | 403)
                        say "The server refuses to give the file (HTTP $http)." \
                            "Download it in a browser, or pass the --url of a mirror."
                        return 1
                        ;;
                    416)
                        # What is here is longer than what is there: it cannot be continued.
                        say "The server has nothing beyond byte $now; starting again from the beginning."
                        : >"$part"
                        ;;
                    408 | 429 | 5??) ;;
                    *) say "The server answered with HTTP $http."; return 1 ;;
                esac
                ;;
            23) die "cannot write $part: is the disk full? What is there is kept; the same command continues." ;;
            33)
                say "The server cannot continue a download; starting again from the beginning."
                : >"$part"
                ;;
            35 | 51 | 58 | 59 | 60 | 77 | 83)
                say "No secure connection to the server. Is the clock right, and the package ca-certificates installed?"
                return 1
                ;;
            63 | 153)
                : >"$part"
                say "The file at that address is longer than the $bytes bytes of models.txt: not this model." \
                    "What came is thrown away."
                return 1
                ;;
            1 | 2 | 3) say "curl cannot use the address $1"; return 1 ;;
        esac
        failures=$((failures + 1))
        if [ "$failures" -ge 6 ]; then
            say "No further after $failures attempts (curl's code $code, HTTP $http)."
            return 1
        fi
        say "Interrupted at $(mb "$now") of $(mb "$bytes"); trying again."
        sleep $((failures - 1))
    done
}

# check_digest FILE: true if the file is the model; says what it does, because hashing a gigabyte takes seconds.
check_digest() {
    say "Checking the SHA-256 digest of $(mb "$bytes") ..."
    digest=$(digest_of "$1") && [ "$digest" = "$sha256" ]
}

name='' dir=$root/models url='' models=$root/models.txt list=0
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --list) list=1 ;;
        --dir | --url | --models)
            [ -n "${2:-}" ] || die "$1 needs a value (see --help)"
            declare "${1#--}=$2"
            shift
            ;;
        -*) die "unknown option $1 (see --help)" ;;
        *)
            [ -z "$name" ] || die "one model at a time (see --help)"
            name=$1
            ;;
    esac
    shift
done
[ -r "$models" ] || die "cannot read $models"
if [ "$list" = 1 ]; then
    list_models
    exit 0
fi
[ -n "$name" ] || { usage >&2; exit 2; }

file=$(model_field "$name" file "$models")
bytes=$(model_field "$name" bytes "$models")
sha256=$(model_field "$name" sha256 "$models")
licence=$(model_field "$name" licence "$models")
restriction=$(model_field "$name" restriction "$models")
mapfile -t urls < <(model_field "$name" url "$models")
[ -n "$file" ] || die "unknown model '$name'. There are: $(model_names "$models" | paste -s -d ' ')"
case $file in
    */* | .*) die "$models: file of $name must be a plain file name" ;;
esac
[[ $bytes =~ ^[1-9][0-9]{0,14}$ ]] || die "$models: bytes of $name is not a size"
[[ $sha256 =~ ^[0-9a-f]{64}$ ]] || die "$models: sha256 of $name is not a digest"
if [ -n "$url" ]; then
    urls=("$url")
elif [ -n "${QUERN_MODELS_URL:-}" ]; then
    urls=("${QUERN_MODELS_URL%/}/$file")
fi

[ -d "$dir" ] || mkdir -p -- "$dir" || die "cannot make the folder $dir"
dir=$(cd -- "$dir" && pwd)
target=$dir/$file
part=$target.part

say "Model:    $name, $(mb "$bytes")"
say "Licence:  $licence"
if [ -n "$restriction" ]; then
    say ""
    say "  *** $restriction ***"
    say ""
fi

if [ -e "$target" ]; then
    if [ "$(size_of "$target")" -eq "$bytes" ] && check_digest "$target"; then
        say "Already here, whole and verified: $target"
        printf '%s\n' "$target"
        exit 0
    fi
    if [ ${#urls[@]} -eq 0 ]; then
        die "$target is damaged. It is shipped with quern: git checkout -- models/$file"
    fi
    mv -f -- "$target" "$target.bad" || die "cannot move the damaged $target away"
    say "$target is not this model (wrong size or digest): moved aside to $file.bad."
fi
[ ${#urls[@]} -gt 0 ] || die "$name is shipped with quern, in models/, and has no address to fetch it from"
have curl || die "curl is missing. Install it: apt-get install curl ca-certificates"

[ -w "$dir" ] || die "cannot write to $dir"
existed=$([ -e "$part" ] && echo 1 || echo 0)
# The part file is its own lock: two downloads into one file would mix.
exec 9>>"$part"
flock -n 9 || die "another download of $file is running. If it hangs, end it first."

if [ "$(size_of "$part")" -gt "$bytes" ]; then
    say "$file.part is longer than the whole file: starting again from the beginning."
    : >"$part"
fi
resumed=$(size_of "$part")

free=$(df -P -k -- "$dir" | awk 'NR == 2 { print $4 }')
need=$(((bytes - resumed) / 1024 + 1))
if [ -n "$free" ] && [ "$free" -lt "$need" ]; then
    [ "$existed" = 1 ] || rm -f -- "$part"
    die "not enough disk space in $dir: $(mb $((need * 1024))) needed, $(mb $((free * 1024))) free. Make room, or pass --dir."
fi

# On Ctrl-C the part stays, and the message says so.
# shellcheck disable=SC2317 # called by the trap
interrupted() {
    [ -s "$part" ] || rm -f -- "$part"
    say ""
    say "Interrupted. What has come is kept; the same command continues."
    exit 130
}
trap interrupted INT TERM HUP

for address in "${urls[@]}"; do
    say "From:     $address"
    for attempt in resumed anew; do
        if [ "$(size_of "$part")" -gt 0 ]; then
            say "Continuing at $(mb "$(size_of "$part")")."
        fi
        if [ "$(size_of "$part")" -lt "$bytes" ]; then
            fetch_from "$address" || break
        fi
        if check_digest "$part"; then
            # The name appears only now, in one step, and only once the bytes are on the disk.
            if ! sync -- "$part" || ! mv -f -- "$part" "$target"; then die "cannot give $part its final name"; fi
            say "Verified: $target"
            printf '%s\n' "$target"
            exit 0
        fi
        : >"$part"
        if [ "$attempt" = resumed ] && [ "$resumed" -gt 0 ]; then
            say "The continued file has the wrong digest: its beginning was bad. Fetching it again from the start."
            resumed=0
            continue
        fi
        say "The file has the wrong SHA-256 digest: $digest"
        say "models.txt says:                         $sha256"
        say "It is not the file that models.txt describes, and has been thrown away."
        break
    done
done
if [ -s "$part" ]; then
    die "$name was not fetched. The first $(mb "$(size_of "$part")") are kept; the same command continues."
fi
rm -f -- "$part"
die "$name was not fetched."
