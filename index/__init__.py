"""What is released and how it is queried: the noun that training and service share.

Imports neither of them. What imports faiss imports torch before it: the other order has crashed
processes whose two OpenMP runtimes met. Not here, as some want of index neither.
"""
