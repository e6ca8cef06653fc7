#!/usr/bin/env bash
# Backup of the models. models.txt is most of it: with size, digest and address of every model, a lost file comes back.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'END'
Usage: scripts/backup-models.sh verify  [NAME...] [--dir DIR]
       scripts/backup-models.sh copy    [NAME...] [--dir DIR] --to DIR
       scripts/backup-models.sh restore NAME... [--dir DIR] [--from DIR | --url URL]

  verify    compares the models that are here with the digests in models.txt. NAME: these must be here.
  copy      copies verified models, and models.txt, to another disk or mount; what is there and right is not copied again
  restore   brings models back: from a copy (--from), or by fetch-model.sh from the address in models.txt or --url. A model
            that is here and right stays; one that is damaged is kept as FILE.bad.

  --dir DIR      where the models are (default: /opt/llm-models if it exists, else models/ of the project)
  --models FILE  read this list instead of models.txt
  --help         this text

Nothing gets the name of a model unless size and SHA-256 digest are right. Exit code: 0 when all is well, 1 when a model is
damaged, missing or could not be restored.
END
}

action='' names=() dir='' to='' from='' url='' models=$root/models.txt
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --dir | --to | --from | --url | --models)
            [ -n "${2:-}" ] || die "$1 needs a value (see --help)"
            declare "${1#--}=$2"
            shift
            ;;
        -*) die "unknown option $1 (see --help)" ;;
        *) if [ -z "$action" ]; then action=$1; else names+=("$1"); fi ;;
    esac
    shift
done
[ -r "$models" ] || die "cannot read $models"
if [ -z "$dir" ]; then
    dir=$root/models
    [ ! -d /opt/llm-models ] || dir=/opt/llm-models
fi
for name in "${names[@]}"; do
    [ -n "$(model_field "$name" file "$models")" ] ||
        die "unknown model '$name'. There are: $(model_names "$models" | paste -s -d ' ')"
done

# record NAME: sets file, bytes and sha256.
record() {
    file=$(model_field "$1" file "$models")
    bytes=$(model_field "$1" bytes "$models")
    sha256=$(model_field "$1" sha256 "$models")
    case $file in
        '' | */* | .*) die "$models: file of $1 must be a plain file name" ;;
    esac
    [[ $bytes =~ ^[1-9][0-9]{0,14}$ && $sha256 =~ ^[0-9a-f]{64}$ ]] || die "$models: bytes or sha256 of $1 is not one"
}

# is_whole PATH: true if it is the model of the last record. Sets why otherwise.
is_whole() {
    local size digest
    [ -f "$1" ] || { why=missing; return 1; }
    size=$(stat -L -c %s -- "$1")
    [ "$size" = "$bytes" ] || { why="has $size bytes instead of $bytes"; return 1; }
    digest=$(sha256sum <"$1" | cut -d ' ' -f 1) || { why='cannot be read'; return 1; }
    [ "$digest" = "$sha256" ] || { why="has the wrong SHA-256 digest $digest"; return 1; }
}

# put SOURCE TARGET: a verified copy, under its name only once it is right and on the disk.
put() {
    local part=$2.copying code=0
    rm -f -- "$part"
    if ! cp -- "$1" "$part" || ! sync -- "$part"; then
        why='cannot be copied: is the disk full?'
        code=1
    elif ! is_whole "$part"; then
        why="the copy $why"
        code=1
    else
        chmod 644 "$part" && mv -f -- "$part" "$2" || code=1
    fi
    [ "$code" -eq 0 ] || rm -f -- "$part"
    return "$code"
}

failed=0
report() { printf '%-24s %s\n' "$1" "$2"; }

verify() {
    local seen=0
    [ -d "$dir" ] || die "there is no folder $dir"
    if [ ${#names[@]} -eq 0 ]; then
        mapfile -t all < <(model_names "$models")
    else
        all=("${names[@]}")
    fi
    for name in "${all[@]}"; do
        record "$name"
        if [ ${#names[@]} -eq 0 ] && [ ! -e "$dir/$file" ]; then continue; fi
        seen=$((seen + 1))
        if is_whole "$dir/$file"; then
            report "$name" "ok: $dir/$file"
        else
            report "$name" "BAD: $dir/$file $why"
            failed=1
        fi
    done
    # A file that models.txt does not know has no backup.
    for path in "$dir"/*.gguf; do
        [ -e "$path" ] || continue
        sed -n 's/[[:space:]]*$//; s/^file:[[:space:]]*//p' "$models" | grep -F -x -q -- "${path##*/}" ||
            report "${path##*/}" "not in $models: add a record, or copy it yourself"
    done
    [ "$seen" -gt 0 ] || die "none of the models of $models is in $dir"
}

copy() {
    [ -n "$to" ] || die "copy needs --to DIR"
    mkdir -p -- "$to" || die "cannot make the folder $to"
    [ ! "$to" -ef "$dir" ] || die "--to is the folder of the models itself"
    [ ${#names[@]} -gt 0 ] || mapfile -t names < <(model_names "$models" | while IFS= read -r name; do
        [ ! -e "$dir/$(model_field "$name" file "$models")" ] || printf '%s\n' "$name"
    done)
    [ ${#names[@]} -gt 0 ] || die "none of the models of $models is in $dir"
    for name in "${names[@]}"; do
        record "$name"
        if is_whole "$to/$file"; then
            report "$name" "already there: $to/$file"
        elif ! is_whole "$dir/$file"; then
            # A damaged file must never replace a good copy.
            report "$name" "NOT COPIED: $dir/$file $why"
            failed=1
        elif put "$dir/$file" "$to/$file"; then
            report "$name" "copied: $to/$file"
        else
            report "$name" "NOT COPIED: $why"
            failed=1
        fi
    done
    [ "$models" -ef "$to/models.txt" ] || cp -- "$models" "$to/models.txt" || die "cannot write $to/models.txt"
}

restore() {
    [ ${#names[@]} -gt 0 ] || die "restore needs the names of models (see --help)"
    [ -z "$from" ] || [ -z "$url" ] || die "--from and --url exclude each other"
    [ -z "$url" ] || [ ${#names[@]} -eq 1 ] || die "--url is for one model at a time"
    [ -z "$from" ] || [ -d "$from" ] || die "there is no folder $from"
    mkdir -p -- "$dir" || die "cannot make the folder $dir"
    for name in "${names[@]}"; do
        record "$name"
        if is_whole "$dir/$file"; then
            report "$name" "already here: $dir/$file"
        elif [ -z "$from" ]; then
            if "$root/scripts/fetch-model.sh" "$name" --dir "$dir" --models "$models" ${url:+--url "$url"} >/dev/null; then
                report "$name" "fetched: $dir/$file"
            else
                report "$name" "NOT RESTORED: see above"
                failed=1
            fi
        elif ! is_whole "$from/$file"; then
            report "$name" "NOT RESTORED: $from/$file $why"
            failed=1
        else
            [ ! -e "$dir/$file" ] || mv -f -- "$dir/$file" "$dir/$file.bad"
            if put "$from/$file" "$dir/$file"; then
                report "$name" "restored: $dir/$file"
            else
                report "$name" "NOT RESTORED: $why"
                failed=1
            fi
        fi
    done
}

case $action in
    verify) verify ;;
    copy) copy ;;
    restore) restore ;;
    '') usage >&2; exit 2 ;;
    *) die "unknown action '$action': verify, copy or restore (see --help)" ;;
esac
exit "$failed"
