import subprocess
import sys

_CHURN = """
import resource, sys
from p2pd.app.memory import tune_malloc
if sys.argv[1] == "tuned":
    assert tune_malloc()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def churn():
    pieces = [b"x" * (1 << 20) for _ in range(4)]
for _ in range(3):
    churn()
before = faults()
for _ in range(16):
    churn()
print(faults() - before)
"""


def _faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _CHURN, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_pieces_are_not_mapped_afresh() -> None:
    assert _faults("tuned") < _faults("plain") / 4
