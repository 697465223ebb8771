"""Launch digests by the reference implementation, sev-snp-measure.

Reads one JSON object per line from standard input and writes one hex digest per line, or
`error: <text>`. Firmware, kernel and initrd are paths.
"""

import json
import sys

from sevsnpmeasure import guest
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS
from sevsnpmeasure.vmm_types import VMMType

MODES = {"snp": SevMode.SEV_SNP, "sev-es": SevMode.SEV_ES, "sev": SevMode.SEV}
VMMS = {"qemu": VMMType.QEMU, "ec2": VMMType.ec2, "gce": VMMType.gce}


def digest(case):
    cpu = case["cpu"]
    return guest.calc_launch_digest(
        MODES[case["mode"]],
        case["vcpus"],
        CPU_SIGS[cpu] if isinstance(cpu, str) else cpu,
        case["firmware"],
        case["kernel"],
        case["initrd"],
        case["append"],
        case["features"],
        vmm_type=VMMS[case["vmm"]],
    ).hex()


for line in sys.stdin:
    try:
        print(digest(json.loads(line)))
    except (RuntimeError, ValueError, KeyError) as error:
        print("error:", str(error).replace("\n", " "))
