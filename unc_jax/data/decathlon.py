"""The command `python -m unc_jax.data.dataset` under its former name, for scripts."""

from unc_jax.data.dataset import main

if __name__ == "__main__":
    main()
