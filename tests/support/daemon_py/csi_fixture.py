"""davit-csi with an embedded davitd, for tests of the whole stack."""
import contextlib
import json
import os
import signal
import subprocess

from daemon_fixture import BIN, wait_for

PATIENCE = 60


class Driver:
    """davit-csi with an embedded davitd; may be killed and started again on its directories."""

    def __init__(self, root, config=""):
        self.root = root
        self.config = config  # text of a TOML file for both programs
        self.endpoint = f"unix://{root}/csi.sock"
        self.state = os.path.join(root, "state")
        self.log = os.path.join(root, "csi.log")
        self.broken = os.path.join(root, "davitd-is-broken")
        self.process = None
        # davitd that can be kept from starting, as a full disk or a bad update would.
        self.program = os.path.join(root, "davitd-wrapper")
        with open(self.program, "w", encoding="utf-8") as script:
            script.write(f'#!/bin/sh\n[ ! -e "{self.broken}" ] || exit 1\nexec "{BIN}/davitd" "$@"\n')
        os.chmod(self.program, 0o755)

    def start(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("DAVIT_")}
        with open(self.log, "ab") as log:
            words = [f"{BIN}/davit-csi", "--endpoint", self.endpoint, "--node-id", "test", "--state-dir", self.state, "--embedded-daemon",
                     "--daemon-program", self.program, "--log-level", "debug"]
            if self.config:
                path = os.path.join(self.root, "config.toml")
                with open(path, "w", encoding="utf-8") as text:
                    text.write(self.config)
                words += ["--config", path]
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=env)
        return self

    def wait_ready(self):
        wait_for(lambda: "true" in self.call("probe").stdout, PATIENCE, "davit-csi")
        return self

    def call(self, *words):
        return subprocess.run([f"{BIN}/davit-csi-client", "--endpoint", self.endpoint, *words], capture_output=True, text=True, check=False)

    def publish_words(self, image, target, volume="v"):
        return ["publish", "--volume-id", volume, "--target", target, "--image", image, "--attribute", "plainHTTP=true", "--read-only"]

    def publish(self, image, target, volume="v", *more):
        return self.call(*self.publish_words(image, target, volume), *more)

    def unpublish(self, target, volume="v"):
        return self.call("unpublish", "--volume-id", volume, "--target", target)

    def problems(self, target, volume="v"):
        """What NodeGetVolumeHealth says is wrong; nothing of a healthy volume."""
        done = self.call("health", "--volume-id", volume, "--target", target)
        return json.loads(done.stdout)["volume_health"]["health_statuses"] if done.returncode == 0 else done.stderr

    def daemon_pid(self):
        try:
            with open(os.path.join(self.state, "csi/davitd.pid"), encoding="utf-8") as text:
                return int(text.read() or 0)
        except OSError:
            return 0

    def kill_daemon(self):
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)

    def end(self):
        """Stops both, whatever state they are in."""
        os.path.exists(self.broken) and os.unlink(self.broken)
        self.stop()
        pid = self.daemon_pid()  # left by a driver that was killed and not started again
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def log_tail(self):
        return self.log_text()[-4000:]
