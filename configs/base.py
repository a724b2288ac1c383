"""Every field of a run, with its default, unit and meaning. Other configs override.

The defaults are the paper's where the paper says, and the choices of docs/choices.md
where it is silent.
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
    # "liver" | "tumor", a part of the organ, seen within the organ's bounding box.
    data.target = "liver"
    # Label values of the organ, tumours included, and of the tumours; () finds them by
    # the names in dataset.json: liver, and tumour, cancer or lesion.
    data.liver_labels = ()
    data.tumor_labels = ()
    # Voxels (x, y, z) every case is resampled to; "auto" (tumor only) takes the mean
    # size of the test cases after cropping, as the paper did.
    data.shape = config_dict.FieldReference((256, 256, 256), field_type=object)
    data.window_hu = (-120.0, 240.0)  # clip range, HU; () clips nothing (MR)
    # Value outside the organ (tumor only), HU; None: the organ's minimum (MR).
    data.outside_hu = config_dict.placeholder(float)
    data.normalisation = "population"  # z-score by the training set | each "case"
    # Proportions of training, validation and test cases. The validation cases calibrate
    # the bounds of predicted Dice: n of them support a level of n / (n + 1).
    data.split_shares = (63, 13, 55)
    data.split_file = ""  # JSON of train, validation, test ids; "" draws one
    data.split_seed = 0  # of that draw
    # Out of fold: 0 ... folds - 1 draws that fold, of which each case is a test case
    # once; -1 draws the one split of split_shares. compare joins the folds.
    data.fold = -1
    data.folds = 5
    data.skip_bad_cases = False  # True leaves out what verification refuses
    data.phantom_cases = 131  # of the synthetic cohort
    data.phantom_size = (256, 256, 200)  # its largest grid, voxels
    data.phantom_seed = 0
    return data


def _model() -> ConfigDict:
    model = ConfigDict()
    model.name = "unet3d"  # of the table MODELS; the fields below are the U-Net's
    model.features = 32  # channels of the first convolution; doubles per level
    model.depth = 4  # levels
    model.norm = "batch"  # "batch" | "group" | "none"
    # Dropped are whole channels, "spatial" | a "fixed" number of them | each "element".
    model.dropout_kind = "spatial"
    model.dropout_placement = "all"  # every 3x3x3 convolution | "bottleneck"
    model.dropout_rate = 0.1
    model.compute_dtype = "auto"  # bfloat16 where the hardware has it | "float32" | ...
    return model


def _loss() -> ConfigDict:
    loss = ConfigDict()
    # Of the table LOSSES: "wcc", weighted categorical cross-entropy | soft "dice".
    loss.name = "wcc"
    loss.wcc_weights = ((1.0, 1.0), (3.0, 3.0))  # [true][predicted], background first
    return loss


def _train() -> ConfigDict:
    train = ConfigDict()
    train.steps = 20_000  # updates
    train.batch = 8  # patches per update
    train.patch_shape = (128, 128, 16)  # voxels (x, y, z)
    train.foreground_fraction = 0.5  # patches centred on the target; the rest anywhere
    train.learning_rate = 1e-4  # NAdam
    train.schedule = "constant"  # "constant" | "cosine" to zero over train.steps
    train.clip_norm = 0.0  # largest global gradient norm; 0 clips nothing
    train.average_decay = 0.0  # exponential moving average of the weights; 0 keeps none
    train.flip_axes = ()  # axes (0, 1, 2) that patches are flipped along at random
    train.steps_per_call = 50  # updates per call of the device
    train.validate_every_steps = 1000  # full-volume Dice of the validation cases
    train.checkpoint_every_steps = 500
    # True keeps the convolutions' results alone for the gradient and computes what lies
    # between them again: less memory, a little more time.
    train.rematerialise = False
    # Folder, or gs:// or s3:// address, under which a folder of the run's name holds
    # its checkpoints; in the run folder if empty.
    train.checkpoints = ""
    # Training set in the memory of every "device", or read by the "host"; "auto" is
    # device, or host where it does not fit.
    train.residence = "auto"
    return train


def _evaluate() -> ConfigDict:
    evaluate = ConfigDict()
    # Samples are passes under "dropout" | the eight "flips" of the volume | one pass of
    # each member of an "ensemble"; the last two without dropout.
    evaluate.source = "dropout"
    # Run folders of an ensemble: trainings on one split that differ by the seed alone.
    # With the source "dropout" each member gives evaluate.samples samples.
    evaluate.members = ()
    evaluate.samples = 10  # N, of dropout, of each network
    # Dropout masks of a sample: the same for the whole "cohort", so that cases differ
    # by what they show | one draw per "volume" | a fresh one for each "window".
    evaluate.mask_scope = "cohort"
    # Voxels (x, y, z); () is the volume's plane, x and y, by the patch's depth: fewer
    # borders, where the network sees zeros, and fewer voxels seen twice.
    evaluate.window_shape = ()
    evaluate.overlap = (0.25, 0.25, 0.25)  # of neighbouring windows, fraction per axis
    evaluate.window_batch = 1  # windows per call of the device
    evaluate.chunk = 0  # samples at a time; 0: as many as fit a GPU, one on a CPU
    # "latest" | the "best" by validation Dice, which costs the bounds some coverage.
    evaluate.checkpoint = "latest"
    evaluate.save_predictions = False  # NIfTI mean, uncertainty and mask of every case
    evaluate.bootstrap = 5000  # resamples of the cases for 95 % intervals
    return evaluate
