# shellcheck shell=bash
# Sourced: how a directory becomes a bootable disk image, without root's loop devices or mounts.
#
# The disk boots with BIOS and with UEFI: GPT, GRUB's core in a BIOS boot partition, the same GRUB
# on an EFI system partition, and the root file system last so that it can grow. Partition numbers
# are those of Debian's cloud images (1 root, 14 BIOS boot, 15 EFI).

# In sectors of 512 bytes.
readonly BIOS_START=2048 BIOS_SIZE=6144 EFI_START=8192 EFI_SIZE=32768 ROOT_START=40960

say() { echo "image: $*" >&2; }

# Overwrites bytes of a file: patch FILE OFFSET BYTES...
patch() {
    local file=$1 offset=$2
    shift 2
    # shellcheck disable=SC2059 # the escapes are the point
    printf "$(printf '\\x%02x' "$@")" | dd of="$file" bs=1 seek="$offset" conv=notrunc status=none
}

# The eight bytes of a number, lowest first.
le64() {
    local i n=$1
    for i in 0 8 16 24 32 40 48 56; do echo $(((n >> i) & 255)); done
}

# Unpacks GRUB's tools and modules into a directory; nothing is installed.
fetch_grub() {
    local dir=$1
    mkdir -p "$dir/deb"
    (
        cd "$dir/deb" || exit
        # apt's own sandbox user cannot write here.
        apt-get -qq -o APT::Sandbox::User=root download grub-common grub-pc-bin grub-efi-amd64-bin
    )
    for deb in "$dir"/deb/*.deb; do dpkg-deb -x "$deb" "$dir"; done
    rm -r "$dir/deb"
}

# make_disk ROOT_DIR WORK_DIR SIZE_MIB KERNEL_ARGUMENTS: writes WORK_DIR/disk.raw.
# ROOT_DIR has /vmlinuz and /initrd.img.
make_disk() {
    local root=$1 work=$2 mib=$3 arguments=$4
    local disk=$work/disk.raw uuid start=()
    uuid=$(cat /proc/sys/kernel/random/uuid)
    [[ -x $work/grub/usr/bin/grub-mkimage ]] || fetch_grub "$work/grub"
    local grub=$work/grub/usr/bin/grub-mkimage modules=$work/grub/usr/lib/grub

    mkdir -p "$root/boot/grub"
    cat >"$root/boot/grub/grub.cfg" <<CFG
set timeout=0
linux /vmlinuz root=UUID=$uuid ro $arguments
initrd /initrd.img
boot
CFG
    cat >"$work/early.cfg" <<CFG
search.fs_uuid $uuid root
set prefix=(\$root)/boot/grub
CFG
    local common=(part_gpt ext2 normal linux search_fs_uuid configfile boot)
    "$grub" -d "$modules/i386-pc" -O i386-pc -o "$work/core.img" -c "$work/early.cfg" \
        -p /boot/grub biosdisk "${common[@]}"
    "$grub" -d "$modules/x86_64-efi" -O x86_64-efi -o "$work/bootx64.efi" -c "$work/early.cfg" \
        -p /boot/grub fat "${common[@]}"

    # The last MiB is left to the backup of the table.
    rm -f "$disk"
    truncate -s "${mib}M" "$disk"
    sfdisk -q "$disk" <<TABLE
label: gpt
1: start=$ROOT_START, size=$((mib * 2048 - ROOT_START - 2048)), type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
14: start=$BIOS_START, size=$BIOS_SIZE, type=21686148-6449-6E6F-744E-656564454649
15: start=$EFI_START, size=$EFI_SIZE, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
TABLE

    # What grub-bios-setup does, on a file. boot.img: where core.img is. The first sector of
    # core.img: where its others are; and no test for a floppy's drive number.
    ((BIOS_SIZE * 512 >= $(stat -c %s "$work/core.img"))) || { say "core.img is too large"; return 1; }
    cp "$modules/i386-pc/boot.img" "$work/boot.img"
    mapfile -t start < <(le64 $BIOS_START)
    patch "$work/boot.img" $((0x5c)) "${start[@]}"
    patch "$work/boot.img" $((0x66)) 0x90 0x90
    mapfile -t start < <(le64 $((BIOS_START + 1)))
    patch "$work/core.img" $((0x1f4)) "${start[@]}"
    dd if="$work/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
    dd if="$work/core.img" of="$disk" bs=512 seek=$BIOS_START conv=notrunc status=none

    rm -f "$work/esp"
    truncate -s $((EFI_SIZE * 512)) "$work/esp"
    mkfs.vfat -n EFI "$work/esp" >/dev/null
    mmd -i "$work/esp" ::EFI ::EFI/BOOT
    mcopy -i "$work/esp" "$work/bootx64.efi" ::EFI/BOOT/BOOTX64.EFI
    dd if="$work/esp" of="$disk" bs=1M seek=$((EFI_START / 2048)) conv=notrunc,sparse status=none

    mke2fs -q -t ext4 -L cloudimg-root -U "$uuid" -d "$root" \
        -E offset=$((ROOT_START * 512)),root_owner=0:0 "$disk" \
        $(((mib * 2048 - ROOT_START - 2048) / 2))k
}
