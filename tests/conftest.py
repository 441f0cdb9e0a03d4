"""What holds for all tests: no network, no accelerator, exact products."""

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything reads them
os.environ["WANDB_MODE"] = "offline"
os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def exact_products() -> None:
    """Stages choose the precision of products for their whole process; one that a test ran must not reach the next."""
    from train.precision import set_matmul_precision

    set_matmul_precision("fp32")
