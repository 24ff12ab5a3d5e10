"""One image each: made by one side, looked at by the other. A difference is an exception."""
import contextlib
import os
import struct

import kernel
import layers
import lib
from daemon_fixture import BIN, Daemon
from rafs_layout import rafs_layout

DAVIT = os.path.join(BIN, "davit")
NYDUS_IMAGE = os.path.join(lib.nydus_dir(), "nydus-image")
NYDUSD = os.path.join(lib.nydus_dir(), "nydusd")
# The real tar reader drops fractions of seconds.
TIMES = {"dir-rafs": "ns", "tar-rafs": True}


class Input:
    """The tree of all single images: as a directory, as an archive with its trailer, and as one without."""

    def __init__(self, tree, tar, cut_tar):
        self.tree, self.tar, self.cut_tar = tree, tar, cut_tar
        self.expected = {times: lib.describe(tree, times=times) for times in (True, "ns")}


def compare(expected, root, **options):
    problems = lib.differences(expected, lib.describe(root, **options))
    if problems:
        raise RuntimeError("\n  ".join(["trees differ"] + problems))


@contextlib.contextmanager
def part(name):
    """Says which reader saw what is wrong."""
    try:
        yield
    except Exception as error:
        raise RuntimeError(f"{name}: {error}") from error


# --- davit looks


def unpack_and_compare(expected, bootstrap, blob_dir, work, **options):
    with part("davit unpack"):
        target = os.path.join(work, "unpacked")
        os.makedirs(target)
        tar = os.path.join(work, "out.tar")
        lib.run(DAVIT, "unpack", "--bootstrap", bootstrap, "--blob-dir", blob_dir, "-o", tar, "--quiet")
        lib.run("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", tar, "-C", target)
        compare(expected, target, **options)


def mount_source_and_compare(expected, source, work, **options):
    """A daemon of its own: chunks that an earlier image left in a cache would be used again, and prove nothing."""
    with part("davit mount"):
        point = os.path.join(work, "davit-mnt")
        os.makedirs(point)
        daemon = Daemon(os.path.join(work, "davitd"), cache__reserve_free_bytes=0)
        os.makedirs(daemon.root)
        daemon.start()
        try:
            daemon.mount("m", source, point, fill=False, platform="linux/amd64")
            compare(expected, point, **options)
            daemon.call("DELETE", "/api/v1/mounts/m")
        finally:
            daemon.stop()


def mount_and_compare(expected, bootstrap, blob_dir, work, **options):
    layout = os.path.join(work, "layout")
    rafs_layout(layout, bootstrap, blob_dir)
    mount_source_and_compare(expected, f"oci:{layout}:v1", work, **options)


def davit_checks(bootstrap, blob_dir):
    with part("davit check"):
        lib.run(DAVIT, "check", "--quiet", "--bootstrap", bootstrap, "--blob-dir", blob_dir)


def davit_reads(expected, bootstrap, blob_dir, work, **options):
    davit_checks(bootstrap, blob_dir)
    unpack_and_compare(expected, bootstrap, blob_dir, work, **options)
    mount_and_compare(expected, bootstrap, blob_dir, work, **options)


# --- nydus and the kernel look


def nydus_reads(expected, bootstrap, blob_dir, work, **options):
    """Leaves the uncompressed blobs in the daemon's cache, for the kernel."""
    with part("nydus-image check"):
        lib.run(NYDUS_IMAGE, "check", "--bootstrap", bootstrap)
    with part("nydusd"):
        mountpoint = os.path.join(work, "nydus-mnt")
        os.makedirs(mountpoint)
        with lib.nydusd(NYDUSD, bootstrap, blob_dir, mountpoint, work):
            compare(expected, mountpoint, **options)


def kernel_reads(expected, bootstrap, work, **options):
    """The kernel's data devices are always uncompressed; here they are what the real daemon made of the blobs."""
    with part("EROFS"):
        devices = kernel.devices_from_cache(os.path.join(work, "nydus-cache"), kernel.blobs_of(DAVIT, lib.run, bootstrap))
        lib.run("fsck.erofs", *[f"--device={file}" for file in devices], bootstrap)
        with kernel.erofs(bootstrap, devices, os.path.join(work, "erofs-mnt")) as mountpoint:
            compare(expected, mountpoint, **options)


# --- images of the real builder


def nydus_create(work, source, kind, *flags):
    blobs = os.path.join(work, "blobs")
    os.makedirs(blobs)
    boot = os.path.join(work, "image.boot")
    lib.run(NYDUS_IMAGE, "create", "--fs-version", "6", "--type", kind, "--blob-dir", blobs, "--bootstrap", boot, *flags, source)
    return boot, blobs


def theirs_here(inputs, kind, flags):
    with lib.temp_dir() as work:
        boot, blobs = nydus_create(work, inputs.tar if kind == "tar-rafs" else inputs.tree, kind, *flags)
        davit_reads(inputs.expected[TIMES[kind]], boot, blobs, work, times=TIMES[kind])


def nydus_layer(blobs, boots, tar, flags):
    """A layer blob as converters push it: the bootstrap is inside. Returns the bootstrap, extracted."""
    before = set(os.listdir(blobs))
    lib.run(NYDUS_IMAGE, "create", "--fs-version", "6", "--type", "tar-rafs", "--blob-dir", blobs, "--blob-inline-meta",
            "--whiteout-spec", "none", *flags, tar)
    (name,) = set(os.listdir(blobs)) - before
    return extract(blobs, lib.name_by_digest(blobs, name), boots)


def theirs_inline(inputs, flags):
    with lib.temp_dir() as work:
        blobs, boots = folders(work, "blobs", "layers")
        boot = nydus_layer(blobs, boots, inputs.tar, flags)
        davit_checks(boot, blobs)
        unpack_and_compare(inputs.expected[True], boot, blobs, work, times=True)
        # Images have the bootstrap of a merge, also those of one layer.
        merged = os.path.join(work, "image.boot")
        lib.run(NYDUS_IMAGE, "merge", boot, "--bootstrap", merged)
        mount_and_compare(inputs.expected[True], merged, blobs, work, times=True)


def folders(work, *names):
    paths = [os.path.join(work, name) for name in names]
    for path in paths:
        os.makedirs(path)
    return paths


def extract(blobs, name, boots):
    """The bootstrap inside a blob, in a file that is named by the blob's id, as both merge commands want it."""
    boot = os.path.join(boots, name)
    lib.run(DAVIT, "extract", os.path.join(blobs, name), "-o", boot)
    return boot


def theirs_merged(expected, tars, flags):
    """Layers of theirs, merged by both: one tree, for both readers."""
    with lib.temp_dir() as work:
        blobs, boots = folders(work, "blobs", "layers")
        bootstraps = [nydus_layer(blobs, boots, tar, ["--features", "blob-toc", *flags]) for tar in tars]
        merged_by_both(expected, blobs, bootstraps, work, times=True)


def ours_merged(expected, tars, flags):
    """Layers of ours, merged by both: one tree, for both readers."""
    with lib.temp_dir() as work:
        blobs, boots = folders(work, "blobs", "layers")
        bootstraps = []
        for i, tar in enumerate(tars):
            out = os.path.join(work, f"out-{i}")
            lib.run(DAVIT, "build", tar, "-o", out, "--quiet", "--inline-bootstrap", "--whiteouts", "none", *flags)
            found = [name for name in os.listdir(out) if name != "image.boot"]
            for name in found:
                os.rename(os.path.join(out, name), os.path.join(blobs, name))
                bootstraps.append(extract(blobs, name, boots))
            if not found:  # an empty layer has no blob
                bootstraps.append(os.path.join(out, "image.boot"))
        merged_by_both(expected, blobs, bootstraps, work, by_kernel=True, times="ns")


def merged_by_both(expected, blobs, boots, work, by_kernel=False, **options):
    for name, command in (("nydus-image merge", [NYDUS_IMAGE, "merge", *boots, "--bootstrap"]), ("davit merge", [DAVIT, "merge", *boots, "-o"])):
        with part(name):
            space = os.path.join(work, name.replace(" ", "-"))
            os.makedirs(space)
            merged = os.path.join(space, "merged.boot")
            lib.run(*command, merged)
            davit_reads(expected, merged, blobs, space, **options)
            nydus_reads(expected, merged, blobs, space, **options)
            if by_kernel:
                kernel_reads(expected, merged, space, **options)


# --- images of ours


def ours_there(inputs, kind, flags):
    with lib.temp_dir() as work:
        out = os.path.join(work, "out")
        source = {"directory": inputs.tree, "tar": inputs.tar, "cut tar": inputs.cut_tar}[kind]
        lib.run(DAVIT, "build", source, "-o", out, "--quiet", *flags)
        boot = os.path.join(work, "image.boot")
        os.rename(os.path.join(out, "image.boot"), boot)
        times = "ns"
        nydus_reads(inputs.expected[times], boot, out, work, times=times)
        kernel_reads(inputs.expected[times], boot, work, times=times)


def ours_converted(expected, source, flags):
    """An image of several layers, with a chunk dictionary and a list of what to fetch first."""
    with lib.temp_dir() as work:
        target = os.path.join(work, "target")
        convert = [DAVIT, "convert", "--quiet", "--platform", "linux/amd64", *flags]
        lib.run(*convert, f"oci:{source}:dict", f"oci:{target}:dict")
        prefetch = [word for path in layers.PREFETCH for word in ("--prefetch", path)]
        lib.run(*convert, *prefetch, "--chunk-dict", f"oci:{target}:dict", f"oci:{source}:image", f"oci:{target}:image")
        boot = os.path.join(work, "image.boot")
        with open(boot, "wb") as handle:
            handle.write(layers.bootstrap_of(target, "image"))
        uses_dict_and_list(boot, target)
        blobs = os.path.join(target, "blobs/sha256")
        nydus_reads(expected, boot, blobs, work, times="ns")
        kernel_reads(expected, boot, work, times="ns")
        mount_source_and_compare(expected, f"oci:{target}:image", work, times="ns")


def uses_dict_and_list(bootstrap, layout):
    """Else the comparison that follows would prove nothing about either."""
    (old,) = [layer["digest"] for layer in layers.image_file(layout, "dict", "manifest")["layers"]
              if not any(key.endswith("nydus-bootstrap") for key in layer["annotations"])]
    used = [blob["id"] for blob in kernel.blobs_of(DAVIT, lib.run, bootstrap)]
    if old.removeprefix("sha256:") not in used or len(used) != 4:
        raise RuntimeError(f"the dictionary's blob {old} and one for each layer with data should be used, not {used}")
    with open(bootstrap, "rb") as handle:
        handle.seek(1152 + 48)  # size of the prefetch table
        (size,) = struct.unpack("<I", handle.read(4))
    if size != 4 * len(layers.PREFETCH):
        raise RuntimeError(f"the prefetch table has {size} bytes for {len(layers.PREFETCH)} paths")
