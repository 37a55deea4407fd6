"""A real Slurm with one node, in a directory of its own (root; Debian: slurm-wlm, munge)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.loopdisks import SEARCHED

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
PORTS = 16_817, 16_818  # not those of a cluster that this machine may belong to


def why_no_slurm() -> str | None:
    """What this machine lacks; None if nothing."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=SEARCHED)]
    return f"needs {', '.join(missing)}" if missing else None


class Slurm:
    """Daemons and commands run with a prefix, and know where the configuration is."""

    def __init__(self, root: Path, prefix: Sequence[str]) -> None:
        self.root, self._prefix = root, prefix
        self._started: list[subprocess.Popen[bytes]] = []
        self._env = {"PATH": SEARCHED, "SLURM_CONF": str(root / "slurm.conf"), "LC_ALL": "C"}

    def start(self) -> None:
        """Start the daemons, in the mount namespace of the prefix; wait for the node."""
        host, (controller, node) = socket.gethostname().split(".")[0], PORTS
        (self.root / "munge.key").write_bytes(os.urandom(128))
        (self.root / "munge.key").chmod(0o400)
        lines = [
            "ClusterName=test",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={controller}",
            f"SlurmdPort={node}",
            "SlurmUser=root",
            f"StateSaveLocation={self.root}/state",
            f"SlurmdSpoolDir={self.root}/spool",
            f"SlurmctldPidFile={self.root}/slurmctld.pid",
            f"SlurmdPidFile={self.root}/slurmd.pid",
            "AuthType=auth/munge",
            f"AuthInfo=socket={self.root}/munge.socket",
            "CredType=cred/munge",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "MailProg=/bin/true",
            "ReturnToService=2",
            "KillWait=1",
            "JobRequeue=1",
            "SchedulerParameters=sched_interval=1,bf_interval=1",
            f"NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN",
            f"PartitionName=all Nodes={host} Default=YES State=UP MaxTime=INFINITE",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU_Memory",
        ]
        (self.root / "slurm.conf").write_text("\n".join((*lines, "")))
        for name in ("state", "spool"):
            (self.root / name).mkdir()
        munged = ["munged", "--foreground", "--force", f"--key-file={self.root}/munge.key"]
        munged += [f"--socket={self.root}/munge.socket", f"--pid-file={self.root}/munge.pid"]
        munged += [f"--seed-file={self.root}/munge.seed", f"--log-file={self.root}/munge.log"]
        for command in (munged, ["slurmctld", "-D", "-i"], ["slurmd", "-D"]):
            with (self.root / f"{command[0]}.out").open("wb") as log:
                daemon = [*self._prefix, *command]
                process = subprocess.Popen(
                    daemon, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            self._started.append(process)
            time.sleep(0.5)
        self.wait(lambda: "idle" in self.run("sinfo", "-h", "-o", "%t", check=False), 30)

    def run(self, *command: str, check: bool = True) -> str:
        """Run one of Slurm's commands."""
        ran = subprocess.run(
            [*self._prefix, *command],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert not check or ran.returncode == 0, (ran, self.logs())
        return ran.stdout

    def wait(self, is_over: Callable[[], bool], at_most_s: float) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + at_most_s
        while not is_over():
            assert time.monotonic() < end, self.logs()
            time.sleep(0.2)

    def logs(self) -> str:
        """The ends of what the daemons wrote."""
        return "\n".join(path.read_text()[-2000:] for path in self.root.glob("*.out"))

    def stop(self) -> None:
        """End the daemons, the last one first."""
        for process in reversed(self._started):
            process.terminate()
        for process in self._started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def slurm(root: Path, prefix: Sequence[str] = ()) -> Iterator[Slurm]:
    """Yield a Slurm at work; ``prefix``: a command that runs its daemons (nsenter)."""
    root.mkdir()
    cluster = Slurm(root, prefix)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
