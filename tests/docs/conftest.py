"""The test cluster, for pages whose commands are typed there."""

from tests.cluster.conftest import cluster as cluster
from tests.cluster.conftest import slurm as slurm
