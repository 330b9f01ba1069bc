"""Hosts on one machine: each has a network, processes, /tmp/ray and a home, all at one bridge.

They share the rest of the file system, as machines share a mounted folder. A host goes down as
machines do: its link is cut, or all its processes are gone at once. Needs root.
"""

import getpass
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

BIN = Path(sys.executable).parent
TOKEN = "0123456789abcdef" * 4
NETWORK = "10.77.0"
BRIDGE = "unfreeze0"
PRIVATE = f"/tmp/unfreeze-{getpass.getuser()}"
"""Where the definitions have Ray's files."""
NEEDS_HOSTS = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None,
    reason="needs root and Debian's iproute2, to make hosts in network namespaces",
)
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "OMP_NUM_THREADS": "1",
}


SLURM = """\
ClusterName=one
SlurmctldHost={name}({address})
SlurmUser=root
AuthType=auth/munge
# a job that is requeued waits until no node takes its old credential any more
AuthInfo=socket={place}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=10
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
NodeName={name} NodeAddr={address} CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class Host:
    """One of them; its first process, a shell, holds its namespaces and takes in orphans."""

    place: Path
    number: int
    init: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        for folder in ("home/.ray", "ray", "private", "log"):
            (self.place / folder).mkdir(parents=True)
        (self.place / "private").chmod(0o700)
        # the home folder, for ssh too
        users = re.sub(
            r"^(root:.*:)[^:]*(:[^:]*)$",
            rf"\1{self.home}\2",
            Path("/etc/passwd").read_text(),
            flags=re.MULTILINE,
        )
        (self.place / "passwd").write_text(users)
        names = "".join(f"{NETWORK}.{n} host{n}\n" for n in range(11, 31))
        (self.place / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        token = self.home / ".ray" / "auth_token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        self.init = subprocess.Popen(
            ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child",
             "--mount-proc", "sh", "-c",
             f"hostname {self.name}; mkdir -p /tmp/ray;"
             f" mount --bind {self.place / 'ray'} /tmp/ray;"
             f" mkdir -p {PRIVATE}; mount --bind {self.place / 'private'} {PRIVATE};"
             f" mount --bind {self.place / 'passwd'} /etc/passwd;"
             f" mount --bind {self.place / 'hosts'} /etc/hosts;"
             f" touch {self.home / 'up'}; while :; do sleep 9; done"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until((self.home / "up").exists, 10)
        link = f"uf{self.number}"
        # the link of an earlier host of this number
        subprocess.run(["ip", "link", "del", link], capture_output=True)
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", self.pid)
        run("ip", "link", "set", link, "master", BRIDGE, "up")
        for line in (
            f"ip addr add {self.address}/24 dev eth0",
            "ip link set eth0 up",
            "ip link set lo up",
        ):
            self.run(*line.split())

    @property
    def name(self) -> str:
        return f"host{self.number}"

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def pid(self) -> str:
        """Of its first process, as the machine counts."""
        return str(psutil.Process(self.init.pid).children()[0].pid)

    @property
    def enter(self) -> list[str]:
        """What to put before a command that is to run there."""
        return ["nsenter", "-t", self.pid, "--net", "--uts", "--mount", "--pid"]

    @property
    def environment(self) -> dict[str, str]:
        folders = {"HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / ".cache")}
        return {**ENVIRONMENT, **folders, "PATH": f"{BIN}:{os.environ['PATH']}"}

    def start(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command there; what it says goes to `out`."""
        with self.out.open("ab") as out:
            return subprocess.Popen(
                [*self.enter, *words],
                env={**os.environ, **self.environment, **environment},
                cwd=self.place,
                stdout=out,
                stderr=out,
            )

    def run(self, *words: str, seconds: float = 120, **environment: str) -> None:
        """Have a command done there."""
        assert self.start(*words, **environment).wait(seconds) == 0, self.said

    @property
    def out(self) -> Path:
        return self.place / "out"

    @property
    def said(self) -> str:
        return self.out.read_text(errors="replace")

    def ray(self, head: "Host | None" = None, cpus: int = 1, **environment: Any) -> None:
        """Start Ray there, as a head or as a node of one."""
        joining = (
            [f"--address={head.address}:6379"]
            if head
            else ["--head", "--port=6379", "--dashboard-host=127.0.0.1"]
        )
        self.run(
            str(BIN / "ray"), "start", *joining, f"--node-ip-address={self.address}",
            f"--num-cpus={cpus}", "--object-store-memory=100000000", "--disable-usage-stats",
            **environment,
        )  # fmt: skip

    def sshd(self, key: str) -> None:
        """Let whoever has this key in, as root."""
        (self.home / ".ssh").mkdir()
        (self.home / ".ssh" / "authorized_keys").write_text(key)
        for folder in (self.home, self.home / ".ssh"):
            folder.chmod(0o700)
        host_key = self.place / "host_key"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key))
        self.run("mkdir", "-p", "/run/sshd")
        options = ["PermitRootLogin=yes", "StrictModes=no", "UsePAM=no", "PidFile=none"]
        settings = [word for option in options for word in ("-o", option)]
        self.run("/usr/sbin/sshd", "-h", str(host_key), *settings)

    def slurm(self) -> dict[str, Any]:
        """Make it a Slurm of one machine; returns the environment that its commands want."""
        place = self.place / "slurm"
        place.mkdir()
        key = place / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        socket = place / "munge.socket"
        files = {"socket": socket, "key-file": key, "pid-file": place / "munge.pid"}
        files |= {"log-file": place / "munge.log", "seed-file": place / "munge.seed"}
        self.run(
            "/usr/sbin/munged", "--force", *(f"--{name}={file}" for name, file in files.items())
        )
        conf = place / "slurm.conf"
        conf.write_text(SLURM.format(name=self.name, address=self.address, place=place))
        environment: dict[str, Any] = {"SLURM_CONF": str(conf)}
        for daemon in ("slurmctld", "slurmd"):
            self.run(f"/usr/sbin/{daemon}", **environment)
        return environment

    def processes(self) -> list[str]:
        """The command lines of what runs there."""
        with suppress(psutil.NoSuchProcess, IndexError):
            first = psutil.Process(int(self.pid))
            namespace = str(Path(f"/proc/{first.pid}/ns/pid").readlink())
            return [
                " ".join(process.cmdline())
                for process in psutil.process_iter()
                if _namespace(process.pid) == namespace
            ]
        return []

    def has(self, name: str) -> bool:
        return any(name in line for line in self.processes())

    def link(self, state: str) -> None:
        """`up` or `down`."""
        run("ip", "link", "set", f"uf{self.number}", state)

    def kill(self) -> None:
        """End all its processes at once, as when the power goes."""
        with suppress(psutil.NoSuchProcess, IndexError):
            os.kill(int(self.pid), signal.SIGKILL)
        self.init.wait()
        subprocess.run(["ip", "link", "del", f"uf{self.number}"], capture_output=True)


class Hosts:
    """The bridge, and the hosts at it."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.all: list[Host] = []
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")

    def add(self) -> Host:
        number = 11 + len(self.all)
        self.all.append(Host(self._place / f"host{number}", number))
        return self.all[-1]

    def close(self) -> None:
        for host in self.all:
            host.kill()
        run("ip", "link", "del", BRIDGE)


def _namespace(pid: int) -> str:
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    return ""


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


def until(reached: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.2)
