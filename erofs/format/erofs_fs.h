#pragma once
// On-disk structures of EROFS as far as RAFS v6 uses them. Source: Linux fs/erofs/erofs_fs.h
// (documented in Documentation/filesystems/erofs.rst); fields keep the names used there.

#include <cstddef>
#include <cstdint>

namespace davit::erofs {

inline constexpr std::uint32_t kMagic = 0xE0F5E1E2;
inline constexpr std::size_t kSuperOffset = 1024;
inline constexpr std::uint32_t kFeatureIncompatChunkedFile = 0x4;
inline constexpr std::uint32_t kFeatureIncompatDeviceTable = 0x8;
inline constexpr std::size_t kNidSize = 32;

struct SuperBlock {
  std::uint32_t magic, checksum, feature_compat;
  std::uint8_t blkszbits, sb_extslots;
  std::uint16_t root_nid;
  std::uint64_t inos, build_time;
  std::uint32_t build_time_nsec, blocks, meta_blkaddr, xattr_blkaddr;
  std::uint8_t uuid[16], volume_name[16];
  std::uint32_t feature_incompat;
  std::uint16_t union_u1, extra_devices, devt_slotoff;
  std::uint8_t reserved[38];
};
static_assert(sizeof(SuperBlock) == 128 && offsetof(SuperBlock, feature_incompat) == 80 &&
              offsetof(SuperBlock, devt_slotoff) == 88);

struct InodeCompact {
  std::uint16_t format, xattr_icount, mode, nlink;
  std::uint32_t size, reserved, i_u, ino;
  std::uint16_t uid, gid;
  std::uint32_t reserved2;
};
static_assert(sizeof(InodeCompact) == 32 && offsetof(InodeCompact, ino) == 20);

struct InodeExtended {
  std::uint16_t format, xattr_icount, mode, reserved;
  std::uint64_t size;
  std::uint32_t i_u, ino, uid, gid;
  std::uint64_t mtime;
  std::uint32_t mtime_nsec, nlink;
  std::uint8_t reserved2[16];
};
static_assert(sizeof(InodeExtended) == 64 && offsetof(InodeExtended, mtime) == 32);

/// Data layouts, bits 1..3 of an inode's format.
enum class Layout : std::uint8_t { kPlain = 0, kInline = 2, kChunkBased = 4 };
inline constexpr std::uint16_t kChunkFormatIndexes = 0x20;
inline constexpr std::uint16_t kChunkFormatBlkBitsMask = 0x1F;

#pragma pack(push, 1)
struct Dirent {
  std::uint64_t nid;
  std::uint16_t nameoff;
  std::uint8_t file_type, reserved;
};
#pragma pack(pop)
static_assert(sizeof(Dirent) == 12);

struct XattrHeader {
  std::uint32_t name_filter;
  std::uint8_t shared_count, reserved[7];
};
static_assert(sizeof(XattrHeader) == 12);

struct XattrEntry {
  std::uint8_t name_len, name_index;
  std::uint16_t value_size;
};
static_assert(sizeof(XattrEntry) == 4);

enum class XattrIndex : std::uint8_t {
  kUser = 1,
  kPosixAclAccess = 2,
  kPosixAclDefault = 3,
  kTrusted = 4,
  kSecurity = 6,
};

/// One index of a chunk-based file; `advise` and the high byte of `device_id` carry RAFS's chunk
/// index (see rafs/layout/v6.h).
struct ChunkIndex {
  std::uint16_t advise, device_id;
  std::uint32_t blkaddr;
};
static_assert(sizeof(ChunkIndex) == 8);

struct DeviceSlot {
  std::uint8_t tag[64];
  std::uint32_t blocks, mapped_blkaddr;
  std::uint8_t reserved[56];
};
static_assert(sizeof(DeviceSlot) == 128);

}  // namespace davit::erofs
