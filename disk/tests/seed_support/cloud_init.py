"""Reads a seed's files with cloud-init's own code and prints what came of them as JSON.

Usage: cloud_init.py USER_DATA META_DATA NETWORK_CONFIG

Nothing outside a temporary directory is read or changed: whatever would act on a system is
replaced by a record of the call.
"""

import json
import logging
import os
import sys
import tempfile
from unittest import mock

from cloudinit import distros, handlers, helpers, sources, util
from cloudinit.config import cc_ssh, schema
from cloudinit.handlers import boot_hook
from cloudinit.handlers.boot_hook import BootHookPartHandler
from cloudinit.handlers.cloud_config import CloudConfigPartHandler
from cloudinit.handlers.jinja_template import JinjaTemplatePartHandler
from cloudinit.handlers.shell_script import ShellScriptPartHandler
from cloudinit.net import eni, netplan, network_state
from cloudinit.settings import PER_INSTANCE
from cloudinit.user_data import UserDataProcessor

warnings = []


class Warnings(logging.Handler):
    def emit(self, record):
        warnings.append(record.getMessage())


logging.getLogger().addHandler(Warnings(logging.WARNING))


def merge(user_data, base):
    """As Init._do_handlers of stages.py does it."""
    paths = helpers.Paths({"cloud_dir": base, "run_dir": base})
    paths.datasource = mock.Mock(get_instance_id=lambda: "i")
    for name in ("scripts", "boothooks", "handlers", "data"):
        os.makedirs(os.path.join(base, "instances", "i", name))
    with open(paths.get_runpath("instance_data_sensitive"), "w") as f:
        json.dump({"v1": {"region": "north"}, "ds": {}}, f)
    message = UserDataProcessor(paths).process(user_data)
    config = CloudConfigPartHandler(paths)
    hooks = BootHookPartHandler(paths, mock.Mock(get_instance_id=lambda: "i"))
    parts = [config, ShellScriptPartHandler(paths, script_path="scripts"), hooks]
    jinja = JinjaTemplatePartHandler(paths, sub_handlers=parts)
    known = helpers.ContentHandlers()
    for handler in parts + [jinja]:
        known.register(handler)
    state = {
        "handlers": known,
        "handlerdir": os.path.join(base, "handlers"),
        "data": None,
        "frequency": PER_INSTANCE,
        "handlercount": 0,
        "excluded": [],
    }
    for handler in parts + [jinja]:
        handlers.call_begin(handler, None, PER_INSTANCE)
    # Boothooks are run when they are found; here they are only written.
    with mock.patch.object(boot_hook.subp, "subp"):
        handlers.walk(message, handlers.walker_callback, data=state)
    for handler in parts + [jinja]:
        handlers.call_end(handler, None, PER_INSTANCE)
    merged = util.load_yaml(util.load_file(paths.get_ipath("cloud_config")))
    scripts = {}
    for root, _, files in os.walk(base):
        if os.path.basename(root) == "scripts":
            for name in files:
                scripts[name] = util.load_file(os.path.join(root, name))
    with open(os.path.join(base, "instances", "i", "boothooks", "crn-volumes.sh")) as f:
        return merged, scripts, f.read()


def authorized(config, public_keys, distro_name):
    """Who gets which keys from the ssh module, and with which options."""
    distro = distros.fetch(distro_name)(distro_name, {"default_user": {"name": distro_name}}, None)
    cloud = mock.Mock(distro=distro, get_public_ssh_keys=lambda: list(public_keys))
    # The image's own cloud.cfg is below the user data; no host key is touched.
    config = {"users": ["default"], "disable_root": True, **config}
    config.update({"ssh_deletekeys": False, "ssh_keys": {}})
    config["ssh_publish_hostkeys"] = {"enabled": False}
    got = {}

    def setup(keys, user, options=""):
        got[user] = {"keys": sorted(keys), "options": options}

    with mock.patch.object(cc_ssh.ssh_util, "setup_user_keys", setup):
        cc_ssh.handle("ssh", json.loads(json.dumps(config)), cloud, logging.getLogger(), [])
    return got


def network(text):
    """The network configuration as two renderers write it."""
    with mock.patch.object(
        network_state, "get_interfaces_by_mac", lambda: {"52:54:00:01:02:03": "ens3"}
    ), mock.patch.object(network_state, "find_interface_name_from_mac", lambda _: "ens3"):
        state = network_state.parse_net_config_data(util.load_yaml(text))
        return {
            "eni": eni.Renderer()._render_interfaces(state),
            "netplan": netplan.Renderer()._render_content(state),
        }


def main():
    user_data, meta_data, network_config = (open(path, "rb").read() for path in sys.argv[1:])
    with tempfile.TemporaryDirectory() as base:
        config, scripts, hook = merge(user_data, base)
        meta = util.load_yaml(meta_data)
        keys = sources.normalize_pubkey_data(meta.get("public-keys"))
        invalid = None
        try:
            schema.validate_cloudconfig_schema(config, schema.get_schema(), strict=True)
        except schema.SchemaValidationError as error:
            invalid = str(error)
        found = {
            "config": config,
            "scripts": scripts,
            "meta": meta,
            "authorized": {
                name: authorized(config, keys, name) for name in ("debian", "ubuntu", "alpine")
            },
            "authorized_by_meta": authorized({"disable_root": False}, keys, "debian"),
            "boothook": hook,
            "network": network(network_config),
            "invalid": invalid,
        }
    found["warnings"] = warnings
    json.dump(found, sys.stdout)


main()
