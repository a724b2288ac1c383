import numpy as np
import pytest

from unc_jax.data import dicom
from unc_jax.errors import InputError
from unc_jax.review.scans import find_scans

pydicom = pytest.importorskip("pydicom")


def write_slice(path, pixels, place, uid="1.2.3", **changes):
    """One uncompressed CT slice of int16 `pixels` (rows, columns)."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.{abs(hash(path.name)) % 10**6}"
    one = pydicom.dataset.FileDataset(
        str(path), {}, file_meta=meta, preamble=b"\0" * 128
    )
    one.SOPClassUID = meta.MediaStorageSOPClassUID
    one.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    one.SeriesInstanceUID, one.SeriesNumber, one.PatientID = uid, 4, "HCC"
    one.Rows, one.Columns = pixels.shape
    one.PixelSpacing = [2.0, 0.5]  # between rows, between columns
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    one.ImagePositionPatient = list(place)
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation = 15, 1
    one.RescaleSlope, one.RescaleIntercept = 2, -1000
    for name, value in changes.items():
        setattr(one, name, value)
    one.PixelData = pixels.astype(np.int16).tobytes()
    one.save_as(path, enforce_file_format=True)


@pytest.fixture
def series(tmp_path):
    """Three slices of 2 rows and 3 columns, written from top to bottom."""
    pixels = np.arange(18).reshape(3, 2, 3)
    for number in range(3):
        place = (10.0, 20.0, 30.0 - 5 * number)
        write_slice(tmp_path / f"{number}.dcm", pixels[2 - number], place)
    (tmp_path / "notes.txt").write_text("no DICOM")
    return tmp_path


def test_voxels_lie_where_dicom_says(series):
    (name, files), *others = dicom.find_series(series).items()
    assert (name, len(files), others) == ("HCC_4", 3, [])
    array, geometry = dicom.read_series(files)
    assert array.shape == (3, 2, 3)
    assert geometry.spacing_mm == pytest.approx((0.5, 2.0, 5.0))
    # Lowest slice, first row, last column: 10 + 2 * 0.5 mm to the left, 20 back.
    corner = geometry.canonical_affine @ [0, 1, 0, 1]
    np.testing.assert_allclose(corner[:3], [-11.0, -20.0, 20.0])
    assert array[0, 1, 0] == 2 * 2 - 1000  # pixel 2 of the lowest slice
    assert array[2, 0, 2] == 2 * (12 + 3) - 1000  # top slice, second row, first column
    assert array.dtype == np.int16


def test_a_folder_of_series_is_a_folder_of_scans(series):
    scan = find_scans(series)[0]
    assert scan.case == "HCC_4"
    assert scan.read().array.shape == (3, 2, 3)
    assert len(scan.stamp()) == 3


def test_files_that_are_no_slices_are_said_so(tmp_path):
    (tmp_path / "torn.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\1" * 64)
    with pytest.raises(InputError, match="none of its 1 DICOM files"):
        find_scans(tmp_path)


def test_two_series_of_one_number_stay_apart(series):
    write_slice(series / "x.dcm", np.zeros((2, 3)), (0, 0, 0), uid="1.2.9")
    assert set(dicom.find_series(series)) == {"HCC_4_1.2.3", "HCC_4_1.2.9"}


def test_a_missing_slice_is_named(series):
    write_slice(series / "far.dcm", np.zeros((2, 3)), (10.0, 20.0, 50.0))
    (files,) = dicom.find_series(series).values()
    with pytest.raises(InputError, match=r"far\.dcm: lies 20 mm .* the others 5 mm"):
        dicom.read_series(files)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"PixelSpacing": [1, 1]}, "differs from its series"),
        ({"SamplesPerPixel": 0}, "cannot be decoded"),
    ],
)
def test_a_slice_unlike_the_others_is_named(series, changes, message):
    place = (10.0, 20.0, 35.0)
    write_slice(series / "odd.dcm", np.zeros((2, 3)), place, **changes)
    (files,) = dicom.find_series(series).values()
    with pytest.raises(InputError, match=rf"odd\.dcm: .*{message}"):
        dicom.read_series(files)


def test_one_slice_is_no_volume(tmp_path):
    write_slice(tmp_path / "a.dcm", np.zeros((2, 3)), (0, 0, 0))
    (files,) = dicom.find_series(tmp_path).values()
    with pytest.raises(InputError, match="one slice is no volume"):
        dicom.read_series(files)


def test_a_mask_becomes_a_segmentation_of_its_series(series):
    pytest.importorskip("highdicom")
    for path in series.glob("*.dcm"):
        one = pydicom.dcmread(path)
        one.Modality, one.StudyInstanceUID, one.FrameOfReferenceUID = "CT", "1.5", "1.6"
        one.PatientName, one.PatientBirthDate, one.PatientSex = "A", "", ""
        one.StudyDate, one.StudyTime, one.AccessionNumber, one.StudyID = "", "", "", ""
        one.ReferringPhysicianName, one.SliceThickness = "", 5.0
        one.save_as(path)
    (files,) = dicom.find_series(series).values()
    _, geometry = dicom.read_series(files)
    mask = np.zeros((3, 2, 3), bool)
    mask[0, 1, 2] = True  # canonical: last column, first row, top slice
    path = series / "out" / "mask.dcm"
    identifiers = set()
    for _ in range(2):
        dicom.write_segmentation(
            path, mask, geometry, files, target="liver", version="1"
        )
        found = pydicom.dcmread(path)
        identifiers.add(found.SOPInstanceUID)
    assert len(identifiers) == 1
    assert found.SOPClassUID == pydicom.uid.SegmentationStorage
    assert found.SegmentSequence[0].SegmentLabel == "liver"
    assert found.NumberOfFrames == 1  # empty planes are left out
    np.testing.assert_array_equal(np.squeeze(found.pixel_array), [[0, 0, 1], [0, 0, 0]])
    frame = found.PerFrameFunctionalGroupsSequence[0]
    place = frame.PlanePositionSequence[0].ImagePositionPatient
    assert list(place) == [10.0, 20.0, 30.0]
    mask[:] = False
    dicom.write_segmentation(path, mask, geometry, files, target="tumor", version="1")
    assert not pydicom.dcmread(path).pixel_array.any()
    assert pydicom.dcmread(path).SOPInstanceUID not in identifiers


def test_a_series_without_patient_gives_no_segmentation(series):
    pytest.importorskip("highdicom")
    (files,) = dicom.find_series(series).values()
    _, geometry = dicom.read_series(files)
    with pytest.raises(InputError, match="allows no segmentation"):
        dicom.write_segmentation(
            series / "mask.dcm",
            np.ones((3, 2, 3), bool),
            geometry,
            files,
            target="liver",
            version="1",
        )
    assert not (series / "mask.dcm").exists()
