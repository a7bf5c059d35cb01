"""adelie's group lasso of a gated network along weight decays, run as a script by an interpreter that has adelie.

``python adelie_grpnet.py INPUT OUTPUT``: INPUT is an .npz file with Z, y, masks, weight_decays and tols, OUTPUT one
with the processor seconds, the objectives and the gates in use of every tolerance, shape (n_tols, n_weight_decays).
adelie 1.1 needs NumPy 1, so that it cannot share an environment with convexbn; this file imports nothing else.
"""

import sys
import time

import adelie
import numpy as np


def main() -> None:
    """Read, run, write."""
    data = np.load(sys.argv[1])
    Z, masks = np.asfortranarray(data["Z"]), np.asfortranarray(data["masks"])
    k, n_gates = Z.shape[1], masks.shape[1]
    seconds, objectives, used = [], [], []
    for tol in data["tols"]:
        start = time.process_time()
        state = adelie.grpnet(
            X=adelie.matrix.convex_relu(Z, masks, gated=True, n_threads=1),
            glm=adelie.glm.gaussian(data["y"]),
            groups=k * np.arange(n_gates),
            penalty=np.ones(n_gates),
            lmda_path=data["weight_decays"],
            intercept=False,
            early_exit=False,
            tol=tol,
            n_threads=1,
            progress_bar=False,
        )
        seconds.append(time.process_time() - start)
        S = state.betas.toarray().reshape(-1, n_gates, k)
        lengths = np.linalg.norm(S, axis=2)
        residuals = data["y"] - np.stack([((masks @ s) * Z).sum(axis=1) for s in S])
        objectives.append((residuals**2).mean(axis=1) / 2 + state.lmdas * lengths.sum(axis=1))
        used.append((lengths > 0).sum(axis=1))
    np.savez(sys.argv[2], seconds=seconds, objectives=objectives, used=used, version=adelie.__version__)


if __name__ == "__main__":
    main()
