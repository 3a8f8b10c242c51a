"""What holds for every test and every notebook that pytest runs: the tiny profile, and no progress bars on stderr."""

import os

os.environ["CAPTIONING_PROGRESS"] = "0"
os.environ.setdefault("CAPTIONING_PROFILE", "tiny")
# Workers of pytest-xdist share the cores: threads that wait for each other's cores are many times slower than one.
if "PYTEST_XDIST_WORKER" in os.environ:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
