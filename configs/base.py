"""Every field of a run, with its default, unit and meaning. Other configs override it.

The defaults are the paper's; where the paper is silent, docs/choices.md explains them.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # of the weights, the patches and the dropout masks
    config.data = _data()
    config.model = _model()
    config.loss = _loss()
    config.train = _train()
    config.evaluate = _evaluate()
    return config


def _data() -> ConfigDict:
    data = ConfigDict()
    # Decathlon or nnU-Net v2 folder; "phantom" draws a synthetic cohort.
    data.root = "Task03_Liver"
    data.prepared = "prepared"  # folder of prepared cohorts, shared by runs
    # "liver" | "tumor", a part of the organ, segmented in the organ's bounding box.
    data.target = "liver"
    # Label values of the organ (tumours included) and of the tumours. () finds them by
    # the names in dataset.json: liver; tumour, cancer or lesion.
    data.liver_labels = ()
    data.tumor_labels = ()
    # Voxels (x, y, z) that every case is resampled to; "auto" (tumor only) is the mean
    # size of the test cases after cropping, as in the paper.
    data.shape = config_dict.FieldReference((256, 256, 256), field_type=object)
    data.window_hu = (-120.0, 240.0)  # range to clip to, HU; () clips nothing (MR)
    # Value outside the organ (tumor only), HU; None: the organ's minimum (MR).
    data.outside_hu = config_dict.placeholder(float)
    # z-scores with mean and sd of the training set ("population") | of each "case".
    data.normalisation = "population"
    # Proportions of training, validation and test cases. The validation cases calibrate
    # the bounds of predicted Dice: n of them support a level of n / (n + 1).
    data.split_shares = (63, 13, 55)
    data.split_file = ""  # JSON of train, validation, test ids; "" draws a split
    data.split_seed = 0  # of that draw
    # Cross-validation: 0 ... folds - 1 selects a fold, whose cases are the test cases;
    # -1 draws a single split by split_shares. compare joins the folds.
    data.fold = -1
    data.folds = 5
    data.skip_bad_cases = False  # True leaves out cases that verification refuses
    data.phantom_cases = 131  # of the synthetic cohort
    data.phantom_size = (256, 256, 200)  # its largest grid, voxels
    data.phantom_seed = 0
    return data


def _model() -> ConfigDict:
    model = ConfigDict()
    model.name = "unet3d"  # key of the table MODELS; the fields below are the U-Net's
    model.features = 32  # channels of the first convolution; doubles per level
    model.depth = 4  # levels
    model.norm = "batch"  # "batch" | "group" | "none"
    # Drops whole channels ("spatial") | a "fixed" number of channels | each "element".
    model.dropout_kind = "spatial"
    model.dropout_placement = "all"  # after every 3x3x3 convolution | "bottleneck"
    model.dropout_rate = 0.1
    # bfloat16 if the hardware supports it ("auto") | "float32" | "bfloat16".
    model.compute_dtype = "auto"
    return model


def _loss() -> ConfigDict:
    loss = ConfigDict()
    # Key of the table LOSSES: "wcc", weighted categorical cross-entropy | soft "dice".
    loss.name = "wcc"
    loss.wcc_weights = ((1.0, 1.0), (3.0, 3.0))  # [true][predicted], background first
    return loss


def _train() -> ConfigDict:
    train = ConfigDict()
    train.steps = 20_000  # updates
    train.batch = 8  # patches per update
    train.patch_shape = (128, 128, 16)  # voxels (x, y, z)
    train.foreground_fraction = 0.5  # share of patches centred on the target
    train.learning_rate = 1e-4  # NAdam
    train.schedule = "constant"  # "constant" | "cosine" to zero over train.steps
    train.clip_norm = 0.0  # largest global gradient norm; 0 clips nothing
    train.average_decay = 0.0  # exponential moving average of the weights; 0 keeps none
    train.flip_axes = ()  # axes (0, 1, 2) that patches are flipped along at random
    train.steps_per_call = 50  # updates per call of the device
    train.validate_every_steps = 1000  # full-volume Dice of the validation cases
    train.checkpoint_every_steps = 500
    # True keeps only the convolutions' results for the gradient and recomputes the
    # other activations: less memory, slightly more time.
    train.rematerialise = False
    # Folder, or gs:// or s3:// address, for the checkpoints, in a subfolder of the
    # run's name; "": in the run folder.
    train.checkpoints = ""
    # Training set in the memory of every "device", or read from files by the "host";
    # "auto" is "device" if it fits, else "host".
    train.residence = "auto"
    return train


def _evaluate() -> ConfigDict:
    evaluate = ConfigDict()
    # Samples are passes with "dropout" | of the eight "flips" of the volume | one pass
    # of each member of an "ensemble"; the last two without dropout.
    evaluate.source = "dropout"
    # Run folders of an ensemble: trainings on one split that differ only in the seed.
    # With the source "dropout" each member gives evaluate.samples samples.
    evaluate.members = ()
    evaluate.samples = 10  # N, number of dropout samples of each network
    # Dropout masks of a sample: the same for the whole "cohort", so that differences
    # between cases come from the images | new for each "volume" | for each "window".
    evaluate.mask_scope = "cohort"
    # Voxels (x, y, z); () is as wide as the volume and as deep as a patch: fewer
    # borders, where the network sees zero padding, and fewer voxels computed twice.
    evaluate.window_shape = ()
    evaluate.overlap = (0.25, 0.25, 0.25)  # of neighbouring windows, fraction per axis
    evaluate.window_batch = 1  # windows per call of the device
    evaluate.chunk = 0  # samples at a time; 0: as many as fit a GPU, one on a CPU
    # "latest" | "best" by validation Dice, which lowers the coverage of the bounds.
    evaluate.checkpoint = "latest"
    evaluate.save_predictions = False  # NIfTI mean, uncertainty and mask of every case
    evaluate.bootstrap = 5000  # resamples of the cases for 95 % intervals
    return evaluate
