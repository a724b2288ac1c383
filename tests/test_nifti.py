import gzip
import itertools
import json
import os
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unc_jax.data import nifti
from unc_jax.data.geometry import geometry_notes
from unc_jax.data.nifti import Geometry
from unc_jax.errors import InputError

ORDERS = [
    pytest.param(order, signs, id="".join(map(str, order)) + "".join(signs))
    for order in itertools.permutations(range(3))
    for signs in itertools.product("+-", repeat=3)
]


def affine_of(order, signs, spacing=(0.7, 0.8, 2.5), origin=(-101.3, 55.5, 7.25)):
    affine = np.eye(4)
    affine[:3, :3] = 0.0
    for axis in range(3):
        sign = -1.0 if signs[axis] == "-" else 1.0
        affine[order[axis], axis] = sign * spacing[axis]
    affine[:3, 3] = origin
    return affine.astype(np.float32).astype(float)


def save(path, array, affine, *, sform=1, qform=1, dtype=None):
    image = nib.Nifti1Image(np.asarray(array), None, dtype=dtype or array.dtype)
    image.header.set_qform(affine, code=qform)
    image.header.set_sform(affine, code=sform)
    image.header["descrip"] = b"Doe^Jane 1970"
    nib.save(nib.Nifti1Image(image.dataobj, None, image.header), path)
    return path


def volume(shape=(3, 4, 5), dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def voxel_bytes(path):
    return gzip.decompress(Path(path).read_bytes())[352:]


def rewrite(path, change):
    """Unpacks a .nii.gz, lets `change` edit its bytes, packs it again."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    path.write_bytes(gzip.compress(bytes(change(content) or content)))


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_written_scan_has_the_bytes_and_affine_that_were_read(tmp_path, order, signs):
    source = save(tmp_path / "a.nii.gz", volume(), affine_of(order, signs))
    array, geometry = nifti.read(source)
    nifti.write(tmp_path / "b.nii.gz", array, geometry, np.int16)
    again = nib.load(tmp_path / "b.nii.gz")
    assert voxel_bytes(tmp_path / "b.nii.gz") == voxel_bytes(source)
    np.testing.assert_array_equal(again.affine, nib.load(source).affine)
    assert nifti.read_geometry(tmp_path / "b.nii.gz") == geometry


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_reading_agrees_with_nibabel_canonical(tmp_path, order, signs):
    source = save(tmp_path / "a.nii.gz", volume(), affine_of(order, signs))
    expected = nib.as_closest_canonical(nib.load(source))
    array, geometry = nifti.read(source)
    np.testing.assert_array_equal(array, np.asarray(expected.dataobj))
    np.testing.assert_allclose(geometry.canonical_affine, expected.affine, rtol=1e-12)
    assert geometry.canonical_shape == expected.shape
    np.testing.assert_allclose(geometry.spacing_mm, expected.header.get_zooms())


@given(
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from("+-")] * 3),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.floats(-0.5, 0.5),
)
def test_orders_invert_each_other_on_oblique_grids(order, signs, shape, angle):
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    geometry = Geometry(shape, turn @ affine_of(order, signs))
    stored = volume(shape)
    canonical = nifti.to_canonical(stored, geometry)
    assert canonical.shape == geometry.canonical_shape
    np.testing.assert_array_equal(nifti.to_scan_order(canonical, geometry), stored)
    # The same voxel lies at the same place in both orders: follow the last one.
    i, j, k = np.argwhere(canonical == stored[-1, -1, -1])[0]
    there = geometry.affine @ [*(np.array(shape) - 1), 1]
    np.testing.assert_allclose(geometry.canonical_affine @ [i, j, k, 1], there)


def test_las_scan_by_hand(tmp_path):
    # x runs to the left: voxel 0 is the rightmost, so RAS+ starts with the last one.
    affine = np.diag([-2.0, 1.0, 3.0, 1.0])
    path = save(tmp_path / "a.nii.gz", np.array([[[10]], [[20]]], np.int16), affine)
    array, geometry = nifti.read(path)
    assert array[:, 0, 0].tolist() == [20, 10]
    assert geometry.canonical_affine[0].tolist() == [2.0, 0.0, 0.0, -2.0]
    assert geometry.voxel_ml == pytest.approx(0.006)


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 0), (0, 1), (1, 2), (0, 0)])
def test_form_codes_and_both_forms_are_kept(tmp_path, sform, qform):
    angle = np.radians(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ affine_of((0, 1, 2), "+-+")
    source = save(tmp_path / "a.nii.gz", volume(), affine, sform=sform, qform=qform)
    array, geometry = nifti.read(source)
    nifti.write(tmp_path / "b.nii.gz", array, geometry, np.float32)
    old, new = nib.load(source), nib.load(tmp_path / "b.nii.gz")
    assert (new.header["sform_code"], new.header["qform_code"]) == (sform, qform)
    np.testing.assert_array_equal(new.affine, old.affine)
    np.testing.assert_array_equal(new.header.get_qform(), old.header.get_qform())
    np.testing.assert_array_equal(new.get_fdata(), old.get_fdata())


def test_no_text_of_the_scan_reaches_the_written_file(tmp_path):
    source = save(tmp_path / "a.nii.gz", volume(), np.eye(4))
    assert b"Doe" in gzip.decompress(source.read_bytes())
    array, geometry = nifti.read(source)
    nifti.write(tmp_path / "b.nii.gz", array, geometry, np.int16)
    assert b"Doe" not in gzip.decompress((tmp_path / "b.nii.gz").read_bytes())


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (np.uint8, np.uint8),
        (np.int16, np.int16),
        (np.dtype(">i2"), np.int16),
        (np.uint16, np.uint16),
        (np.int32, np.int32),
        (np.int64, np.int32),
        (np.float32, np.float32),
        (np.float64, np.float32),
    ],
)
def test_type_of_the_array_read(tmp_path, stored, expected):
    swapped = np.dtype(stored).byteorder == ">"
    header = nib.Nifti1Header(endianness=">" if swapped else "<")
    header.set_data_dtype(stored)
    image = nib.Nifti1Image(volume(dtype=stored), np.eye(4), header)
    nib.save(image, tmp_path / "a.nii.gz")
    array, _ = nifti.read(tmp_path / "a.nii.gz")
    assert array.dtype == expected
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, volume())


def test_slope_and_intercept_give_float32(tmp_path):
    image = nib.Nifti1Image(volume(), np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    nib.save(image, tmp_path / "a.nii")
    stored = np.asarray(nib.load(tmp_path / "a.nii").dataobj)
    array, _ = nifti.read(tmp_path / "a.nii")
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, stored, atol=1e-3)


def test_geometry_header_and_slabs_survive_many_blocks(tmp_path, monkeypatch):
    # Blocks of one plane each: a block border must neither lose nor repeat a plane.
    monkeypatch.setattr(nifti, "_BLOCK_BYTES", 100)
    source = save(tmp_path / "a.nii.gz", volume((5, 6, 7)), affine_of((2, 0, 1), "-+-"))
    array, geometry = nifti.read(source)
    nifti.write(tmp_path / "b.nii.gz", array, geometry, np.int16)
    assert voxel_bytes(tmp_path / "b.nii.gz") == volume((5, 6, 7)).tobytes(order="F")


def test_trailing_axis_of_one_is_dropped(tmp_path):
    array, geometry = nifti.read(
        save(tmp_path / "a.nii.gz", volume((3, 4, 5, 1)), np.eye(4))
    )
    assert array.shape == geometry.shape == (3, 4, 5)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5, 2), (3, 4, 5, 1, 3)])
def test_other_dimensions_are_refused(tmp_path, shape):
    path = save(tmp_path / "a.nii.gz", volume(shape), np.eye(4))
    for reader in (nifti.read, nifti.read_geometry):
        with pytest.raises(InputError, match=r"a\.nii\.gz: shape \(3, 4"):
            reader(path)


def test_colours_and_complex_numbers_are_refused(tmp_path):
    rgb = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "rgb.nii.gz")
    complex_ = volume(dtype=np.complex64)
    nib.save(nib.Nifti1Image(complex_, np.eye(4)), tmp_path / "complex.nii.gz")
    for name in ("rgb", "complex"):
        with pytest.raises(InputError, match=rf"{name}\.nii\.gz: voxels are"):
            nifti.read(tmp_path / f"{name}.nii.gz")


def truncated(content):
    return content[: len(content) // 2]


def wrong_checksum(content):
    return content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]


def without_trailer(content):
    return content[:-8]


def few_voxels(content):
    return gzip.compress(gzip.decompress(content)[:-10])


def flipped_bits(content):
    middle = len(content) // 2
    return content[:middle] + b"\xff" * 40 + content[middle + 40 :]


def web_page(content):
    return b"<html>" * 100


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "truncated"),
        (without_trailer, "truncated"),
        (few_voxels, "truncated"),
        (wrong_checksum, "damaged gzip"),
        (flipped_bits, "damaged gzip"),
        (web_page, "not a NIfTI file"),
        (lambda content: b"", "not a NIfTI file"),
    ],
)
def test_damaged_file_is_one_line_naming_the_file(tmp_path, damage, message):
    random = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20), np.int16)
    path = save(tmp_path / "a.nii.gz", random, np.eye(4))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        nifti.read(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair, nib.Nifti2Image])
def test_nifti_2_and_pairs_are_read(tmp_path, kind):
    affine = affine_of((1, 0, 2), "-++")
    ending = "hdr" if kind.__name__.endswith("Pair") else "nii.gz"
    path = tmp_path / f"a.{ending}"
    nib.save(kind(volume(), affine), path)
    plain = nifti.read(save(tmp_path / "b.nii.gz", volume(), affine))
    for name in nifti.files_of(path):  # a pair by either of its files
        array, geometry = nifti.read(name)
        assert geometry.shape == plain.geometry.shape
        np.testing.assert_array_equal(array, plain.array)
        np.testing.assert_allclose(geometry.affine, affine, rtol=1e-6)
    json.dumps(geometry.to_json(), allow_nan=False)
    nifti.write(tmp_path / "c.nii.gz", array, geometry, np.int16)
    again = nib.load(tmp_path / "c.nii.gz")
    assert type(again) is nib.Nifti1Image
    np.testing.assert_allclose(again.affine, affine, rtol=1e-6)
    assert voxel_bytes(tmp_path / "c.nii.gz") == voxel_bytes(tmp_path / "b.nii.gz")


def test_half_a_pair_is_refused(tmp_path):
    nib.save(nib.Nifti1Pair(volume(), np.eye(4)), tmp_path / "a.hdr")
    (tmp_path / "a.hdr").rename(tmp_path / "b.nii")
    with pytest.raises(InputError, match=r"b\.nii: not a NIfTI file"):
        nifti.read(tmp_path / "b.nii")
    with pytest.raises(InputError, match=r"a\.hdr: no such file"):
        nifti.read(tmp_path / "a.img")
    (tmp_path / "b.nii").rename(tmp_path / "c.hdr")
    with pytest.raises(InputError, match=r"c\.img: no such file"):
        nifti.read(tmp_path / "c.hdr")


def test_offset_of_zero_is_behind_the_header(tmp_path):
    path = save(tmp_path / "a.nii.gz", volume(), np.eye(4))
    rewrite(path, lambda content: content.__setitem__(slice(108, 112), bytes(4)))
    np.testing.assert_array_equal(nifti.read(path).array, volume())


@pytest.mark.parametrize("offset", [1e9, 1e12, 3e38])
def test_huge_offset_is_refused_without_its_memory(tmp_path, offset):
    path = save(tmp_path / "a.nii.gz", volume(), np.eye(4))
    place = np.float32(offset).tobytes()
    rewrite(path, lambda content: content.__setitem__(slice(108, 112), place))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"a\.nii\.gz: (truncated|cannot be read)"):
        nifti.read(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.nii")
    with pytest.raises(InputError, match=r"a\.nii: no file"):
        nifti.read(tmp_path / "a.nii")


def test_voxels_far_behind_the_header_take_no_memory(tmp_path):
    path = save(tmp_path / "a.nii.gz", volume(), np.eye(4))
    far = 1 << 27
    rewrite(
        path,
        lambda content: content.__setitem__(slice(108, 112), np.float32(far).tobytes()),
    )
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(far), 1))
    tracemalloc.start()
    nifti.read(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 25
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("length", "message"), [(1 + 1e-6, ""), (1.0009, ""), (1.2, "cannot be read")]
)
def test_a_quaternion_a_hair_too_long(tmp_path, length, message):
    path = save(tmp_path / "a.nii.gz", volume(), np.diag([-1, -1, 1, 1.0]))
    image = nib.load(path)
    header = image.header
    header["sform_code"], header["qform_code"] = 0, 1
    turned = (0.0, 0.6 * length, 0.8 * length)  # by 180 degrees
    header["quatern_b"], header["quatern_c"], header["quatern_d"] = turned
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)))
    if message:
        with pytest.raises(InputError, match=message):
            nifti.read(path)
        return
    array, geometry = nifti.read(path)
    true = [[-1, 0, 0], [0, -0.28, 0.96], [0, 0.96, 0.28]]
    np.testing.assert_allclose(geometry.affine[:3, :3], true, atol=1e-3)
    nifti.write(tmp_path / "b.nii", array, geometry, np.int16)
    assert np.isfinite(nib.load(tmp_path / "b.nii").affine).all()


def test_forms_that_contradict_each_other_are_said(tmp_path):
    image = nib.Nifti1Image(volume(), np.diag([1, 1, 2, 1.0]))
    image.set_sform(np.diag([1, 1, 2, 1.0]), 1)
    image.set_qform(np.diag([-1, 1, 2, 1.0]), 1)
    nib.save(image, tmp_path / "a.nii")
    geometry = nifti.read_geometry(tmp_path / "a.nii")
    (note,) = geometry_notes(geometry)
    assert "sform and qform contradict" in note
    assert "the sform is used" in note
    np.testing.assert_allclose(geometry.affine, np.diag([1, 1, 2, 1.0]))


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1e3), ("micron", 1e-3)])
@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (0, 1), (0, 0)])
def test_grids_are_in_millimetres_whatever_the_header_counts_in(
    tmp_path, unit, mm, sform, qform
):
    turn = affine_of((1, 0, 2), "+--")
    plain = save(tmp_path / "mm.nii.gz", volume(), turn, sform=sform, qform=qform)
    image = nib.load(plain)
    header = image.header.copy()
    header.set_xyzt_units(unit, "sec")
    for name in ("pixdim", "qoffset_x", "qoffset_y", "qoffset_z"):
        header[name] = image.header[name] / mm
    header["pixdim"][0] = image.header["pixdim"][0]
    for name in ("srow_x", "srow_y", "srow_z"):
        header[name] = image.header[name] / mm
    nib.save(nib.Nifti1Image(image.dataobj, None, header), tmp_path / "other.nii.gz")
    expected, found = (nifti.read(p) for p in (plain, tmp_path / "other.nii.gz"))
    np.testing.assert_allclose(
        found.geometry.canonical_affine, expected.geometry.canonical_affine, rtol=1e-6
    )
    assert found.geometry.voxel_ml == pytest.approx(expected.geometry.voxel_ml)
    assert list(geometry_notes(found.geometry)) == []
    # What is written lies on the scan's grid, for a reader that knows units or not.
    nifti.write(tmp_path / "map.nii.gz", found.array, found.geometry, np.float32)
    written, other = (nib.load(tmp_path / n) for n in ("map.nii.gz", "other.nii.gz"))
    np.testing.assert_array_equal(written.affine, other.affine)
    assert written.header.get_xyzt_units()[0] == unit
    assert nifti.read_geometry(tmp_path / "map.nii.gz") == found.geometry


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        nifti.read(tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="no file, but a folder"):
        nifti.read(tmp_path)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_affine_without_volume_is_refused(tmp_path, value):
    path = save(tmp_path / "a.nii.gz", volume(), np.eye(4))

    def flatten(content):
        # srow_x, srow_y and srow_z are the 12 floats from byte 280.
        content[280:328] = np.full(12, value, "<f4").tobytes()

    rewrite(path, flatten)
    with pytest.raises(InputError, match="spans no volume"):
        nifti.read_geometry(path)


def test_labels_within_a_thousandth_are_rounded(tmp_path):
    values = np.array([[[0.0, 2.0001, 0.9995]]], np.float64)
    path = save(tmp_path / "a.nii.gz", values, np.eye(4))
    array, _ = nifti.read(path, labels=True)
    assert array.dtype == np.uint8
    assert array.ravel().tolist() == [0, 2, 1]


@pytest.mark.parametrize("value", [2.002, -1.0, 256.0, np.nan, np.inf, -np.inf])
def test_other_label_values_are_refused(tmp_path, value):
    values = np.array([[[0.0, 1.0, value]]], np.float32)
    path = save(tmp_path / "a.nii.gz", values, np.eye(4))
    with pytest.raises(InputError, match=r"a\.nii\.gz: label"):
        nifti.read(path, labels=True)


def test_geometry_survives_json_and_compares_by_content(tmp_path):
    source = save(tmp_path / "a.nii.gz", volume(), affine_of((1, 2, 0), "--+"))
    geometry = nifti.read_geometry(source)
    text = json.dumps(geometry.to_json(), allow_nan=False)
    assert Geometry.from_json(json.loads(text)) == geometry
    assert Geometry((3, 4, 5), np.eye(4)) == Geometry((3, 4, 5), np.eye(4))
    assert Geometry((3, 4, 5), np.eye(4)) != Geometry((3, 4, 5), np.diag([2, 1, 1, 1]))
    assert Geometry((3, 4, 5), np.eye(4)) != Geometry((3, 4, 6), np.eye(4))


def test_geometry_made_here_can_be_written(tmp_path):
    sheared = affine_of((0, 2, 1), "+-+")
    sheared[0, 1] = 0.3
    for affine, qform in ((affine_of((0, 2, 1), "+-+"), 1), (sheared, 0)):
        geometry = Geometry((3, 4, 5), affine)
        mask = nifti.to_canonical(volume(dtype=np.uint8), geometry)
        nifti.write(tmp_path / "a.nii.gz", mask, geometry, np.uint8)
        image = nib.load(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(image.affine, affine.astype(np.float32))
        assert image.header["qform_code"] == qform
        assert nifti.read_geometry(tmp_path / "a.nii.gz") == geometry


def test_write_refuses_what_would_change_the_values(tmp_path):
    geometry = Geometry((2, 2, 2), np.eye(4))
    path = tmp_path / "a.nii.gz"
    for value, dtype in ((0.5, np.uint8), (300, np.uint8), (np.nan, np.int16)):
        with pytest.raises(ValueError, match="holds values"):
            nifti.write(path, np.full((2, 2, 2), value), geometry, dtype)
    with pytest.raises(ValueError, match="shape"):
        nifti.write(path, np.zeros((2, 2, 3)), geometry, np.uint8)
    with pytest.raises(ValueError, match="float64"):
        nifti.write(path, np.zeros((2, 2, 2)), geometry, np.float64)
    assert list(tmp_path.iterdir()) == []


def test_same_array_gives_same_bytes(tmp_path):
    geometry = Geometry((3, 4, 5), np.eye(4))
    for name in ("a.nii.gz", "b.nii.gz"):
        nifti.write(tmp_path / name, volume(), geometry, np.float32)
    first, second = ((tmp_path / n).read_bytes() for n in ("a.nii.gz", "b.nii.gz"))
    assert first == second
    assert first[4:8] == bytes(4)  # gzip's time stamp


def test_float64_file_never_stands_in_memory_as_float64(tmp_path):
    # 41 MB as the float32 returned, 82 MB as stored. Four blocks of 16 MB may stand
    # beside the array (gzip joins a block from pieces, by Python 3.13 more of them):
    # 108 MB. All of it as float64 would make 123.
    array = np.zeros((160, 160, 400), np.float64)
    path = save(tmp_path / "a.nii.gz", array, np.eye(4))
    del array
    tracemalloc.start()
    scan = nifti.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scan.array.nbytes == 160 * 160 * 400 * 4
    assert peak < scan.array.nbytes + 4 * 2**24


@pytest.mark.parametrize("value", [-1, 256])
def test_whole_labels_beyond_a_byte_are_refused(tmp_path, value):
    path = save(tmp_path / "a.nii.gz", np.array([[[0, value]]], np.int16), np.eye(4))
    with pytest.raises(InputError, match=r"a\.nii\.gz: holds values"):
        nifti.read(path, labels=True)


@pytest.mark.real
@pytest.mark.parametrize(("case", "axes"), [(0, "LAS"), (66, "LPS"), (45, "RAS")])
def test_real_masks_round_trip(real_data, tmp_path, case, axes):
    source = real_data / "lits_liver_masks" / f"LiTS-{case}.nii.gz"
    array, geometry = nifti.read(source, labels=True)
    nifti.write(tmp_path / "a.nii.gz", array, geometry, np.uint8)
    old, new = nib.load(source), nib.load(tmp_path / "a.nii.gz")
    assert "".join(nib.aff2axcodes(old.affine)) == axes
    np.testing.assert_array_equal(new.affine, old.affine)
    np.testing.assert_array_equal(np.asarray(new.dataobj), np.asarray(old.dataobj))


def test_a_qform_that_is_no_rotation_is_told(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    image.header["qform_code"] = 1
    for name in ("quatern_b", "quatern_c", "quatern_d"):
        image.header[name] = 1.0
    path = tmp_path / "scan.nii"
    nib.save(image, path)
    (note,) = geometry_notes(nifti.read_geometry(path))
    assert note == "the qform is no rotation; the sform is used"


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 1), (0, 0)])
def test_a_voxel_size_of_zero_is_not_taken_for_1_mm(tmp_path, sform, qform):
    path = save(tmp_path / "a.nii", volume(), np.diag([2, 2, 3, 1.0]))
    content = bytearray(path.read_bytes())
    content[88:92] = bytes(4)  # pixdim[3], float32
    content[252:256] = np.array([qform, sform], np.int16).tobytes()
    path.write_bytes(content)
    if sform:
        assert nifti.read_geometry(path).spacing_mm == (2, 2, 3)
        return
    with pytest.raises(InputError, match="a voxel has size 0"):
        nifti.read_geometry(path)
