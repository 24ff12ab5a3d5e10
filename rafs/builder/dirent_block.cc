#include "rafs/builder/dirent_block.h"

#include <sys/stat.h>

#include <cstring>
#include <vector>

#include "rafs/layout/v6.h"

namespace davit::rafs {
namespace {

std::uint8_t FileType(std::uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return 1;
    case S_IFDIR:
      return 2;
    case S_IFCHR:
      return 3;
    case S_IFBLK:
      return 4;
    case S_IFIFO:
      return 5;
    case S_IFSOCK:
      return 6;
    case S_IFLNK:
      return 7;
    default:
      return 0;
  }
}

struct Entry {
  std::string_view name;
  DirentTarget target;
};

void AppendBlock(const std::vector<Entry>& entries, std::string& out) {
  std::size_t name_offset = entries.size() * sizeof(erofs::Dirent);
  std::string names;
  for (const Entry& entry : entries) {
    const erofs::Dirent dirent{.nid = entry.target.nid,
                               .nameoff = static_cast<std::uint16_t>(name_offset + names.size()),
                               .file_type = FileType(entry.target.mode),
                               .reserved = 0};
    out.append(reinterpret_cast<const char*>(&dirent), sizeof dirent);
    names += entry.name;
  }
  out += names;
}

}  // namespace

std::uint64_t DirectorySize(const TreeInode& dir) {
  std::uint64_t blocks = 0;
  std::size_t used = 0;
  ForEachDirent(dir, [&](std::string_view name, const TreeInode*) {
    const std::size_t need = sizeof(erofs::Dirent) + name.size();
    if (used + need > v6::kBlockSize) {
      ++blocks;
      used = 0;
    }
    used += need;
  });
  return blocks * v6::kBlockSize + used;
}

std::string EncodeDirectory(const TreeInode& dir, const DirentResolver& resolve) {
  std::string out;
  std::vector<Entry> block;
  std::size_t used = 0;
  ForEachDirent(dir, [&](std::string_view name, const TreeInode* child) {
    const std::size_t need = sizeof(erofs::Dirent) + name.size();
    if (used + need > v6::kBlockSize) {
      AppendBlock(block, out);
      out.resize(AlignUp(out.size(), v6::kBlockSize), '\0');
      block.clear();
      used = 0;
    }
    used += need;
    block.push_back({name, resolve(name, child)});
  });
  AppendBlock(block, out);
  return out;
}

}  // namespace davit::rafs
