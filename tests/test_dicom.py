import os
import re
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

from unc_jax.data import dicom, dicom_seg
from unc_jax.data.dicom_series import find_series
from unc_jax.data.geometry import geometry_notes, to_scan_order
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


def files_of(folder):
    """Files of the one series of a folder."""
    (one,), _ = find_series(path for path in folder.rglob("*") if path.is_file())
    assert not one.problem
    return one.files


def only(folder):
    """The one series of a folder, and files passed over by reason."""
    (one,), passed = find_series(path for path in folder.rglob("*") if path.is_file())
    return one, {path.name: reason for path, reason in passed}


def write_volume(folder, places, **changes):
    folder.mkdir(exist_ok=True)
    for number, place in enumerate(places):
        path = folder / f"{number}.dcm"
        write_slice(path, np.full((2, 3), number), place, **changes)
    return folder


def test_voxels_lie_where_dicom_says(series):
    array, geometry = dicom.read_series(files_of(series))
    assert array.shape == (3, 2, 3)
    assert geometry.spacing_mm == pytest.approx((0.5, 2.0, 5.0))
    # Lowest slice, first row, last column: 10 + 2 * 0.5 mm to the left, 20 back.
    corner = geometry.canonical_affine @ [0, 1, 0, 1]
    np.testing.assert_allclose(corner[:3], [-11.0, -20.0, 20.0])
    assert array[0, 1, 0] == 2 * 2 - 1000  # pixel 2 of the lowest slice
    assert array[2, 0, 2] == 2 * (12 + 3) - 1000  # top slice, second row, first column
    assert array.dtype == np.int16
    assert list(geometry_notes(geometry)) == []


def test_directions_rounded_to_two_decimals_keep_the_voxel_size(tmp_path):
    """As written they are 0.3 % too short, and another voxel size would follow."""
    directions = [0.99, 0.12, 0, -0.12, 0.99, 0]
    places = [(0, 0, 5.0 * number) for number in range(3)]
    write_volume(tmp_path, places, ImageOrientationPatient=directions)
    _, geometry = dicom.read_series(files_of(tmp_path))
    assert geometry.spacing_mm == pytest.approx((0.5, 2.0, 5.0), rel=1e-6)


def test_a_folder_of_series_is_a_folder_of_scans(series):
    (scan,), passed = find_scans(series)
    assert re.fullmatch(r"HCC_4_[0-9a-f]{8}", scan.case)
    assert (scan.path, scan.problem) == (series, "")
    assert scan.read().array.shape == (3, 2, 3)
    assert [path.name for path, _ in passed] == ["notes.txt"]


@pytest.mark.parametrize("step", [1.25, 0.625, 10 / 3, 0.7, 5.0])
def test_positions_rounded_to_a_tenth_of_a_millimetre(tmp_path, step):
    places = [(-12.3, 4.5, round(-100.3 + step * n, 1)) for n in range(40)]
    _, geometry = dicom.read_series(files_of(write_volume(tmp_path / "in", places)))
    assert geometry.spacing_mm[2] == pytest.approx(step, abs=0.003)
    for number in (0, 39):
        found = geometry.affine @ [0, 0, number, 1]
        true = [12.3, -4.5, -100.3 + step * number]
        np.testing.assert_allclose(found[:3], true, atol=0.06)


@pytest.mark.parametrize("degrees", [-20.0, 3.0, 15.0])
def test_a_tilted_gantry_makes_a_sheared_grid(tmp_path, degrees):
    tilt = np.radians(degrees)
    column = [0, np.cos(tilt), -np.sin(tilt)]
    places = [(10.0, 20.0, 30 + 5 * n) for n in range(4)]
    write_volume(tmp_path / "in", places, ImageOrientationPatient=[1, 0, 0, *column])
    geometry = dicom.read_series(files_of(tmp_path / "in")).geometry
    for number in range(4):  # the first voxel of each slice lies where its file says
        found = geometry.affine @ [0, 0, number, 1]
        np.testing.assert_allclose(found[:3], [-10, -20, 30 + 5 * number], atol=1e-4)
    along = geometry.affine @ [0, 1, 0, 1] - geometry.affine @ [0, 0, 0, 1]
    np.testing.assert_allclose(
        along[:3], 2 * np.array([0, -column[1], column[2]]), atol=1e-4
    )
    assert geometry.voxel_ml == pytest.approx(0.5 * 2 * 5 * np.cos(tilt) / 1000)
    (note,) = geometry_notes(geometry)
    assert f"sheared by {abs(degrees):.1f} degrees" in note
    assert "tilt" in note


def test_a_drift_is_followed_and_a_bend_refused(tmp_path):
    straight = [(10 + 0.5 * n, 20.0, 5.0 * n) for n in range(9)]
    _, geometry = dicom.read_series(files_of(write_volume(tmp_path / "a", straight)))
    last = geometry.affine @ [0, 0, 8, 1]
    np.testing.assert_allclose(last[:3], [-14, -20, 40], atol=1e-4)
    bent = [(10 + 0.1 * n * n, 20.0, 5.0 * n) for n in range(9)]
    with pytest.raises(InputError, match="beside the line"):
        dicom.read_series(files_of(write_volume(tmp_path / "b", bent)))
    steep = [(10.0 * n, 20.0, 5.0 * n) for n in range(9)]
    with pytest.raises(InputError, match="tilt of 63 degrees"):
        dicom.read_series(files_of(write_volume(tmp_path / "c", steep)))


def test_slices_that_grow_apart_are_refused(tmp_path):
    """Each gap is within five per cent of the median, their sum is far off."""
    gaps = [5.0] * 20 + [5.2] * 20
    places = [(0.0, 0.0, float(sum(gaps[:n]))) for n in range(41)]
    with pytest.raises(InputError, match="uneven positions"):
        dicom.read_series(files_of(write_volume(tmp_path / "in", places)))


def test_series_of_one_number_or_of_two_patients_stay_apart(series):
    write_slice(series / "x.dcm", np.zeros((2, 3)), (0, 0, 0), uid="1.2.9")
    write_slice(series / "y.dcm", np.zeros((2, 3)), (0, 0, 35), PatientID="B")
    write_slice(series / "z.dcm", np.zeros((2, 3)), (0, 0, 35), StudyInstanceUID="1.9")
    found = find_scans(series).scans
    assert sorted(len(scan.series) for scan in found) == [1, 1, 1, 3]
    assert len({scan.case for scan in found}) == 4


def test_series_without_identifiers_stay_apart_by_folder(tmp_path):
    for name in ("a", "b"):
        places = [(0, 0, 5.0 * n) for n in range(3)]
        write_volume(tmp_path / name, places, uid="", PatientID="")
    found = find_scans(tmp_path).scans
    assert [len(scan.series) for scan in found] == [3, 3]
    assert len({scan.case for scan in found}) == 2


def test_names_do_not_depend_on_company(series, tmp_path_factory):
    alone = find_scans(series).scans[0].case
    write_slice(series / "x.dcm", np.zeros((2, 3)), (0, 0, 0), uid="1.2.9")
    assert alone in [scan.case for scan in find_scans(series).scans]
    elsewhere = tmp_path_factory.mktemp("other") / "moved"
    shutil.copytree(series, elsewhere)
    assert alone in [scan.case for scan in find_scans(elsewhere).scans]


@pytest.mark.parametrize("place", [50.0, 30.0])
def test_a_missing_or_doubled_slice_is_named(series, place):
    write_slice(series / "far.dcm", np.zeros((2, 3)), (10.0, 20.0, place))
    with pytest.raises(InputError, match=r"far\.dcm.* lies .* the others 5 mm"):
        dicom.read_series(files_of(series))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"PixelSpacing": [1, 1]}, "differs from its series"),
        ({"SamplesPerPixel": 0}, "cannot be decoded"),
        ({"PixelSpacing": None}, "PixelSpacing is missing, empty"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient is missing, empty"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "ImageOrientationPatient is missing"),
        ({"Rows": None}, "Rows is missing, empty"),
        ({"RescaleSlope": None}, "only some slices of the series have RescaleSlope"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"Rows": 60000, "Columns": 60000}, "60000 x 60000 voxels"),
    ],
)
def test_a_slice_unlike_the_others_is_named(series, changes, message):
    place = (10.0, 20.0, 35.0)
    write_slice(series / "odd.dcm", np.zeros((2, 3)), place, **changes)
    with pytest.raises(InputError, match=rf"odd\.dcm: .*{message}"):
        dicom.read_series(files_of(series))


def test_an_empty_rescale_is_assumed_and_said(tmp_path):
    places = [(0, 0, 5.0 * n) for n in range(3)]
    write_volume(tmp_path / "in", places, RescaleSlope=None, RescaleIntercept=None)
    (scan,), _ = find_scans(tmp_path)
    assert scan.read().array.max() == 2
    assert "RescaleSlope is missing or empty in 0.dcm and 2 more" in scan.warnings[0]
    assert "RescaleIntercept" in scan.warnings[1]


@pytest.mark.parametrize(
    ("slope", "intercept", "stored", "dtype"),
    [
        ("0.0002", "0", [0, 1, 4095], np.float32),  # MR in small numbers
        ("25", "0", [0, 1, 30000], np.float32),  # PET
        (None, None, [0, 32768, 65505], np.float32),  # MR, uint16
        ("1", "-1024", [0, 1, 33791], np.int16),  # CT up to the last of int16
        ("1", "-1024", [0, 1, 33792], np.float32),
    ],
)
def test_no_voxel_is_clipped_or_rounded(tmp_path, slope, intercept, stored, dtype):
    for number, value in enumerate(stored):  # slices scale their voxels by themselves
        write_slice(
            tmp_path / f"{number}.dcm", np.full((2, 3), value).astype(np.uint16),
            (0, 0, 5.0 * number), PixelRepresentation=0,
            RescaleSlope=slope, RescaleIntercept=intercept,
        )  # fmt: skip
    array = dicom.read_series(files_of(tmp_path)).array
    expected = np.array(stored) * float(slope or 1) + float(intercept or 0)
    np.testing.assert_allclose(array[0, 0], expected, rtol=1e-6)
    assert array.dtype == dtype


def test_one_slice_is_no_volume(tmp_path):
    write_slice(tmp_path / "a.dcm", np.zeros((2, 3)), (0, 0, 0))
    with pytest.raises(InputError, match="one slice is not a volume"):
        dicom.read_series(files_of(tmp_path))


@pytest.mark.parametrize("left", [0, 300, -4])
def test_damaged_slices_are_named_and_spoil_their_series_alone(series, left):
    good = series / "deep" / "good"
    good.parent.mkdir()
    places = [(0, 0, 5.0 * n) for n in range(3)]
    write_volume(good, places, uid="1.2.9")
    torn = series / "0.dcm"
    torn.write_bytes(torn.read_bytes()[:left])
    spoilt, whole = find_series(p for p in series.rglob("*") if p.is_file())[0]
    assert re.match(
        r"1 file cannot be read, of or beside its 2 slices: 0\.dcm \(", spoilt.problem
    )
    assert (whole.problem, len(whole.files)) == ("", 3)


def test_a_folder_without_a_readable_slice_is_a_failed_case(series):
    (series / "torn").mkdir()
    (series / "torn" / "1.dcm").write_bytes(b"")
    found = find_scans(series).scans
    assert sorted(bool(scan.problem) for scan in found) == [False, True]
    with pytest.raises(InputError, match=r"none can be read of 1 DICOM file: 1\.dcm"):
        find_scans(series / "torn")


def test_copies_and_scouts_are_passed_over_by_name(series):
    write_slice(series / "3.dcm", np.zeros((2, 3)), (10.0, 20.0, 35.0))
    shutil.copy(series / "1.dcm", series / "1 (1).dcm")
    scout = [1, 0, 0, 0, 0, -1]
    write_slice(
        series / "s.dcm", np.zeros((2, 3)), (0, 0, 0), ImageOrientationPatient=scout
    )
    write_slice(
        series / "l.dcm",
        np.zeros((9, 9)),
        (0, 0, 0),
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )
    one, passed = only(series)
    assert [path.name for path in one.files] == [f"{n}.dcm" for n in range(4)]
    assert passed["1 (1).dcm"] == "copy of 1.dcm"
    assert "lies across" in passed["s.dcm"]
    assert passed["l.dcm"] == "localizer (scout)"


def test_a_slice_without_an_orientation_is_no_scout(tmp_path):
    """Its series would be shortened by it without a word."""
    folder = write_volume(tmp_path / "v", [(0, 0, 2.0 * i) for i in range(10)])
    changes = {"ImageOrientationPatient": None}
    write_slice(folder / "9.dcm", np.full((2, 3), 9), (0, 0, 18.0), **changes)
    one, passed = only(folder)
    assert passed == {}
    assert len(one.files) == 10
    with pytest.raises(InputError, match=r"9\.dcm: .*ImageOrientationPatient"):
        dicom.read_series(one.files)


def test_other_objects_are_passed_over_by_their_kind(series):
    for name in ("RTDoseStorage", "RTStructureSetStorage", "SegmentationStorage"):
        kind = getattr(pydicom.uid, name)
        write_slice(
            series / f"{name}.dcm", np.zeros((2, 3)), (0, 0, 0), SOPClassUID=kind
        )
    capture = pydicom.uid.SecondaryCaptureImageStorage
    write_slice(
        series / "screen.dcm",
        np.zeros((2, 3)),
        (0, 0, 0),
        SOPClassUID=capture,
        ImagePositionPatient=None,
    )
    one, passed = only(series)
    assert (len(one.files), one.problem) == (3, "")
    assert passed == {
        "notes.txt": "neither NIfTI nor DICOM",
        "RTDoseStorage.dcm": "RT Dose Storage",
        "RTStructureSetStorage.dcm": "RT Structure Set Storage",
        "SegmentationStorage.dcm": "Segmentation Storage",
        "screen.dcm": "picture without a place in space",
    }


def test_many_frames_in_a_file_are_refused_by_name(tmp_path):
    kind = pydicom.uid.EnhancedCTImageStorage
    write_slice(tmp_path / "e.dcm", np.zeros((2, 3)), (0, 0, 0), SOPClassUID=kind)
    (scan,), _ = find_scans(tmp_path)
    assert re.search(r"e\.dcm: many frames in one file .* dcm2niix", scan.problem)


def test_files_without_preamble_are_slices_too(series):
    whole = dicom.read_series(files_of(series)).array
    for path in list(series.glob("*.dcm"))[:2]:
        path.write_bytes(path.read_bytes()[132:])
    np.testing.assert_array_equal(dicom.read_series(files_of(series)).array, whole)


def deflate(path, padding):
    """Rewrites a slice as deflated, with zeros of a private element in it."""
    one = pydicom.dcmread(path)
    one.add_new(0x00091001, "OB", bytes(padding))
    one.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    one.save_as(path, enforce_file_format=True)


def test_a_deflated_slice_is_read(series):
    whole = dicom.read_series(files_of(series)).array
    deflate(series / "1.dcm", 1000)
    np.testing.assert_array_equal(dicom.read_series(files_of(series)).array, whole)


def jpeg(rows, columns, kind=0xC3):
    header = struct.pack(">BHH", 16, rows, columns) + b"\1\1\x11\0"
    return b"\xff\xd8\xff\xe0\0\4ab" + struct.pack(">BBH", 255, kind, 11) + header


def jpeg_2000(rows, columns):
    sizes = struct.pack(">8I", columns + 3, rows + 4, 3, 4, columns, rows, 3, 4)
    return b"\xff\x4f\xff\x51\0\x29\0\0" + sizes + b"\0\1\x0f\1\1"


BOXED = b"\0\0\0\x0cjP  \r\n\x87\n"


@pytest.mark.parametrize(
    ("syntax", "frame", "said"),
    [
        ("JPEG2000Lossless", jpeg_2000(60000, 50000), "coded as 60000 x 50000 voxels"),
        ("JPEG2000", BOXED + jpeg_2000(60000, 50000), "coded as 60000 x 50000 voxels"),
        ("JPEGLosslessSV1", jpeg(60000, 50000), "coded as 60000 x 50000 voxels"),
        ("JPEGLSLossless", jpeg(60000, 50000, 0xF7), "coded as 60000 x 50000 voxels"),
        ("RLELossless", b"\x81\0" * 10**5, "200000 bytes code 2 x 3"),
        ("JPEG2000Lossless", jpeg_2000(2, 3), "cannot be decoded"),
        ("JPEG2000Lossless", b"\xff\x4f\xff\x51", "cannot be decoded"),
        ("JPEGBaseline8Bit", b"\xff\xd8\xff", "cannot be decoded"),
    ],
)
def test_compressed_voxels_are_no_larger_than_said(series, syntax, frame, said):
    path = series / "1.dcm"
    one = pydicom.dcmread(path)
    one.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    one.PixelData = pydicom.encaps.encapsulate([frame])
    one.save_as(path)
    with pytest.raises(InputError, match=rf"1\.dcm: .*{said}"):
        dicom.read_series(files_of(series))


def test_a_series_has_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom, "_MOST_VOXELS", 17)
    folder = write_volume(tmp_path / "large", [(0, 0, 5.0 * n) for n in range(3)])
    with pytest.raises(InputError, match=r"2\.dcm: its series has more than 17"):
        dicom.read_series(files_of(folder))


def test_a_deflated_bomb_is_refused_in_little_memory(series):
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflate(series / "1.dcm", 10)
    start = (series / "1.dcm").read_bytes()
    end = 144 + int.from_bytes(start[140:144], "little")
    zeros = b"".join(packer.compress(bytes(1 << 24)) for _ in range(30))
    (series / "1.dcm").write_bytes(start[:end] + zeros + packer.flush())
    # VmHWM is of this program alone; ru_maxrss would begin at that of the tests.
    program = (
        "import pathlib, re, sys; from unc_jax.data import dicom_series as d\n"
        "print(d.find_series(pathlib.Path(sys.argv[1]).glob('*.dcm'))[0][0].problem)\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', status)[1])"
    )
    command = [sys.executable, "-c", program, str(series)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    problem, kilobytes = said.splitlines()
    assert "1.dcm (unpacks to more than 64 MB" in problem
    assert int(kilobytes) < 400_000


def test_pipes_are_no_files(series):
    os.mkfifo(series / "pipe.dcm")
    (scan,), passed = find_scans(series)
    assert len(scan.series) == 3
    assert "pipe" in dict(passed)[series / "pipe.dcm"]


@pytest.fixture
def ct(series):
    """The files of a series that allows a segmentation, and its grid."""
    pytest.importorskip("highdicom")
    for path in series.glob("*.dcm"):
        one = pydicom.dcmread(path)
        one.Modality, one.StudyInstanceUID, one.FrameOfReferenceUID = "CT", "1.5", "1.6"
        one.SliceThickness = 5.0
        del one.PatientID  # as de-identified series have it
        one.save_as(path)
    files = files_of(series)
    return files, dicom.read_series(files)[1]


def segmented(folder, ct, **maps):
    """What is read again of the maps, by name."""
    target = maps.pop("target", "liver")
    files, geometry = ct
    dicom_seg.write_segmentations(
        folder, maps, geometry, files, target=target, version="1"
    )
    return {name: pydicom.dcmread(folder / f"{name}.dcm") for name in maps}


def test_a_mask_becomes_a_segmentation_of_its_series(tmp_path, ct):
    mask = np.zeros((3, 2, 3), bool)
    mask[0, 1, 2] = True  # canonical: last column, first row, top slice
    identifiers = set()
    for _ in range(2):
        found = segmented(tmp_path, ct, mask=mask)["mask"]
        identifiers.add(found.SOPInstanceUID)
    assert len(identifiers) == 1
    assert found.SOPClassUID == pydicom.uid.SegmentationStorage
    assert found.NumberOfFrames == 1  # empty planes are left out
    np.testing.assert_array_equal(np.squeeze(found.pixel_array), [[0, 0, 1], [0, 0, 0]])
    frame = found.PerFrameFunctionalGroupsSequence[0]
    place = frame.PlanePositionSequence[0].ImagePositionPatient
    assert list(place) == [10.0, 20.0, 30.0]
    found = segmented(tmp_path, ct, mask=mask & False, target="tumor")["mask"]
    assert not found.pixel_array.any()
    assert found.SOPInstanceUID not in identifiers


def test_mean_and_uncertainty_become_fractions(tmp_path, ct):
    rng = np.random.default_rng(0)
    maps = {name: rng.random((3, 2, 3), np.float32) for name in ("mean", "uncertainty")}
    maps["mean"][:, :, 1] = 0  # a plane that is left out
    found = segmented(tmp_path, ct, **maps)
    for name, one in found.items():
        assert one.SegmentationType == "FRACTIONAL"
        assert one.SegmentationFractionalType == "PROBABILITY"
        most = one.MaximumFractionalValue
        assert most == 255
        read = np.zeros((3, 2, 3))  # planes from the feet up, rows, columns
        for frame, plane in zip(
            one.PerFrameFunctionalGroupsSequence, one.pixel_array, strict=True
        ):
            z = frame.PlanePositionSequence[0].ImagePositionPatient[2]
            read[[20.0, 25.0, 30.0].index(float(z))] = plane / most
        # Of the series columns run to the left, rows to the back: both turned.
        canonical = read.transpose(2, 1, 0)[::-1, ::-1]
        np.testing.assert_allclose(canonical, maps[name], atol=0.5 / 255 + 1e-6)
    assert len(found["mean"].PerFrameFunctionalGroupsSequence) == 2
    series = {one.SeriesInstanceUID for one in found.values()}
    assert len(series) == 2


def test_viewers_find_names_codes_and_the_algorithm(tmp_path, ct):
    maps = {name: np.ones((3, 2, 3)) for name in ("mask", "mean", "uncertainty")}
    labels = []
    for name, one in segmented(tmp_path, ct, **maps).items():
        assert one.Modality == "SEG"
        assert one.SeriesDescription.startswith("unc_jax liver, ")
        assert one.ContentLabel == name.upper()
        (segment,) = one.SegmentSequence
        labels.append(segment.SegmentLabel)
        (category,) = segment.SegmentedPropertyCategoryCodeSequence
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        assert (category.CodeMeaning, kind.CodeMeaning) == ("Organ", "Liver")
        assert kind.CodingSchemeDesignator == "SCT"
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentAlgorithmName == "unc_jax"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("unc_jax", "1")
        assert len(segment.RecommendedDisplayCIELabValue) == 3
        assert segment.TrackingUID
    assert labels == ["liver", "liver: mean probability", "liver: uncertainty, nats"]
    other = segmented(tmp_path, ct, mask=maps["mask"], target="organ")["mask"]
    (kind,) = other.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    assert kind.CodeMeaning == "Organ"


def test_the_standards_own_check_has_no_complaint(tmp_path, ct):
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy here")
    maps = {name: np.ones((3, 2, 3)) for name in ("mask", "mean", "uncertainty")}
    segmented(tmp_path, ct, **maps)
    for name in maps:
        done = subprocess.run(
            ["dciodvfy", tmp_path / f"{name}.dcm"], capture_output=True, text=True
        )
        assert "Error" not in done.stderr


def test_a_series_without_study_gives_no_segmentation(series):
    pytest.importorskip("highdicom")
    files = files_of(series)
    _, geometry = dicom.read_series(files)
    maps = {"mask": np.ones((3, 2, 3), bool), "mean": np.ones((3, 2, 3))}
    with pytest.raises(InputError, match="allows no segmentation"):
        dicom_seg.write_segmentations(
            series / "o", maps, geometry, files, target="liver", version="1"
        )
    assert not (series / "o").exists()


def placed_by_hand(folder):
    """Voxels (x, y, z) in HU and their affine, from the standard's words alone."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    slices = [pydicom.dcmread(path) for path in paths]
    row, column = np.reshape(slices[0].ImageOrientationPatient, (2, 3)).astype(float)
    up = np.cross(row, column)
    slices.sort(key=lambda one: float(np.dot(up, one.ImagePositionPatient)))
    ends = slices[0], slices[-1]
    first, last = (np.array(one.ImagePositionPatient, float) for one in ends)
    down, across = map(float, slices[0].PixelSpacing)
    affine = np.eye(4)
    step = (last - first) / (len(slices) - 1)
    affine[:3] = np.stack([row * across, column * down, step, first], axis=1)
    arrays = [
        one.pixel_array.T * float(one.RescaleSlope) + float(one.RescaleIntercept)
        for one in slices
    ]
    return np.stack(arrays, axis=-1), np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.real
@pytest.mark.parametrize("name", ["hcc_015.zip", "jpeg2000_series"])
def test_real_series_lie_where_the_standard_says(real_data, tmp_path, name):
    folder = real_data / "dicom" / name
    if folder.suffix == ".zip":
        shutil.unpack_archive(folder, tmp_path)
        folder = tmp_path
    (one,), _ = find_series(path for path in folder.rglob("*") if path.is_file())
    array, geometry = dicom.read_series(one.files)
    expected, affine = placed_by_hand(folder)
    np.testing.assert_allclose(geometry.affine, affine, atol=1e-4)
    np.testing.assert_array_equal(to_scan_order(array, geometry), expected)
