"""What writes a matrix ``x``, float32 ``(n, d)``, in each of the file formats."""

import numpy as np
from faiss.contrib.vecs_io import fvecs_write


def write_fbin(path, x):
    path.write_bytes(np.array(x.shape, dtype="<u4").tobytes() + x.tobytes())


WRITERS = {".npy": np.save, ".fvecs": lambda path, x: fvecs_write(str(path), x), ".fbin": write_fbin}
