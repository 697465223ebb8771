"""Says of each text whether cloud-init would load it as a cloud-config.

Usage: load_yaml.py < JSON list of texts; prints a JSON list of true, false, or null where Python
itself gave up (nested too deep).
"""

import json
import sys

from cloudinit import safeyaml


def loads(text):
    try:
        loaded = safeyaml.load(text)
    except RecursionError:
        return None
    except Exception:
        return False
    return loaded is None or isinstance(loaded, dict)


json.dump([loads(text) for text in json.load(sys.stdin)], sys.stdout)
