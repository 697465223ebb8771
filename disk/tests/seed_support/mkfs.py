"""Formats a real device as cloud-init's disk_setup module does in a guest.

Usage: mkfs.py DEVICE < DEFINITION, one entry of fs_setup as JSON; its device is replaced.

A guest has udev, which lsblk asks what is on a device; a test machine need not. What udev would
say is what blkid finds, and only that is put in.
"""

import json
import subprocess
import sys
from unittest import mock

from cloudinit.config import cc_disk_setup

DEVICE = sys.argv[1]
real = cc_disk_setup.subp.subp


def blkid(tag):
    command = ["blkid", "-p", "-o", "value", "-s", tag, DEVICE]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip()


def subp(command, *args, **kwargs):
    if "lsblk" not in command[0]:
        return real(command, *args, **kwargs)
    fstype, label = blkid("TYPE"), blkid("LABEL")
    return f'NAME="vdb" TYPE="disk" FSTYPE="{fstype}" LABEL="{label}"\n', ""


definition = json.load(sys.stdin)
definition["device"] = DEVICE
with mock.patch.object(cc_disk_setup.subp, "subp", subp), mock.patch.object(
    cc_disk_setup, "assert_and_settle_device"
):
    cc_disk_setup.mkfs(definition)
