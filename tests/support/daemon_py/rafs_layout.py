"""A RAFS image out of a bootstrap and its blobs, as an OCI layout that davit mounts."""
import gzip
import hashlib
import io
import json
import os
import tarfile

OCI = "application/vnd.oci.image."


def rafs_layout(path, bootstrap, blob_dir, tag="v1"):
    """Writes the layout `path`; the blobs are the files of `blob_dir` other than *.boot, named by their ids.

    The bootstrap layer holds nothing else, so that the tables of the blobs have to be fetched from them. A blob keeps its
    id for a name also where that is not the digest of the file (a table of contents without an inline bootstrap).
    """
    os.makedirs(os.path.join(path, "blobs/sha256"))

    def put(data, media_type, name=None, **annotations):
        name = name or hashlib.sha256(data).hexdigest()
        with open(os.path.join(path, "blobs/sha256", name), "wb") as handle:
            handle.write(data)
        out = {"mediaType": media_type, "digest": "sha256:" + name, "size": len(data)}
        return dict(out, annotations=annotations) if annotations else out

    layers = []
    for file in sorted(os.listdir(blob_dir)):
        if file.endswith(".boot"):
            continue
        with open(os.path.join(blob_dir, file), "rb") as handle:
            layers.append(put(handle.read(), "application/vnd.oci.image.layer.nydus.blob.v1", name=file,
                              **{"containerd.io/snapshot/nydus-blob": "true"}))
    raw = io.BytesIO()
    with open(bootstrap, "rb") as handle, tarfile.open(fileobj=raw, mode="w") as tar:
        info = tarfile.TarInfo("image/image.boot")
        info.size = os.path.getsize(bootstrap)
        tar.addfile(info, handle)
    layers.append(put(gzip.compress(raw.getvalue(), 1, mtime=0), OCI + "layer.v1.tar+gzip",
                      **{"containerd.io/snapshot/nydus-bootstrap": "true", "containerd.io/snapshot/nydus-fs-version": "6"}))
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}}
    manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                "config": put(json.dumps(config).encode(), OCI + "config.v1+json"), "layers": layers}
    descriptor = put(json.dumps(manifest).encode(), OCI + "manifest.v1+json", **{"org.opencontainers.image.ref.name": tag})
    with open(os.path.join(path, "oci-layout"), "w", encoding="utf-8") as handle:
        handle.write('{"imageLayoutVersion":"1.0.0"}')
    with open(os.path.join(path, "index.json"), "w", encoding="utf-8") as handle:
        json.dump({"schemaVersion": 2, "manifests": [descriptor]}, handle)
