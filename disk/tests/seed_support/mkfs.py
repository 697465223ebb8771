"""Formats a real device as cloud-init's disk_setup module does in a guest.

Usage: mkfs.py DEVICE < DEFINITION, one entry of fs_setup as JSON; its device is replaced.
"""

import json
import sys

from cloudinit.config import cc_disk_setup

definition = json.load(sys.stdin)
definition["device"] = sys.argv[1]
cc_disk_setup.mkfs(definition)
