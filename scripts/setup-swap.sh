#!/usr/bin/env bash
# Sets up a swap file: a safety net for moments when the machine runs out of memory. Not for the model to live in.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'END'
Usage: sudo scripts/setup-swap.sh [--size SIZE] [--file PATH] [--swappiness N] [--dry-run]

Makes a swap file, switches it on, writes it into /etc/fstab (once) and sets vm.swappiness. Running it again changes nothing
that is already so. It refuses where a swap file does not work (btrfs, ZFS, tmpfs, network file systems) or where it would
leave less than 2 GiB of the disk free.

  --size SIZE       how large, in MiB or with M or G (default: 4G)
  --file PATH       where (default: /swapfile)
  --swappiness N    0 to 100: how eagerly the kernel swaps (default: 10, only when memory really runs short)
  --dry-run         print what would be done and change nothing
  --help            this text

QUERN_ROOT=DIR takes etc/fstab, etc/sysctl.d and proc/swaps below DIR instead of those of the system (for tests).

To undo it: swapoff PATH && rm PATH /etc/sysctl.d/60-local-llm-swap.conf, and delete its line in /etc/fstab.
END
}

size=4G file=/swapfile swappiness=10 dry_run=0
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --dry-run) dry_run=1 ;;
        --size | --file | --swappiness)
            [ -n "${2:-}" ] || die "$1 needs a value (see --help)"
            declare "${1#--}=$2"
            shift
            ;;
        *) die "unknown option $1 (see --help)" ;;
    esac
    shift
done
[[ $size =~ ^([1-9][0-9]{0,6})([MG]?)$ ]] || die "--size takes a number of MiB, or one with M or G, not '$size'"
mib=${BASH_REMATCH[1]}
[ "${BASH_REMATCH[2]}" != G ] || mib=$((mib * 1024))
[[ $swappiness =~ ^([0-9]|[1-9][0-9]|100)$ ]] || die "--swappiness takes 0 to 100, not '$swappiness'"
# fstab separates its fields with white space, and a name starting elsewhere than at / would mean another file tomorrow.
[[ $file =~ ^/[A-Za-z0-9._/-]+$ ]] || die "--file takes an absolute path of plain characters, not '$file'"
[ "$dry_run" = 1 ] || [ -n "${QUERN_ROOT:-}" ] || [ "$(id -u)" -eq 0 ] || die "this needs root: sudo $0"
fstab=${QUERN_ROOT:-}/etc/fstab
sysctl_file=${QUERN_ROOT:-}/etc/sysctl.d/60-local-llm-swap.conf

# run COMMAND...: does it, or with --dry-run says it.
run() {
    if [ "$dry_run" = 1 ]; then
        printf 'would run: %s\n' "$*"
    else
        "$@"
    fi
}

# The swap areas in use, by path.
is_active() { awk -v want="$file" 'NR > 1 && $1 == want { found = 1 } END { exit !found }' "${QUERN_ROOT:-}/proc/swaps"; }

make_file() {
    local folder=${file%/*} type free have_bytes=0
    folder=${folder:-/}
    [ -d "$folder" ] || die "there is no folder $folder"
    [ ! -L "$file" ] || die "$file is a symbolic link; name the file itself"
    if [ -e "$file" ]; then
        [ -f "$file" ] || die "$file exists and is not a regular file"
        have_bytes=$(stat -c %s -- "$file")
        # Only a file that was made as swap may be written over.
        if [ "$(blkid -p -o value -s TYPE -- "$file" 2>/dev/null)" != swap ]; then
            die "$file exists and is not a swap file: not touching it. Remove it, or pass another --file"
        fi
        if [ "$have_bytes" -eq $((mib * 1048576)) ]; then
            say "$file exists and has the right size."
            run chmod 600 "$file"
            return
        fi
        say "$file has $((have_bytes / 1048576)) MiB instead of $mib: making it anew."
    fi
    type=$(stat -f -c %T -- "$folder")
    case $type in
        ext2/ext3 | xfs | f2fs) ;;
        btrfs)
            die "$folder is on btrfs, where a swap file needs a subvolume without copy-on-write:" \
                "use 'btrfs filesystem mkswapfile', or a partition"
            ;;
        *) die "$folder is on $type, which does not carry a swap file: pass --file on ext4 or XFS, or use a partition" ;;
    esac
    free=$(($(df -P -k -- "$folder" | awk 'NR == 2 { print $4 }') / 1024 + have_bytes / 1048576))
    [ "$free" -ge $((mib + 2048)) ] ||
        die "not enough disk in $folder: $free MiB are free; $mib for the swap file and 2048 to spare are needed." \
            "Pass a smaller --size"
    # Under another name until it is whole; never readable by others, for memory of all processes goes there.
    local part=$file.part
    run rm -f -- "$part"
    [ "$dry_run" = 1 ] || trap 'rm -f -- "$file.part"' EXIT
    run install -m 600 /dev/null "$part"
    # Zeros are written instead of fallocate's unwritten extents, which not every kernel swaps to.
    run dd if=/dev/zero "of=$part" bs=1M "count=$mib" conv=fsync status=none
    run mkswap -q "$part"
    run mv -f -- "$part" "$file"
    [ "$dry_run" = 1 ] || trap - EXIT
    say "Swap file: $file, $mib MiB."
}

if is_active; then
    if [ -e "$file" ] && [ "$(stat -c %s -- "$file")" -ne $((mib * 1048576)) ]; then
        die "$file is in use with another size. First: swapoff $file"
    fi
    say "$file is in use already."
else
    make_file
    run swapon "$file"
fi

if [ -f "$fstab" ] && awk -v want="$file" '$1 == want && $3 == "swap" { found = 1 } END { exit !found }' "$fstab"; then
    say "$fstab has it already."
else
    say "Adding it to $fstab, for the next boot."
    if [ "$dry_run" = 1 ]; then
        printf 'would append to %s: %s none swap sw 0 0\n' "$fstab" "$file"
    else
        # A last line without a line feed must not swallow this one.
        [ ! -s "$fstab" ] || [ -z "$(tail -c 1 "$fstab")" ] || echo >>"$fstab"
        printf '%s none swap sw 0 0\n' "$file" >>"$fstab"
    fi
fi

if [ "$(cat "$sysctl_file" 2>/dev/null)" = "vm.swappiness = $swappiness" ]; then
    say "vm.swappiness is set to $swappiness already."
else
    say "Setting vm.swappiness to $swappiness: the model is to stay in memory."
    if [ "$dry_run" = 1 ]; then
        printf 'would write %s: vm.swappiness = %s\n' "$sysctl_file" "$swappiness"
    else
        mkdir -p -- "${sysctl_file%/*}"
        printf 'vm.swappiness = %s\n' "$swappiness" >"$sysctl_file"
    fi
fi
run sysctl -q -w "vm.swappiness=$swappiness"
[ "$dry_run" = 1 ] || say "Done. Check: swapon --show; free -h"
