"""Turns a plain, uncompressed image of the real builder into one with gzip chunks.

No builder of today makes such images: nydus-image offers none, lz4_block and zstd. The format has them, and so have
readers; layout in docs/formats/rafs.md.
"""
import gzip
import hashlib
import os
import struct

GZIP, FLAG_GZIP, FLAGS_COMPRESSORS = 2, 0x40, 0x1 | 0x2 | 0x40 | 0x80
CHUNK_COMPRESSED = 1
MAGIC = 0xB10BB10B


def read_record(data, at):
    plain, packed = struct.unpack_from("<QQ", data, at)
    def size(word, low, high):
        return ((word >> low & 0xFFFFF) | (word >> high & 0xF) << 20) + 1
    return plain & 0xFFFFFFFF000, size(plain, 44, 8), packed & 0xFFFFFFFFFF, size(packed, 44, 40)


def write_record(plain_offset, plain_size, offset, size):
    def parts(value, high):
        return ((value - 1) & 0xFFFFF) << 44 | (value - 1 >> 20) << high
    return struct.pack("<QQ", parts(plain_size, 8) | plain_offset, parts(size, 40) | offset)


def convert(source, target):
    """`source`: a folder with image.boot and one uncompressed blob. The number of chunks that are gzip now."""
    (blob_name,) = [name for name in os.listdir(source) if name != "image.boot"]
    with open(os.path.join(source, "image.boot"), "rb") as handle:
        boot = bytearray(handle.read())
    with open(os.path.join(source, blob_name), "rb") as handle:
        old = handle.read()
    flags, table, table_size, _, chunks, chunks_size = struct.unpack_from("<QQIIQQ", boot, 1152)
    assert table_size == 256 and boot[table:table + 64].decode() == blob_name
    count, compressor, _, features = struct.unpack_from("<IIII", boot, table + 72)
    ci_compressor, ci_offset, ci_stored, ci_size = struct.unpack_from("<IQQQ", boot, table + 108)
    assert compressor == 0 and ci_compressor == 0 and ci_stored == ci_size == 16 * count and features & 0x4 == 0

    data, ci, moved = bytearray(), bytearray(), {}
    for index in range(count):
        plain_offset, plain_size, offset, size = read_record(old, ci_offset + 16 * index)
        assert plain_size == size
        raw = old[offset:offset + size]
        packed = gzip.compress(raw, mtime=0)
        stored = packed if len(packed) < size else raw
        moved[index] = (len(data), len(stored), stored is packed)
        ci += write_record(plain_offset, plain_size, len(data), len(stored))
        data += stored
    header = bytearray(4096)
    struct.pack_into("<IIIIQQQ", header, 0, MAGIC, features, 0, count, len(data), len(ci), len(ci))
    struct.pack_into("<I", header, 4092, MAGIC)
    blob = bytes(data + ci + header)
    name = hashlib.sha256(blob).hexdigest()

    struct.pack_into("<Q", boot, 1152, flags & ~FLAGS_COMPRESSORS | FLAG_GZIP)
    boot[1408:1408 + 64] = boot[table:table + 64] = name.encode()
    struct.pack_into("<I", boot, table + 76, GZIP)
    whole = struct.unpack_from("<Q", boot, table + 88)[0] == len(old)
    struct.pack_into("<Q", boot, table + 88, len(blob) if whole else len(data))
    struct.pack_into("<IQQQ", boot, table + 108, 0, len(data), len(ci), len(ci))
    for at in range(chunks, chunks + chunks_size, 80):
        _, flag, _, plain_size, offset, _, _, index = struct.unpack_from("<IIIIQQQI", boot, at + 32)
        offset, size, packed = moved[index]
        flag = flag | CHUNK_COMPRESSED if packed else flag & ~CHUNK_COMPRESSED
        struct.pack_into("<III", boot, at + 32 + 4, flag, size, plain_size)
        struct.pack_into("<Q", boot, at + 32 + 16, offset)
    os.makedirs(target)
    for file, content in {"image.boot": boot, name: blob}.items():
        with open(os.path.join(target, file), "wb") as handle:
            handle.write(content)
    return sum(packed for _, _, packed in moved.values())
