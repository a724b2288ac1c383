"""The demo's model on real CT it has never seen: Dice where there is a mask.

python benchmarks/real_ct.py --run runs/demo FOLDER ...

Run launch/demo.sh first. Each FOLDER is a Decathlon set. Every scan is verified,
prepared with the run's own shape, window and training statistics, and segmented by ten
Monte Carlo samples. Prints a Markdown table; cases without a mask have no Dice.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from configs import demo
from unc_jax import stages
from unc_jax.data import decathlon, nifti
from unc_jax.data.preprocess import prepare_liver, zscore
from unc_jax.segmentation.checkpoint import Checkpoints
from unc_jax.segmentation.train import build_model, create_state, variables_of
from unc_jax.study.metrics import dice
from unc_jax.uncertainty.measures import pairwise_dice_packed
from unc_jax.uncertainty.sampling import build_monte_carlo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    config = demo.get_config()
    statistics = stages.prepare(config).statistics  # at once after the demo
    model = build_model(config)
    with Checkpoints(arguments.run / "checkpoints") as checkpoints:
        restored = checkpoints.restore_best(create_state(config, model))
    variables = variables_of(restored.state)
    monte_carlo = build_monte_carlo(
        model,
        samples=10,
        patch_shape=config.train.patch_shape,
        overlap=config.evaluate.overlap,
        mask_scope="volume",
        window_batch=8,
        chunk=1,
    )
    print("| case | Dice | D_pw | U_labelled | volume, ml | reference, ml | s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for folder in arguments.folders:
        task = decathlon.read_task(folder)
        problems = decathlon.verify(task)
        if problems:
            print(json.dumps(problems), file=sys.stderr)
        for index, case in enumerate((*task.training, *task.test)):
            started = time.perf_counter()
            scan = nifti.read(case.image)
            label = np.zeros(scan.array.shape, np.uint8)
            if case.label is not None:
                label = nifti.read(case.label, labels=True).array
            image, reference = prepare_liver(
                scan.array,
                label,
                shape=config.data.shape,
                window_hu=config.data.window_hu,
                liver_labels=config.data.liver_labels,
            )
            image = zscore(image, statistics["mean"], statistics["std"])
            prediction = monte_carlo(variables, image, jax.random.key(index))
            mask = prediction.mean >= 0.5
            ml = scan.geometry.voxel_ml * label.size / mask.size
            known = case.label is not None
            print(
                f"| {folder.name}/{case.id} "
                f"| {f'{dice(mask, reference > 0):.3f}' if known else '-'} "
                f"| {pairwise_dice_packed(prediction.masks):.3f} "
                f"| {prediction.u_labelled:.3f} | {mask.sum() * ml:.0f} "
                f"| {f'{reference.sum() * ml:.0f}' if known else '-'} "
                f"| {time.perf_counter() - started:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
