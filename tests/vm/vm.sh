#!/usr/bin/env bash
# Runs a program on a Linux kernel that has SCTP, where this machine's own kernel has none.
#
#   tests/vm/vm.sh PROGRAM [ARGUMENT...]
#
# What the program sees: this machine's files at the same paths (so what was compiled here runs there), as root, in the
# same working folder, loopback only. What it writes goes to memory and is forgotten, except below $VM_OUT.
# sctp, tc (netem, u32), dummy and veth modules are loaded. The exit status is the program's.
#
# VM_OUT       folder that the program may write, same path inside      a temporary one, removed
# VM_CACHE     kernel, initrd, what is known about KVM here             ~/.cache/strowger-guest
# VM_CPUS      2      VM_MEM 3G      VM_TIMEOUT 3000 (seconds)
# VM_ACCEL     kvm, tcg, or auto: KVM if a guest comes up under it within 20 s (it may hang), else TCG, some 15 times slower
# VM_ICOUNT    set: TCG with one processor counts instructions, one is a nanosecond of guest time: CPU seconds repeat within 0.5 %
# VM_ENV       names of further variables to hand over (PATH, HOME, VM_ICOUNT and TESTS_* always go; TESTS_SLOW=15 is added under TCG)
#
# Exit status 2: something is missing here (it says what); 3: the guest did not come to its end.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/strowger-guest}
say() { echo "vm: $*" >&2; }
missing() { say "$1"; exit 2; }

[ $# -ge 1 ] || missing "usage: vm.sh PROGRAM [ARGUMENT...]"
program=$(command -v "$1") || missing "no program $1"
program=$(realpath "$program")
shift
[ "$(uname -m)" = x86_64 ] || missing "made for x86_64; on $(uname -m) use a kernel with SCTP (modprobe sctp) and run the tests there"
for pair in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static modprobe:kmod cpio:cpio xz:xz-utils; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" > /dev/null ||
        missing "no ${pair%%:*} here: apt-get install ${pair##*:}"
done
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$cache"

# One start at a time prepares the cache; the others wait for it.
exec 9> "$cache/lock" # held until the guest starts
flock 9

# --- the kernel: what Debian's linux-image-amd64 stands for, unpacked, never installed ------------------------------
newest_kernel() {
    local name
    name=$(apt-cache depends linux-image-amd64 2> /dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | tail -1)
    [ -n "$name" ] && apt-cache show "$name" > /dev/null 2>&1 && { echo "$name"; return; }
    apt-cache search --names-only '^linux-image-[0-9].*-amd64(-unsigned)?$' | cut -d' ' -f1 |
        grep -Ev 'cloud|rt|dbg' | sort -V | tail -1
}
if [ ! -f "$cache/kernel/whole" ]; then
    package=$(newest_kernel)
    [ -n "$package" ] || missing "apt knows no Debian kernel image (as root: apt-get update)"
    say "fetching $package"
    rm -rf "$cache/fetch" "$cache/kernel" "$cache/initrd.gz"
    mkdir -p "$cache/fetch" "$cache/kernel"
    (cd "$cache/fetch" && apt-get -qq -o APT::Sandbox::User=root download "$package" >&2) ||
        missing "could not fetch $package (as root: apt-get update)"
    dpkg-deb -x "$cache"/fetch/*.deb "$cache/kernel"
    rm -rf "$cache/fetch"
    echo "$package" > "$cache/kernel/whole"
fi
modules_root=$cache/kernel
[ -d "$modules_root/lib/modules" ] || modules_root=$cache/kernel/usr
version=$(basename "$modules_root"/lib/modules/*)
vmlinuz=$(echo "$cache"/kernel/boot/vmlinuz-*)

# --- the initrd: busybox, the modules in the order they load, and guest-init ----------------------------------------
wanted=(virtio_pci 9p 9pnet_virtio overlay crc32c_generic sctp sch_ingress cls_u32 cls_matchall act_gact sch_netem dummy veth)
if [ ! -f "$cache/initrd.gz" ] || [ "$here/guest-init" -nt "$cache/initrd.gz" ] || [ "$here/vm.sh" -nt "$cache/initrd.gz" ]; then
    depmod -b "$modules_root" "$version"
    room=$cache/initrd
    rm -rf "$room"
    mkdir -p "$room/bin" "$room/modules"
    cp "$(command -v busybox)" "$room/bin/busybox"
    cp "$here/guest-init" "$room/init"
    chmod +x "$room/init"
    for module in "${wanted[@]}"; do
        modprobe -d "$modules_root" -S "$version" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p' || true
    done | awk '!seen[$0]++' | while read -r file; do
        name=$(basename "$file")
        case $name in
            *.xz) xz -dc "$file" > "$room/modules/${name%.xz}" && echo "${name%.xz}" ;;
            *.zst) zstd -dcq "$file" > "$room/modules/${name%.zst}" && echo "${name%.zst}" ;;
            *) cp "$file" "$room/modules/$name" && echo "$name" ;;
        esac
    done > "$cache/modules"
    cp "$cache/modules" "$room/modules/order"
    (cd "$room" && find . | cpio -o -H newc --quiet | gzip -1) > "$cache/initrd.new"
    rm -rf "$room"
    mv "$cache/initrd.new" "$cache/initrd.gz"
fi

# --- how fast: KVM only where this very kernel is seen to come up under it ------------------------------------------
cpus=${VM_CPUS:-2} accelerator=${VM_ACCEL:-auto}
[ -z "${VM_ICOUNT:-}" ] || cpus=1 accelerator=icount
machine=(-m "${VM_MEM:-3G}" -smp "$cpus" -display none -monitor none -vga none -nic none -no-reboot -serial stdio
    -kernel "$vmlinuz" -initrd "$cache/initrd.gz")
# no_timer_check: on a busy host the emulated timer may come too late for that check, and the kernel panics.
line="console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on no_timer_check"
if [ "$accelerator" = auto ]; then
    known=$cache/accelerator-$(cat /proc/sys/kernel/random/boot_id)
    if [ ! -f "$known" ]; then
        rm -f "$cache"/accelerator-*
        echo tcg > "$known"
        if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
            say "trying KVM (20 s at most)"
            timeout -k 2 20 qemu-system-x86_64 -accel kvm -cpu host "${machine[@]}" -append "$line probe" \
                < /dev/null 2> /dev/null | grep -q 'vm: alive' && echo kvm > "$known" || true
        fi
    fi
    accelerator=$(cat "$known")
fi
flock -u 9
case $accelerator in
    kvm) speed=(-accel kvm -cpu host) slow=1 ;;
    tcg) speed=(-accel "tcg,thread=multi" -cpu max) slow=15 ;;
    icount) speed=(-accel tcg -cpu max -icount "shift=0,sleep=off") slow=15 ;;
    *) missing "VM_ACCEL is kvm, tcg or auto, not $accelerator" ;;
esac
say "$(cat "$cache/kernel/whole") under $accelerator"

# --- the job: a small folder the guest mounts as /run/job -----------------------------------------------------------
job=$(mktemp -d)
mkdir "$job/share"
out=$(realpath -m "${VM_OUT:-$job/out}")
mkdir -p "$out"
echo "$out" > "$job/share/out"
{
    for name in PATH HOME VM_ICOUNT $(compgen -e TESTS_ || true) ${VM_ENV:-}; do
        [ -z "${!name+set}" ] || printf 'export %s=%q\n' "$name" "${!name}"
    done
    printf 'export VM_OUT=%q IN_VM=1 TESTS_SLOW=%q\ncd %q\nexec' "$out" "$slow" "$PWD"
    printf ' %q' "$program" "$@"
    echo
} > "$job/share/job.sh"

share() { # mount tag, path, further options
    echo "-fsdev local,id=$1,path=$2,security_model=none$3 -device virtio-9p-pci,fsdev=$1,mount_tag=$1"
}
case $out$job in *[\ ,]*) missing "no spaces or commas in the path $out" ;; esac
# The guest is root: it may read this machine's files, and write only $out. Whoever ends this script ends the guest.
trap '[ ! -s "$job/pid" ] || kill "$(cat "$job/pid")" 2> /dev/null || true; rm -rf "$job"' EXIT
trap 'exit 143' TERM INT HUP
{
    # shellcheck disable=SC2046
    timeout --foreground -k 5 "${VM_TIMEOUT:-3000}" qemu-system-x86_64 "${speed[@]}" "${machine[@]}" -append "$line" \
        $(share host / ,readonly=on,multidevs=remap) $(share job "$job/share" ,readonly=on) $(share out "$out" "") \
        < /dev/null 2> "$job/complaints" &
    echo $! > "$job/pid"
    wait
} | sed -u 's/\r//g' | tee "$job/console" | sed -u '/^vm: exit status [0-9]*$/d' &
wait $! || true
rm -f "$job/pid"
status=$(sed -n 's/^vm: exit status \([0-9]*\)$/\1/p' "$job/console" | tail -1)
if [ -z "$status" ]; then
    say "the guest did not come to its end within ${VM_TIMEOUT:-3000} s"
    cat "$job/complaints" >&2
    exit 3
fi
exit "$status"
