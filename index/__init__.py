"""What is released and how it is queried: the noun that training and service share.

Imports neither of them. torch is imported here, before faiss can be: the other order has crashed
processes whose two OpenMP runtimes met.
"""

import torch as _torch  # noqa: F401  (imported for its place in the order)
