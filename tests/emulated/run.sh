#!/usr/bin/env bash
# Proves the kernel levels that this machine may lack in emulated ones: a Linux boots in Bochs as various CPUs, and init.c runs
# there.
#
# Usage: tests/emulated/run.sh BUILD_FOLDER [MACHINE...]. The machines are made by make.sh and run in build-emulated/, without
# root or KVM. Each check is a line "CHECK ok ..." or "CHECK FAILED ...". Ends with 77 if a machine's parts cannot be had, and
# with 1 if a machine did not come to the end of its checks, whatever they said.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../../scripts/common.sh"

[ -x "${1:-}/checkkernels" ] || die "usage: $0 BUILD_FOLDER [MACHINE...]"
build=$1
shift
here=$root/tests/emulated
folder=$root/build-emulated
memory=512 # MiB

# name, CPU model of the emulator, what init.c is told, number of a CPU feature that the kernel shall not use (600: AMX-TILE)
machines=(
    "sapphire-rapids sapphire_rapids best=amx,filter=yes,levels=amx+avx512+avxvnni"
    "tiger-lake      tigerlake       best=avx512,lacks=AMX-TILE,levels=avx512"
    "arrow-lake      arrow_lake      best=avxvnni,lacks=AVX-512,levels=avxvnni"
    "no-tiles-saved  sapphire_rapids best=avx512,lacks=saves   600"
)

"$here/make.sh" "$folder"
kernel=$(compgen -G "$folder/kernel/boot/vmlinuz*" | head -n 1)

# The programs without their debug information, and the logits that this machine computes.
cc -std=gnu17 -O1 -static "$here/init.c" -o "$folder/init" -lm
for program in checkkernels dump-logits quern-server; do
    strip -o "$folder/$program" "$build/$program"
done
model=$root/models/quern-tiny-q4_k_m.gguf
seq 300 7 580 >"$folder/ids" # 41 tokens: two tiles of 16 and a rest
QUERN_CPU=scalar "$build/dump-logits" "$model" "$folder/ids" "$folder/expected.f32"

# attention_bits LEVEL: what checkkernels, whose words are read, says of the bits of that level's attention. Scalar's they are not
# for amx; but Bochs' instructions and our model of them (tests/checkkernels/model) must come to the same.
attention_bits() { tr -d '\r' | awk -v level="$1" '$1 == level && $2 == "attention" && $(NF - 1) == "bits" { print $NF }'; }
modelled=$("$build/checkkernels" 'amx(model) attention' | attention_bits 'amx(model)') || true # compared below

emulator=
stop_emulator() { [ -z "$emulator" ] || kill "$emulator" 2>/dev/null || true; }
trap stop_emulator EXIT

# boot NAME MODEL TOLD [FEATURE]
boot() {
    local name=$1 model_of_cpu=$2 told=$3 machine=$folder/$1 levels without=580${4:+,$4}
    told=${told//,/ }
    levels=${told//+/,}
    rm -rf "$machine"
    mkdir -p "$machine"
    # Time by the timer's ticks alone, because the emulator's time stamps run at another rate than its CPUID says. 580 is FSRM,
    # which this kernel's memmove expects to come with ERMS. A panic ends in a reset, and the ROM switches the machine off when it
    # starts again.
    local words="console=ttyS0 loglevel=1 panic=-1 acpi=off notsc highres=off nohz=off mitigations=off cryptomgr.notests"
    python3 "$here/image.py" "$kernel" "$machine" "$memory" "$words clearcpuid=$without $levels" \
        "init=$folder/init" "checkkernels=$folder/checkkernels" "dump-logits=$folder/dump-logits" \
        "quern-server=$folder/quern-server" "model.gguf=$model" "ids=$folder/ids" "expected.f32=$folder/expected.f32"
    cat >"$machine/bochsrc" <<END
display_library: nogui
config_interface: textconfig
cpu: model=$model_of_cpu, ips=100000000, reset_on_triple_fault=1
megs: $memory
pci: enabled=0
romimage: file=boot.rom
vgaromimage: file=vga.rom
optramimage1: file=$name/kernel.bin, address=0x100000
optramimage2: file=$name/params.bin, address=0x90000
optramimage3: file=$name/initrd.bin, address=0x10000000
boot: floppy
clock: sync=none, time0=1700000000
com1: enabled=1, mode=file, dev=$name/console.txt
log: $name/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
END
    : >"$machine/console.txt"
    say "Booting $name"
    # What it exits with says nothing: being switched off is a panic to it. From its folder, because its configuration knows no
    # names with spaces.
    (cd "$folder" && exec timeout 1800 bochs-3.0/bochs -q -f "$name/bochsrc") >"$machine/bochs.out" 2>&1 </dev/null &
    emulator=$!
    tail -n +1 -f --pid="$emulator" "$machine/console.txt" | sed -u 's|\r$||'
    wait "$emulator" || true
    emulator=
    grep -q '^CHECK END' "$machine/console.txt" || {
        tail -n 5 "$machine/bochs.log" "$machine/bochs.out" >&2
        die "$name did not come to the end of its checks"
    }
    [[ $levels = *levels=amx* ]] || return 0
    if [ -n "$modelled" ] && [ "$(attention_bits amx <"$machine/console.txt")" = "$modelled" ]; then
        echo "CHECK ok attention-as-modelled amx"
    else
        echo "CHECK FAILED attention-as-modelled amx"
    fi
}

for line in "${machines[@]}"; do
    read -ra words <<<"$line"
    [ $# -eq 0 ] || [[ " $* " = *" ${words[0]} "* ]] || continue
    boot "${words[@]}"
done
