"""The documentation under test: how its blocks are written so that they can be.

``sh`` and ``python`` blocks of a page are run in order, in one folder; a block with ``title="name"`` is also that file.
A block with ``title="prints"`` is what the block before it prints (``…`` stands for anything; JSON is compared as
data). ``redis://127.0.0.1:6379`` and port 8000 stand for servers of the test. What is only parsed, and why, is listed
in ``rules.py``; ``json``, ``toml``, ``yaml`` and ``csv`` blocks are read, a pipeline's commands run as well.
"""
