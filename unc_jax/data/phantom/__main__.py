"""Draws the synthetic cohort: `python -m unc_jax.data.phantom`."""

from unc_jax.data.phantom.draw_cohort import main

if __name__ == "__main__":
    main()
