"""Fixtures for all tests. Two cores: one thread each keeps parallel tests from fighting."""

import torch

torch.set_num_threads(1)
