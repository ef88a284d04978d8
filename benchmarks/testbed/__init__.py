"""An edge site on one machine: real daemons in network namespaces, shaped links, nothing on the host.

with Testbed(SiteSpec(nodes=2, wan_bit_s=50_000_000)) as bed:
    bed.start_origin()
    ref = bed.push(synthetic_image(seed=1, size=8 << 20, layers=2))
    node = bed.node(0)
    node.start_containerd()
    node.use_mirror(None)
    node.fetch(ref)
"""

from benchmarks.testbed.images import Image, debian_image, push_index, synthetic_image
from benchmarks.testbed.namespaces import TestbedError, missing_prerequisite
from benchmarks.testbed.network import LinkBytes, SiteSpec
from benchmarks.testbed.node import FetchOutcome, Node
from benchmarks.testbed.process import Process
from benchmarks.testbed.site import Testbed

__all__ = [
    "FetchOutcome",
    "Image",
    "LinkBytes",
    "Node",
    "Process",
    "SiteSpec",
    "Testbed",
    "TestbedError",
    "debian_image",
    "missing_prerequisite",
    "push_index",
    "synthetic_image",
]
