"""Collectives on one process and on two gloo processes."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from two_processes import ProcessFailed, run_on_processes, run_on_two_processes

from lavis_lite import distributed
from lavis_lite.errors import ConfigError


def test_everything_is_the_identity_on_one_process():
    x = torch.arange(6.0).reshape(3, 2).requires_grad_()
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.init("cpu") == torch.device("cpu")
    distributed.barrier()
    assert torch.equal(distributed.all_gather(x), x)
    assert not distributed.all_gather(x).requires_grad
    assert distributed.gather_with_grad(x) is x
    assert torch.equal(distributed.all_reduce(x, "max"), x)
    assert distributed.all_gather_object({"a": 1}) == [{"a": 1}]
    assert distributed.shard(5) == range(5)
    distributed.shutdown()


def test_a_scalar_gathers_as_one_row():
    assert distributed.all_gather(torch.tensor(3)).tolist() == [3]


def test_a_device_that_is_not_here_is_a_config_error():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError, match="CUDA is not available; use auto or cpu"):
        distributed.init("cuda")


def _identity_and_shards(n):
    distributed.barrier()
    return distributed.rank(), distributed.world_size(), list(distributed.shard(n))


@pytest.mark.parametrize("n", [0, 1, 7])
def test_shards_are_contiguous_and_cover_every_index_once(n):
    three = run_on_processes(_identity_and_shards, n, world_size=3)
    assert [r[:2] for r in three] == [(0, 3), (1, 3), (2, 3)]
    assert [index for _, _, part in three for index in part] == list(range(n))


def _reductions():
    x = torch.tensor([1.0, -2.0]) * (distributed.rank() + 1)
    results = {op: distributed.all_reduce(x, op).tolist() for op in ("sum", "min", "max")}
    return results, x.tolist(), distributed.all_gather_object({"rank": distributed.rank()})


def test_reductions_leave_their_input_alone_and_agree_on_all_ranks():
    first, second = run_on_two_processes(_reductions)
    expected = {"sum": [3.0, -6.0], "min": [1.0, -4.0], "max": [2.0, -2.0]}
    assert first == (expected, [1.0, -2.0], [{"rank": 0}, {"rank": 1}])
    assert second == (expected, [2.0, -4.0], [{"rank": 0}, {"rank": 1}])


def _rows(dtype, counts):
    start, count = sum(counts[: distributed.rank()]), counts[distributed.rank()]
    rows = torch.arange(start * 3, (start + count) * 3).reshape(count, 3)
    return rows % 2 == 0 if dtype == torch.bool else rows.to(dtype)


def _gather_rows(dtypes, counts):
    return [distributed.all_gather(_rows(dtype, counts)) for dtype in dtypes]


@pytest.mark.parametrize("counts", [(2, 2), (1, 3), (3, 0), (0, 0)])
def test_all_gather_takes_any_dtype_and_uneven_rows(counts):
    dtypes = [torch.float32, torch.bfloat16, torch.int64, torch.bool]
    for results in run_on_two_processes(_gather_rows, dtypes, counts):
        for dtype, result in zip(dtypes, results, strict=True):
            expected = torch.arange(sum(counts) * 3).reshape(-1, 3)
            expected = expected % 2 == 0 if dtype == torch.bool else expected.to(dtype)
            assert result.dtype == dtype
            assert torch.equal(result, expected)


# The contrastive loss of one process on the whole batch is the reference for two processes that
# hold a part each.


def _towers():
    torch.manual_seed(0)
    towers = torch.nn.ModuleList([torch.nn.Linear(5, 4), torch.nn.Linear(6, 4)])
    return towers, torch.randn(6, 5), torch.randn(6, 6)


def _contrastive(image, text, rows):
    logits = image @ text.T / 0.1
    target = torch.arange(len(text))[rows]
    return (
        torch.nn.functional.cross_entropy(logits[rows], target)
        + torch.nn.functional.cross_entropy(logits.T[rows], target)
    ) / 2


def _unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


def _two_rank_loss(counts, own_rows_only):
    """Each rank's loss on its own rows, or everybody's on all of them; then DDP's averaging."""
    towers, images, texts = _towers()
    start = sum(counts[: distributed.rank()])
    own = slice(start, start + counts[distributed.rank()])
    even = len(set(counts)) == 1
    image = distributed.gather_with_grad(_unit(towers[0](images[own])), even=even)
    text = distributed.gather_with_grad(_unit(towers[1](texts[own])), even=even)
    loss = _contrastive(image, text, own if own_rows_only else slice(None))
    loss.backward()
    grads = [distributed.all_reduce(p.grad) / 2 for p in towers.parameters()]
    return (distributed.all_reduce(loss) / 2).item(), grads


@pytest.mark.parametrize(
    ("counts", "own_rows_only"), [((3, 3), True), ((3, 3), False), ((2, 4), False)]
)
def test_loss_and_gradients_on_two_processes_equal_one_process(counts, own_rows_only):
    towers, images, texts = _towers()
    loss = _contrastive(_unit(towers[0](images)), _unit(towers[1](texts)), slice(None))
    loss.backward()
    for seen, grads in run_on_two_processes(_two_rank_loss, counts, own_rows_only):
        assert seen == pytest.approx(loss.item(), abs=1e-6)
        for grad, param in zip(grads, towers.parameters(), strict=True):
            torch.testing.assert_close(grad, param.grad, atol=1e-6, rtol=0)


def _ddp_loss():
    towers, images, texts = _towers()
    ddp = torch.nn.parallel.DistributedDataParallel(_Joined(towers))
    own = distributed.shard(6)
    rows = slice(own.start, own.stop)
    image, text = ddp(images[rows], texts[rows])
    image, text = distributed.gather_with_grad(image), distributed.gather_with_grad(text)
    _contrastive(image, text, rows).backward()
    return [p.grad for p in towers.parameters()]


class _Joined(torch.nn.Module):
    def __init__(self, towers):
        super().__init__()
        self.towers = towers

    def forward(self, image, text):
        return _unit(self.towers[0](image)), _unit(self.towers[1](text))


def test_gradients_under_distributed_data_parallel_equal_one_process():
    towers, images, texts = _towers()
    _contrastive(_unit(towers[0](images)), _unit(towers[1](texts)), slice(None)).backward()
    for grads in run_on_two_processes(_ddp_loss):
        for grad, param in zip(grads, towers.parameters(), strict=True):
            torch.testing.assert_close(grad, param.grad, atol=1e-6, rtol=0)


def _rank_one_leaves(how):
    distributed.barrier()
    if distributed.rank() == 1:
        if how == "sleeps":
            time.sleep(30)
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.all_reduce(torch.ones(1))


@pytest.mark.fault(14)
@pytest.mark.parametrize("how", ["sleeps", "dies"])
def test_a_rank_that_hangs_or_dies_is_named(how):
    start = time.monotonic()
    with pytest.raises(ProcessFailed) as failed:
        run_on_two_processes(_rank_one_leaves, how, timeout=6)
    assert "ProcessLost: rank 0: all_reduce failed" in failed.value.errors[0]
    assert "because rank 1 did not take part" in failed.value.errors[0]
    assert time.monotonic() - start < 20


def _raise_on_rank_one():
    if distributed.rank() == 1:
        raise ValueError("only here")
    return "fine"


def test_the_launcher_reports_the_rank_that_raised():
    with pytest.raises(ProcessFailed, match="ValueError: only here") as failed:
        run_on_two_processes(_raise_on_rank_one)
    assert list(failed.value.errors) == [1]
