"""The batch script, run by a `srun` that starts its two nodes on this machine."""

import ast
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "configs/slurm/train.sbatch"

SRUN = """#!/bin/bash
# As SLURM would: the command once per node, and the job fails where a node does.
[ "$1" = --kill-on-bad-exit=1 ] && shift
for node in 0 1; do SLURM_NODEID=$node "$@" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
exit "${code:-0}"
"""

PLACE = """
import os, sys
names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR")
line = f"{[*map(os.environ.get, names), *sys.argv[1:]]}\\n"
os.write(1, line.encode())  # at once: two nodes share the pipe
"""


def submit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "place.py").write_text(PLACE)
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/bash\necho 127.0.0.1\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("MODULE", "OMP_NUM_THREADS")},
        "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "MODULE": "place",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "1",
    }
    return subprocess.run(["bash", SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_each_node_has_its_place_in_one_world_and_gets_the_words_as_they_were_given(tmp_path):
    words = ["a config.yaml", "samples.prompts=[a red apple, 'b']"]
    done = submit(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    places = sorted(map(ast.literal_eval, done.stdout.splitlines()))
    assert places == [[node, "2", "1", node, "127.0.0.1", *words] for node in ("0", "1")]
